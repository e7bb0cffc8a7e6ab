"""What an installation adds to the packages: fstab, host identity, boot menus, and files of every kind a server has."""

import os
import random
import re
import stat
from pathlib import Path

ESP_FILES = {
    "EFI/BOOT/BOOTX64.EFI": "usr/lib/shim/shimx64.efi.signed",
    "EFI/BOOT/grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    "EFI/debian/shimx64.efi": "usr/lib/shim/shimx64.efi.signed",
    "EFI/debian/grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
}
# An emulated timer is late on a busy host, and the kernel would take it for a broken one.
LINE = "console=tty0 console=ttyS0,115200 no_timer_check"
# Root's password at the console is "halfhour": openssl passwd -6 -salt halfhourlab halfhour
PASSWORD = "$6$halfhourlab$8IzUkUevfF83XE16gZouqRZ0yNqPswXg140sGk7123MKVAvUE06vbv0WNc8mW6B.0izqXb0sAkmStEdZs18ub0"


def dress(root, layout, seed):
    """Makes the unpacked packages this one server."""
    etc = root / "etc"
    (etc / "fstab").write_text(fstab(layout))
    (etc / "hostname").write_text(f"server{seed}\n")
    (etc / "machine-id").write_text(f"{random.Random(f'machine {seed}').getrandbits(128):032x}\n")
    shadow = etc / "shadow"
    shadow.write_text(re.sub(r"^root:[^:]*:", f"root:{PASSWORD}:", shadow.read_text(), flags=re.MULTILINE))
    for name in ("srv", "boot/efi"):
        (root / name).mkdir(parents=True, exist_ok=True)
    kernel = sorted((root / "boot").glob("vmlinuz-*"))[0].name
    version = kernel.removeprefix("vmlinuz-")
    place = layout.get("root")
    where = f"root={place.source}" + (f" rootflags=subvol={place.subvolume}" if place.subvolume else "")
    (root / "boot/grub/grub.cfg").write_text(
        "serial --unit=0 --speed=115200\nterminal_input console serial\nterminal_output console serial\n"
        f"set timeout=1\nmenuentry Debian {{\n  search --no-floppy --fs-uuid --set=root {layout.get('boot').identity}\n"
        f"  linux /{kernel} {where} ro {LINE}\n  initrd /initrd.img-{version}\n}}\n")
    every_kind_of_file(root / "var/lib/halfhour-lab", random.Random(f"files {seed}"))


def fstab(layout):
    lines = ["# <file system> <mount point> <type> <options> <dump> <pass>"]
    for part in layout.volumes:
        if part.filesystem == "swap":
            lines.append(f"{part.source} none swap sw 0 0")
        elif part.mount:
            options = {"root": "errors=remount-ro", "esp": "umask=0077"}.get(part.name, "defaults")
            order = 1 if part.name == "root" else 2
            if part.filesystem == "xfs":  # as Debian's installer writes it: it has no such option, and is never checked
                options, order = "defaults", 0
            if part.subvolume:
                options, order = f"defaults,subvol={part.subvolume}", 0
            lines.append(f"{part.source} {part.mount} {part.filesystem} {options} 0 {order}")
    return "\n".join(lines) + "\n"


def every_kind_of_file(base, chance):
    """One directory with what file-level tools like to lose; a block image must carry all of it."""
    base.mkdir(parents=True)
    (base / "random").write_bytes(chance.randbytes(300_000))
    os.link(base / "random", base / "hard-link")
    os.symlink("random", base / "symlink")
    os.symlink("/".join(["long"] * 30), base / "long-symlink")
    os.mkfifo(base / "fifo")
    os.mknod(base / "block-device", 0o660 | stat.S_IFBLK, os.makedev(8, 1))
    os.mknod(base / "char-device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    with open(base / "sparse", "wb") as sparse:
        for place in (0, 10 << 20, 90 << 20):
            sparse.seek(place)
            sparse.write(chance.randbytes(5000))
        sparse.truncate(100 << 20)
    (base / "setuid").write_bytes(b"#!/bin/sh\n")
    os.chown(base / "setuid", 1000, 1001)
    os.chmod(base / "setuid", 0o6755)
    os.chown(base / "random", 0, 0)  # fakeroot must know a file before it is given an attribute
    os.setxattr(base / "random", "user.short", b"value")
    os.setxattr(base / "setuid", "user.long", b"x" * 800)
    (base / ("long-name-" + "n" * 200)).write_bytes(b"")
    (base / "ünïcode \n newline").write_bytes(b"odd name\n")
    many = base / "many"
    many.mkdir()
    for number in range(1500):
        (many / f"message-{number:05}").write_bytes(chance.randbytes(chance.choice((0, 40, 700, 5000))))


def split(root, work):
    """Moves what lies on volumes of its own out of the root tree. Returns the tree of each filesystem."""
    trees = {"root": root, "boot": work / "boot", "data": work / "data", "esp": work / "esp"}
    for name in ("boot", "data", "esp"):
        trees[name].mkdir()
    for target, source in ESP_FILES.items():
        place = trees["esp"] / target
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((root / source).read_bytes())
    config = "search --no-floppy --label boot --set=root\nset prefix=($root)/grub\nconfigfile $prefix/grub.cfg\n"
    (trees["esp"] / "EFI/debian/grub.cfg").write_text(config)
    for entry in list((root / "boot").iterdir()):
        if entry.name != "efi":
            entry.rename(trees["boot"] / entry.name)
    (root / "boot/efi").rmdir()
    (trees["boot"] / "efi").mkdir()
    return trees


def fill_data(base, seed, total):
    """A data volume: a database's files, shares with owners and modes, logs."""
    chance = random.Random(f"data {seed}")
    database = base / "database"
    database.mkdir(mode=0o700)
    os.chown(database, 105, 113)
    for number in range(6):
        write_pages(database / f"base.{number}", chance, total // 10)
    for name, mode in (("finance", 0o2770), ("public", 0o2775), ("home", 0o755)):
        share = base / "shares" / name
        share.mkdir(parents=True)
        os.chmod(share, mode)
        os.chown(share, 0, 2000 + len(name))
        for number in range(12):
            (share / f"document-{number:03}").write_bytes(chance.randbytes(total // 90))


def write_pages(path: Path, chance, size):
    """8 KiB pages, half of each structured, as a database has them."""
    with open(path, "wb") as out:
        for number in range(size // 8192):
            out.write(number.to_bytes(8, "little") + b"row " * 1000 + chance.randbytes(4184))
    os.chown(path, 105, 113)
    os.chmod(path, 0o600)
