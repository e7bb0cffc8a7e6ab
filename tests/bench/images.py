"""The disks the benchmarks work on: the aged root as source, junk-filled targets, damage, a sparse 16 TiB disk."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import used

MIB = 1 << 20
BLOCK = 64 << 10
MOST_FILLED = 5 << 29


class Source:
    """The root volume of the aged server, read through a read-only loop device where we may make one."""

    def __init__(self, image, node, used_extents=used.used_extents):
        self.image, self.node = image, node
        self.extents = used_extents(image)
        self.handle = open(node, "rb", buffering=0)  # kept open, or the kernel drops the device's cache
        self.size = self.handle.seek(0, 2)

    def warm(self):
        buffer = bytearray(MIB)
        for start, length in self.extents:
            self.handle.seek(start)
            while length > 0:
                length -= self.handle.readinto(memoryview(buffer)[: min(MIB, length)]) or length

    def describe(self):
        return (f"ext4, {self.size >> 20} MiB, {used.used_bytes(self.extents) >> 20} MiB used in {len(self.extents)} "
                f"extents, {used.stale_bytes(self.image, self.extents) >> 20} MiB stale in its free space")

    def differing_bytes(self, target):
        """Used bytes of the source, in 4 KiB blocks, that `target` has wrong."""
        wrong = 0
        with open(self.image, "rb") as ours, open(target, "rb") as theirs:
            for start, length in self.extents:
                for place in range(start, start + length, MIB):
                    size = min(MIB, start + length - place)
                    ours.seek(place), theirs.seek(place)
                    left, right = ours.read(size), theirs.read(size)
                    if left != right:
                        wrong += sum(left[i:i + 4096] != right[i:i + 4096] for i in range(0, size, 4096)) * 4096
        return wrong


def root_image(project, folder, say):
    """Builds the aged server's disk if need be and takes its root volume out."""
    image = folder / "root.img"
    if image.exists():
        return image
    disk = folder / "aged-server.img"
    if not disk.exists():
        say("building the aged server's disk (about three minutes, once)")
        subprocess.run([project / "tests/lab/server-disk", disk, "--aged"], check=True)
    table = json.loads(subprocess.run(["sfdisk", "--json", disk], check=True, text=True, capture_output=True).stdout)
    root = next(part for part in table["partitiontable"]["partitions"] if part["name"] == "root")
    partial = image.with_suffix(".partial")
    subprocess.run(["dd", f"if={disk}", f"of={partial}", "bs=1M", "conv=sparse", "status=none",
                    f"skip={root['start'] * 512 // MIB}", f"count={root['size'] * 512 // MIB}"], check=True)
    os.truncate(partial, root["size"] * 512)
    partial.rename(image)
    disk.unlink()
    return image


@dataclass
class Filesystem:
    """How one is made, what partclone calls it, and whom we ask what is used in it."""

    make: list
    partclone: str
    used_extents: Callable


FILESYSTEMS = {
    "xfs": Filesystem(["mkfs.xfs", "-q", "-f", "-K"], "partclone.xfs", used.used_by_xfs),
    "btrfs": Filesystem(["mkfs.btrfs", "-q", "-f", "-K"], "partclone.btrfs", used.used_by_btrfs),
    "ntfs": Filesystem(["mkntfs", "-q", "-F", "-f"], "partclone.ntfs", used.used_by_ntfs),
}


def filled(folder, kind, filesystem, say):
    """A volume of 4 GiB with up to 2.5 of this machine's programs, libraries and shared files; every third of these made
    room for others."""
    image, mount = folder / f"{kind}.img", folder / f"{kind}.mounted"
    say(f"filling a volume with {kind}")
    with open(image, "wb") as file:
        file.truncate(4 << 30)
    subprocess.run([*filesystem.make, image], check=True)
    mount.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        tree = mount / "share"
        subprocess.run(["cp", "-a", "/usr/share", tree], check=True)
        files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
        for path in files[::3]:
            path.unlink()
        libraries = sorted(Path("/usr/lib").glob("*-linux-gnu"))
        for more in (*(Path("/usr/share") / name for name in ("doc", "locale")), Path("/usr/bin"), *libraries):
            if bytes_below(mount) + bytes_below(more) < MOST_FILLED:
                subprocess.run(["cp", "-a", more, mount], check=True)
    finally:
        subprocess.run(["umount", mount], check=True)
    return image


def bytes_below(folder):
    return int(subprocess.run(["du", "-sxB1", folder], check=True, text=True, capture_output=True).stdout.split()[0])


def loop_device(image):
    """A read-only loop device on the image, or the image itself where there are none. The caller detaches."""
    if os.geteuid() == 0 and shutil.which("losetup"):
        found = subprocess.run(["losetup", "--find", "--show", "--read-only", image], text=True, capture_output=True)
        if found.returncode == 0:
            return Path(found.stdout.strip())
    return image


def fill_with_junk(path, size):
    """Every byte of the target is allocated, written and wrong; nothing of it is in the page cache afterwards."""
    junk = random.Random(size).randbytes(4 * MIB)
    with open(path, "r+b" if path.exists() else "wb", buffering=0) as file:
        for place in range(0, size, len(junk)):
            file.write(junk[: min(len(junk), size - place)])
        file.truncate(size)
    forget(path)


def damage(path, extents, share, seed):
    """Overwrites a share of the used 64 KiB blocks, at random places."""
    blocks = sorted({place // BLOCK for start, length in extents for place in range(start, start + length, BLOCK)})
    chosen = random.Random(seed).sample(blocks, int(len(blocks) * share))
    with open(path, "r+b", buffering=0) as file:
        for block in chosen:
            file.seek(block * BLOCK)
            file.write(os.urandom(BLOCK))
    forget(path)
    return len(chosen)


def forget(path):
    """Flushes a file and drops it from the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


HUGE_FILES = 40


def huge_file(number):
    return random.Random(number).randbytes(MIB)


def check_huge(disk):
    """Whether the files of a restored huge disk read as they were written."""
    for number in (0, HUGE_FILES // 2, HUGE_FILES - 1):
        command = ["debugfs", "-R", f"cat /file-{number}", f"{disk}?offset={MIB}"]
        found = subprocess.run(command, check=True, capture_output=True).stdout
        if found != huge_file(number):
            raise OSError(f"restored, but file-{number} is not what it was")


def huge_disk(folder):
    """A sparse disk file of almost 16 TiB (the most ext4 can hold): GPT, one ext4 with a few files."""
    disk = folder / "huge.img"
    if disk.exists():
        return disk
    size, start = (16 << 40) - 16 * MIB, MIB
    partial, tree = disk.with_suffix(".partial"), folder / "huge-files"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    for number in range(HUGE_FILES):
        (tree / f"file-{number}").write_bytes(huge_file(number))
    with open(partial, "wb") as file:
        file.truncate(size)
    table = f"label: gpt\nstart={start // 512}, size={(size - 2 * MIB) // 512}, type=L\n"
    subprocess.run(["sfdisk", "--quiet", partial], input=table, text=True, check=True)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-J", "size=64", "-d", tree, "-E",
                    f"lazy_itable_init=1,lazy_journal_init=1,offset={start}", partial, f"{(size - 2 * MIB) // 1024}k"], check=True)
    shutil.rmtree(tree)
    partial.rename(disk)
    return disk
