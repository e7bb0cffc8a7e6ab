#!/usr/bin/env python3
"""seeds.py CORPUS: writes one valid input or more per target whose format is text or a tool on this machine can make, so
that the fuzzer begins behind the first checks. The layouts are those the targets describe."""

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

KIB = 1 << 10
TABLES = {
    "gpt": "label: gpt\nsize=16\nsize=8, name=second\n",
    "mbr": "label: dos\nsize=16, type=83, bootable\nsize=8, type=7\n",
    "logical": "label: dos\nstart=2, size=8, type=83\nstart=16, type=5\nstart=18, size=8, type=83\nstart=32, size=8, type=82\n",
}
EXT = {
    "ext2-1k": ["-t", "ext2", "-b", "1024"],
    "ext4-1k": ["-t", "ext4", "-b", "1024", "-O", "^resize_inode"],
    "ext4-4k": ["-t", "ext4", "-b", "4096"],
    "ext4-bigalloc": ["-t", "ext4", "-O", "bigalloc"],
    "ext4-meta-bg": ["-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"],
}
CORPUS = Path(__file__).resolve().parent.parent / "corpus"
NTFS = {"fresh": [], "closed": ["log", "1.1", "2", "closed"], "used": ["log", "1.1", "0", "used"], "list": ["split"]}
ID = "07" * 16
MANIFEST = f"captures/web/20261121T031500Z-{ID}"
HEADER = f'''{{"machine":"web","time":"2026-11-21T03:15:00Z","kind":"full","id":"{ID}","sequence":1,"previous":null}}'''
LEASE = f'''{{"manifest":"{MANIFEST}","machine":"web"}}'''
ENTRIES = """{"name":"packs/00/a","len":7,"received":"2026-11-22T01:02:03.5Z"}
{"name":"packs/00/b","len":0}
{"end":true,"count":2}
"""
# Structured replies, base:allocation of the first export, that export; a read, what is allocated, the end.
NBD = b"\x03\x08\x00\x0a\x1b" + bytes(4) + b"\0\0\0\1\0\0\0\x0fbase:allocation" + b"\x07\x06" + bytes(6)
NBD += b"\x80\0\0\0\0\2\0\0" + b"\x87\0\0\0\0\5\0\0" + b"\x82" + bytes(7)


def logical(name, letter, extra, stripes):
    return f"""{name} {{ id = "{letter}rCqKT-UC8b-Fmbn-Bp5Z-kACy-k9Td-Dujild" status = ["READ", "WRITE", "VISIBLE"] flags = []
segment_count = 1 segment1 {{ start_extent = 0 extent_count = 4 {extra} {stripes} }} }}
"""


def physical(name, letter):
    return f"""{name} {{ id = "{letter}bEK0w-qLID-qNTo-Lp6T-DQcT-Re0G-Kti6bZ" status = ["ALLOCATABLE"] flags = []
pe_start = 2048 pe_count = 30 }}
"""


STRIPED = 'type = "striped" stripe_count = 2 stripe_size = 128 stripes = ["pv0", 6, "pv1", 0]'
LVM = f"""contents = "Text Format Volume Group" version = 1 # comment
vg {{ id = "1n3XnC-ZQjz-CwCu-t40c-hmR0-Y2wW-p86QlK" seqno = 3 format = "lvm2" status = ["RESIZEABLE", "READ", "WRITE"]
flags = [] extent_size = 128 physical_volumes {{ {physical("pv0", "y")}{physical("pv1", "z")} }} logical_volumes {{
{logical("root", "8", 'type = "striped" stripe_count = 1', 'stripes = ["pv0", 0]')}{logical("data", "9", STRIPED, "")}
{logical("thin", "A", 'type = "thin" thin_pool = "root"', "")} }} }}
"""
TEXTS = {
    "lvm": [LVM],
    "names": [MANIFEST, f"leases/{ID}", f"moved/{ID * 2}-1", f"packs/07/{ID * 2}", f"trash/{ID * 2}"],
    "request": [f"\0/r/objects/{MANIFEST}", "\0/r/list/packs", f"\2{HEADER}", f"\3{LEASE}"],
    "listing": [f"\0\x20{ENTRIES}", f"\1\xff{ENTRIES}"],
    "url": [
        f"\0[::1]:8443/r#{ID * 2}",
        "\0nas.lan/r",
        "\1OFFICE;me@nas:1445/b$/x%20y",
        "\2[fe80::1]:2049/srv",
        "\3backups/site/servers",
        "\4http://localhost:9000",
        "\5[default]\nregion = eu-west-1\nendpoint_url = https://s3.example\n",
    ],
}


