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
    "group": "E6D6D379-F507-44C2-A23C-238F2A3DF928",
}
# Sizes in MiB; 0 takes the rest.
SIZES = {
    "small": (3072, {"biosboot": 1, "esp": 100, "boot": 256, "root": 1536, "data": 0, "swap": 256}),
    "aged": (16384, {"biosboot": 1, "esp": 512, "boot": 1024, "root": 9216, "data": 0, "swap": 1024}),
}
# Members of mirrors, by the version of their superblocks: 1.0 lies at the end, so GRUB reads /boot as if it were alone.
MIRRORS = {"boot": "1.0", "root": "1.2", "data": "1.2"}
# The volume group, where there is one: its name, what is in it, and the unit that LVM gives space by.
GROUP, INSIDE, EXTENT = "server", ("root", "swap", "data"), 4 * MIB
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
    identity: str
    guid: str
    mirror: str = ""  # the version of the superblock, where it is to be a member
    node: str = ""  # of a logical volume

    @property
    def source(self):
        """What /etc/fstab calls it."""
        return self.node or f"UUID={self.identity}"

    @property
    def subvolume(self):
        """Where in its filesystem the files are, where that is not its top."""
        return "@rootfs" if self.filesystem == "btrfs" else ""

    @property
    def content(self):
        """Where its filesystem lies, start and size: beside a member's superblock there is room."""
        before = MIB if self.mirror == "1.2" else 0
        return self.start + before, self.size - (2 * MIB if self.mirror else 0)

    @property
    def mount(self):
        return MOUNTS.get(self.name)


@dataclass
class Layout:
    kind: str
    size: int
    identity: str
    partitions: list
    logical: list

    @classmethod
    def plan(cls, variant, mbr, seed, size=None, root="ext4", mirror=False, group=False):
        default, sizes = SIZES[variant]
        size = size or default * MIB
        if mbr:
            sizes = {name: sizes[name] for name in ("boot", "root", "swap", "data")}
        inside = {name: sizes[name] for name in INSIDE} if group else {}
        if group:
            sizes = {name: mib for name, mib in sizes.items() if name not in INSIDE} | {"group": 0}
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
            if name == "root":
                parts[-1].filesystem = root
            if mirror:
                parts[-1].mirror = MIRRORS.get(name, "")
            start += parts[-1].size
        identity = f"0x{chance.getrandbits(32):08x}" if mbr else str(make_uuid(chance))
        logical = divide(parts[-1], inside, chance) if group else []
        return cls("MBR" if mbr else "GPT", size, identity, parts, logical)

    @property
    def volumes(self):
        return self.partitions + self.logical

    def names(self):
        return [part.name for part in self.volumes]

    def get(self, name):
        return next((part for part in self.volumes if part.name == name), None)


def divide(group, sizes, chance):
    """Logical volumes one behind the other, as `lvcreate` puts them into a new group of one physical volume."""
    start, parts = group.start + MIB, []
    rest = (group.size - MIB) // EXTENT * EXTENT - sum(sizes.values()) * MIB
    for name, mib in sizes.items():
        node = f"/dev/mapper/{GROUP}-{name}"
        parts.append(Partition(name, 0, start, mib * MIB or rest, *identities(name, chance), node=node))
        start += parts[-1].size
    return parts


def identities(name, chance):
    identity, guid = str(make_uuid(chance)), str(make_uuid(chance))
    if name in ("biosboot", "group"):
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


def write_second(layout, first, path):
    """The other disk of mirrors: a copy with an identity of its own, without a second swap of the same UUID."""
    subprocess.run(["cp", "--sparse=always", str(first), str(path)], check=True, capture_output=True)
    identity = f"0x{int(layout.identity, 16) ^ 1:08x}"
    subprocess.run(["sfdisk", "--quiet", "--disk-id", str(path), identity], check=True, capture_output=True)
    with open(path, "r+b") as disk:
        disk.seek(layout.get("swap").start)
        disk.write(bytes(4096))


def gpt_lines(layout):
    for part in layout.partitions:
        yield (f"{part.number} : start={part.start // SECTOR}, size={part.size // SECTOR}, type={GPT_TYPES[part.name]}, "
               f"uuid={part.guid}, name={part.name}")


def mbr_lines(layout):
    first, *logical = layout.partitions
    begin = first.start + first.size
    yield f"1 : start={first.start // SECTOR}, size={first.size // SECTOR}, type={mbr_type(first)}, bootable"
    yield f"2 : start={begin // SECTOR}, size={(layout.size - MIB - begin) // SECTOR}, type=5"
    for part in logical:
        yield f"{part.number} : start={part.start // SECTOR}, size={part.size // SECTOR}, type={mbr_type(part)}"


def mbr_type(part):
    return {"swap": "82", "group": "8e"}.get(part.name, "fd" if part.mirror else "83")


def parse_size(text):
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text)
    if not match:
        raise ValueError(text)
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]
