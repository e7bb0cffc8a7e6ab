"""Filesystems made from directory trees, each in a file of its own. Only XFS and Btrfs are mounted for it:
the tools of one fill none, those of the other make no subvolume that is filled."""

import os
import shutil
import subprocess

import ageing

CHUNK = 1 << 20


def make(part, image, tree):
    with open(image, "wb") as out:
        out.truncate(part.content[1])
    if part.filesystem == "ext4":
        make_ext4(part, image, tree)
    elif part.filesystem == "xfs":
        make_xfs(part, image, tree)
    elif part.filesystem == "btrfs":
        make_btrfs(part, image, tree)
    elif part.filesystem == "vfat":
        make_vfat(part, image, tree)
    elif part.filesystem == "swap":
        run("mkswap", "-q", "-U", part.identity, image)
    if tree:
        shutil.rmtree(tree)


def make_ext4(part, image, tree):
    run("mke2fs", "-q", "-F", "-t", "ext4", "-U", part.identity, "-L", part.name,
        "-E", f"hash_seed={part.identity},root_owner=0:0", "-d", tree, image)


def make_xfs(part, image, tree):
    run("mkfs.xfs", "-q", "-f", "-m", f"uuid={part.identity}", "-L", part.name, image)
    with ageing.mounted(image) as root:
        run("cp", "-a", "--sparse=always", f"{tree}/.", root)


def make_btrfs(part, image, tree):
    """As Debian's installer makes it: the system lies in a subvolume, which only fstab and the kernel's line name."""
    run("mkfs.btrfs", "-q", "-f", "-U", part.identity, "-L", part.name, image)
    with ageing.mounted(image) as top:
        run("btrfs", "subvolume", "create", f"{top}/{part.subvolume}")
        run("cp", "-a", "--sparse=always", f"{tree}/.", f"{top}/{part.subvolume}")


def make_vfat(part, image, tree):
    # -i after --invariant, which would reset it.
    run("mkfs.vfat", "--invariant", "-F", "32", "-n", "ESP", "-i", part.identity.replace("-", ""), image)
    run("mcopy", "-s", "-Q", "-i", image, *sorted(tree.iterdir()), "::")


def place(image, disk, start):
    """Copies a volume into the disk; holes stay holes."""
    with open(image, "rb") as source, open(disk, "r+b") as target:
        position, end = 0, source.seek(0, os.SEEK_END)
        while position < end:
            try:
                position = os.lseek(source.fileno(), position, os.SEEK_DATA)
            except OSError:
                break
            hole = os.lseek(source.fileno(), position, os.SEEK_HOLE)
            copy_range(source.fileno(), target.fileno(), position, start + position, hole - position)
            position = hole
    image.unlink()


def copy_range(source, target, read_at, write_at, length):
    while length:
        data = os.pread(source, min(length, CHUNK), read_at)
        os.pwrite(target, data, write_at)
        read_at, write_at, length = read_at + len(data), write_at + len(data), length - len(data)


def run(*command):
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