def main(corpus):
    for target, texts in TEXTS.items():
        for number, text in enumerate(texts):
            keep(corpus / target / str(number), text.encode("latin-1"))
    keep(corpus / "nbd" / "read", NBD)
    keep(corpus / "lvm" / "label", physical_volume())
    for name, member in {"old": md_old(), "start": b"\1" + md_new(), "end": b"\2" + md_new()}.items():
        keep(corpus / "md" / name, member)
    # With leases and records of both captures, and marks on each pack.
    keep(corpus / "prune" / "all", bytes([1, 2, 3, 255, 255, 0, 3, 0, 1, 0]) + bytes([8, 1, 2, 2, 3, 4, 1, 0, 5, 0, 0]))
    shapes = {"single": {}, "dup": {"kind": 32, "stripes": 2}, "groups": {"groups": True}, "log": {"log": True}, "files": {"files": True}}
    for name, shape in shapes.items():
        keep(corpus / "btrfs" / name, btrfs(**shape))
    keep(corpus / "xfs" / "unmounted", xfs(b"\xaa\x20"))
    keep(corpus / "xfs" / "changed", xfs(b"\x69\x01"))
    keep(corpus / "xfs" / "files", xfs(b"\xaa\x20", files=True))
    with tempfile.TemporaryDirectory() as work:
        image = Path(work) / "image"
        for name, script in TABLES.items():
            fresh(image, 64 * KIB)
            run(["sfdisk", "--quiet", image], script)
            keep(corpus / "table" / name, b"\0\0" + image.read_bytes())
        for name, options in EXT.items():
            fresh(image, 8192 * KIB)
            run(["mke2fs", "-q", "-F", *options, image])
            data = image.read_bytes()
            rest = 4096 if "4k" in name else 2048
            keep(corpus / "ext" / name, data[1024:2048] + data[rest:rest + 32 * KIB])
        for width in ("12", "16", "32"):
            fresh(image, 65536 * KIB)
            run(["mkfs.vfat", "-F", width, *(["-s", "64"] if width == "12" else []), image])
            data = image.read_bytes()
            keep(corpus / "fat" / f"fat{width}", data[:64] + data[512:8 * KIB])
        for name, edit in NTFS.items():
            fresh(image, 2048 * KIB)
            run(["mkntfs", "-q", "-F", "-f", "-L", "seed", image])
            if edit:
                run(["python3", CORPUS / "ntfs.py", image, *edit])
            keep(corpus / "ntfs" / name, ntfs(image.read_bytes()))
        for cluster in ("512", "4096"):
            fresh(image, 8192 * KIB)
            run(["mkfs.exfat", "-b", "512", "-c", cluster, "-L", "seed", image])
            data = image.read_bytes()
            fat, heap = (512 * int.from_bytes(data[at:at + 4], "little") for at in (80, 88))
            keep(corpus / "exfat" / cluster, data[64:128] + data[fat:fat + 256] + data[heap:heap + 16 * KIB])
        fresh(image, 65536 * KIB)
        run(["mkfs.f2fs", "-q", "-f", image])
        data = image.read_bytes()
        at = {name: 4096 * int.from_bytes(data[1024 + field:1028 + field], "little") for name, field in (("cp", 76), ("sit", 80))}
        summary = at["cp"] + 4096 * int.from_bytes(data[at["cp"] + 140:at["cp"] + 144], "little") + 507
        parts = ((1024, 128), (at["cp"], 512), (summary, 600), (at["sit"], 4096))
        keep(corpus / "f2fs" / "fresh", b"".join(data[start:start + length] for start, length in parts))
        fresh(image, 160 * KIB)
        run(["mkswap", "-L", "swap", image])
        data = image.read_bytes()
        keep(corpus / "swap" / "swap", data[:8] + data[1024:1088] + data[4076:4096])


def physical_volume():
    """What of a label and the header of a metadata area the target leaves open, and the text."""
    lists = struct.pack("<8Q", 1 << 19, 0, 0, 0, 4096, 1 << 18, 0, 0)
    label = b"ybEK0wqLIDqNToLp6TDQcTRe0GKti6bZ" + struct.pack("<Q", 1 << 20) + lists + struct.pack("<I", 2)
    header = bytes(20) + struct.pack("<IQQ", 1, 4096, 1 << 18)
    return label.ljust(480, b"\0") + header.ljust(512, b"\0") + LVM.encode()


