"""The partition layouts of the lab's servers: where each volume lies and what its identities are."""

import random
import re
import subprocess
import uuid
from dataclasses import dataclass

MIB = 1 << 20
SECTOR = 512
GPT_TYPES = {
    "biosboot": "21686148-6449-6E6F-744E-656564454649",
    "esp": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "boot": "BC13C2FF-59E6-4262-A352-B275FD6F7172",
    "root": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "data": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
}
# Sizes in MiB; 0 takes the rest.
SIZES = {
    "small": (3072, {"biosboot": 1, "esp": 100, "boot": 256, "root": 1536, "data": 0, "swap": 256}),
    "aged": (16384, {"biosboot": 1, "esp": 512, "boot": 1024, "root": 9216, "data": 0, "swap": 1024}),
}
MOUNTS = {"root": "/", "boot": "/boot", "esp": "/boot/efi", "data": "/srv"}


class LayoutError(Exception):
    pass


@dataclass
class Partition:
    name: str
    number: int
    start: int
    size: int
    filesystem: str
    identity: str  # what /etc/fstab calls it
    guid: str

    @property
    def mount(self):
        return MOUNTS.get(self.name)


@dataclass
class Layout:
    kind: str
    size: int
    identity: str
    partitions: list

    @classmethod
    def plan(cls, variant, mbr, seed, size=None):
        default, sizes = SIZES[variant]
        size = size or default * MIB
        if mbr:
            sizes = {name: sizes[name] for name in ("boot", "root", "swap", "data")}
        chance = random.Random(f"identities {seed}")
        rest = size // MIB - sum(sizes.values()) - 8  # first MiB, last MiB, and one before each logical
        if rest < 64:
            raise LayoutError(f"{size // MIB} MiB is too small for the {variant} server: {72 - rest} MiB more are needed")
        parts, start = [], MIB
        for index, (name, mib) in enumerate(sizes.items(), 1):
            number = index
            if mbr and index > 1:
                number, start = index + 3, start + MIB
            parts.append(Partition(name, number, start, (mib or rest) * MIB, *identities(name, chance)))
            start += parts[-1].size
        identity = f"0x{chance.getrandbits(32):08x}" if mbr else str(make_uuid(chance))
        return cls("MBR" if mbr else "GPT", size, identity, parts)

    def names(self):
        return [part.name for part in self.partitions]

    def get(self, name):
        return next((part for part in self.partitions if part.name == name), None)


def identities(name, chance):
    identity, guid = str(make_uuid(chance)), str(make_uuid(chance))
    if name == "biosboot":
        return "", "", guid
    if name == "esp":
        return "vfat", f"{chance.getrandbits(16):04X}-{chance.getrandbits(16):04X}", guid
    return "swap" if name == "swap" else "ext4", identity, guid


def make_uuid(chance):
    return uuid.UUID(int=chance.getrandbits(128), version=4)


def write(layout, path):
    """Creates the disk at `path`, sparse, with its table and nothing else."""
    with open(path, "wb") as disk:
        disk.truncate(layout.size)
    lines = [f"label: {'dos' if layout.kind == 'MBR' else 'gpt'}", f"label-id: {layout.identity}", "unit: sectors"]
    lines += mbr_lines(layout) if layout.kind == "MBR" else gpt_lines(layout)
    subprocess.run(["sfdisk", "--quiet", str(path)], input="\n".join(lines), text=True, check=True, capture_output=True)


def gpt_lines(layout):
    for part in layout.partitions:
        yield (f"{part.number} : start={part.start // SECTOR}, size={part.size // SECTOR}, type={GPT_TYPES[part.name]}, "
               f"uuid={part.guid}, name={part.name}")


def mbr_lines(layout):
    first, *logical = layout.partitions
    begin = first.start + first.size
    yield f"1 : start={first.start // SECTOR}, size={first.size // SECTOR}, type=83, bootable"
    yield f"2 : start={begin // SECTOR}, size={(layout.size - MIB - begin) // SECTOR}, type=5"
    for part in logical:
        kind = "82" if part.name == "swap" else "83"
        yield f"{part.number} : start={part.start // SECTOR}, size={part.size // SECTOR}, type={kind}"


def parse_size(text):
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text)
    if not match:
        raise ValueError(text)
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]