def md_new():
    """A member of a mirror of two, its content at 1 MiB."""
    member = bytearray(512)
    member[16:32] = bytes(range(1, 17))
    struct.pack_into("<i", member, 72, 1)
    struct.pack_into("<Q", member, 80, 4096)
    struct.pack_into("<I", member, 92, 2)
    struct.pack_into("<QQ", member, 128, 2048, 4096)
    struct.pack_into("<Q", member, 208, (1 << 64) - 1)
    struct.pack_into("<HH", member, 256, 0, 1)
    member[260:] = b"\xff" * 252
    return bytes(member)


def md_old():
    words = [0] * 1024
    for number, value in ((5, 1), (7, 1), (8, 3072), (10, 2), (33, 1), (34, 2), (995, 0), (996, 6)):
        words[number] = value
    return b"\0" + struct.pack("<1024I", *words)


def ntfs(data):
    """The boot sector, and every structure with a magic of its own with its place."""
    pieces = [data[:96]]
    for at in range(0, len(data), KIB):
        piece = data[at:at + KIB]
        if piece[:4] in (b"FILE", b"INDX", b"RSTR", b"CHKD") and (piece[:4] != b"FILE" or piece[22] & 1):
            piece = piece[:int.from_bytes(piece[24:28], "little")] if piece[:4] == b"FILE" else piece
            pieces.append((at // KIB).to_bytes(2, "little") + len(piece).to_bytes(2, "little") + piece)
    return b"".join(pieces)


def xfs(operation, files=False):
    """One group with one free run in both trees, and a log of one record of one operation: client and flags. With files,
    of version 4, which has no checksums: /etc/fstab and /link, which leads to it."""
    block = bytearray(88 * 512)

    def put(at, value):
        block[at:at + len(value)] = value

    def word(at, value):
        put(at, value.to_bytes(4, "big"))

    put(144, (104).to_bytes(8, "big"))
    for at, value in ((28, 1), (32, 1), (48, 4), (52, 100), (56, 100)):
        word(512 + at, value)
    for number in (4, 5):
        put(number * 512, bytes([number - 4, 0, 0, 0, 0, 0, 0, 1]) + b"\xff" * 8)
        put(number * 512 + 56, (100).to_bytes(4, "big") * 2)
    log = 24 * 512
    put(log, b"\x01\x01")
    word(log + 12, 512)
    word(log + 40, 1)
    word(log + 320, 32768)
    put(log + 520, operation)

    def inode(place, mode, form, size, fork):
        core = bytearray(100)
        struct.pack_into(">2sHBB", core, 0, b"IN", mode, 2, form)
        struct.pack_into(">Q", core, 56, size)
        struct.pack_into(">I", core, 76, 1)
        put(20 * 512 + 256 * place, bytes(core) + fork)

    def folder(entries):
        entries = b"".join(bytes([len(name), 0, 0]) + name + struct.pack(">I", to) for name, to in entries)
        return b"\x02\0" + struct.pack(">I", 40) + entries

    if files:
        put(56, (40).to_bytes(8, "big"))
        inode(0, 0o40755, 1, 64, folder([(b"etc", 41), (b"link", 42)]))
        inode(1, 0o40755, 1, 64, folder([(b"fstab", 43), (b"none", 44)]))
        inode(2, 0o120777, 1, 10, b"/etc/fstab")
        inode(3, 0o100644, 2, 400, struct.pack(">QQ", 0, 22 << 21 | 1))
        put(22 * 512, b"LABEL=data /srv xfs\n")
    return bytes([0 if files else 1, 0]) + bytes(block)


def fresh(image, size):
    image.write_bytes(b"")
    os.truncate(image, size)


def run(command, text=""):
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)


def keep(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def name_hash(name):
    """btrfs_name_hash."""
    total = 0xFFFFFFFE
    for byte in name:
        total ^= byte
        for _ in range(8):
            total = total >> 1 ^ 0x82F63B78 * (total & 1)
    return total


def btrfs_files():
    """Items of a subvolume: /etc/fstab and /link, which leads to it."""
    def inode(number, mode, size):
        item = bytearray(160)
        struct.pack_into("<Q", item, 16, size)
        struct.pack_into("<I", item, 52, mode)
        return ((number, 1, 0), bytes(item))

    def entry(folder, name, to):
        return ((folder, 84, name_hash(name)), struct.pack("<QBQQHHB", to, 1, 0, 7, 0, len(name), 1) + name)

    def inline(number, data):
        return ((number, 108, 0), struct.pack("<QQ5x", 7, len(data)) + data)

    return sorted([
        inode(256, 0o40755, 0), entry(256, b"etc", 257), entry(256, b"link", 259), inode(257, 0o40755, 0),
        entry(257, b"fstab", 258), inode(258, 0o100644, 5), inline(258, b"fstab"), inode(259, 0o120777, 10),
        inline(259, b"/etc/fstab"),
    ])


def btrfs(kind=0, stripes=1, groups=False, log=False, files=False):
    """A superblock and nodes as the target lays them: one chunk of everything at 16 MiB, on the device at 1 MiB."""
    base, generation, logs = 16 << 20, 7, 2**64 - 6
    numbers = [0, 1, 2, 3, 4, 5] + [6] * groups + [9] * files
    data = [(base + (64 << 10), 4096), (base + (128 << 10), 65536)]
    used = len(numbers) * 4096 + sum(length for _, length in data)
    chunk = struct.pack("<4Q3I2H", 512 << 10, 2, 65536, 7 | kind, 0, 0, 0, stripes, 1)
    chunk += b"".join(struct.pack("<2Q", 1, (1 << 20) + n * (512 << 10)) + b"d" * 16 for n in range(stripes))
    group = ((base, 192, 512 << 10), struct.pack("<3Q", used, 256, 7 | kind))
    extents = [((base + n * 4096, 169, 0), bytes(33)) for n in numbers] + [((at, 168, n), bytes(53)) for at, n in data]
    extents = extents[:1] + [group] * (not groups) + extents[1:]

    def node(number, owner, level, entries, generation=generation):
        front = bytes(16) + struct.pack("<2Q16x2QIB", base + number * 4096, 0, generation, owner, len(entries), level)
        back = b""
        for key, value in entries:
            front += struct.pack("<QBQ", *key)
            if level:
                front += struct.pack("<2Q", base + value * 4096, generation)
            else:
                back = value + back
                front += struct.pack("<2I", 4096 - 101 - len(back), len(value))
        return struct.pack("<B2H", number, len(front), len(back)) + front + back

    def root(number, level=0, generation=generation):
        item = bytearray(439)
        struct.pack_into("<Q8xQ", item, 160, generation, base + number * 4096)
        item[238] = level
        return bytes(item)

    device = bytes(66) + b"d" * 16 + bytes(16)
    roots = [((2, 132, 0), root(2, 1)), ((4, 132, 0), root(5))] + [((5, 132, 0), root(9))] * files + [((11, 132, 0), root(6))] * groups
    middle = len(extents) // 2
    nodes = node(0, 3, 0, [((1, 216, 1), device), ((256, 228, base), chunk)]) + node(1, 1, 0, roots)
    nodes += node(2, 2, 1, [(extents[0][0], 3), (extents[middle][0], 4)])
    nodes += node(3, 2, 0, extents[:middle]) + node(4, 2, 0, extents[middle:])
    nodes += node(5, 4, 0, [((0, 250, 0), bytes(72))]) + (node(6, 11, 0, [group]) if groups else b"")
    nodes += node(9, 5, 0, btrfs_files()) if files else b""
    if log:
        extent = bytes(20) + b"\1" + struct.pack("<4Q", base + (256 << 10), 8192, 0, 8192)
        nodes += node(7, logs, 0, [((logs, 132, 5), root(8, 0, 8))], 8) + node(8, logs, 0, [((257, 108, 0), extent)], 8)
    sb = bytearray(4096)
    struct.pack_into("<2Q", sb, 0x30, 64 << 10, 1)
    struct.pack_into("<4Q", sb, 0x48, generation, base + 4096, base, base + 7 * 4096 if log else 0)
    struct.pack_into("<4Q4I", sb, 0x70, 2 << 20, used, 6, 1, 4096, 4096, 4096, 65536)
    struct.pack_into("<IQ8x2Q", sb, 0xA0, 17 + len(chunk), generation, 8 * groups, 0x341)
    struct.pack_into("<2Q50x16s", sb, 0xC9, 1, 2 << 20, b"d" * 16)
    struct.pack_into("<QBQ", sb, 0x32B, 256, 228, base)
    sb[0x33C:0x33C + len(chunk)] = chunk
    return bytes(sb[32:0x500]) + nodes


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main(Path(sys.argv[1]))
