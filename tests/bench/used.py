"""The used extents of an ext4 image by dumpe2fs, which shares no code with ours."""

import re
import subprocess


def used_extents(image):
    """[(start, length)] in bytes, ascending, not touching one another."""
    text = subprocess.run(["dumpe2fs", str(image)], check=True, text=True, capture_output=True).stdout
    block = int(re.search(r"^Block size:\s+(\d+)", text, re.M)[1])
    count = int(re.search(r"^Block count:\s+(\d+)", text, re.M)[1])
    extents, position = [], 0
    for first, last in free_ranges(text):
        if first > position:
            extents.append((position * block, (first - position) * block))
        position = last + 1
    if position < count:
        extents.append((position * block, (count - position) * block))
    return merge(extents)


def used_by_xfs(image):
    """The same of an XFS image, by xfs_db."""
    def ask(*commands):
        words = [word for command in commands for word in ("-c", command)]
        return subprocess.run(["xfs_db", "-r", *words, str(image)], check=True, text=True, capture_output=True).stdout

    block, group, count = map(int, re.findall(r"= (\d+)", ask("sb 0", "p blocksize agblocks dblocks")))
    runs = re.findall(r"^ +(\d+) +(\d+) +(\d+)$", ask("freesp -d"), re.M)
    extents, position = [], 0
    for first, length in sorted((int(number) * group + int(at), int(length)) for number, at, length in runs):
        if first > position:
            extents.append((position * block, (first - position) * block))
        position = first + length
    if position < count:
        extents.append((position * block, (count - position) * block))
    return merge(extents)


def used_by_btrfs(image):
    """The same of a Btrfs image on one device, by its own dump: the first copies alone, for partclone loses the second."""
    def ask(*words):
        return subprocess.run(["btrfs", "inspect-internal", *words, str(image)], check=True, text=True, capture_output=True).stdout

    node = int(re.search(r"^nodesize\s+(\d+)", ask("dump-super"), re.M)[1])
    chunk = r"CHUNK_ITEM (\d+)\).*\n\s+length (\d+) .*\n(?:.*\n)*?\s+stripe 0 devid \d+ offset (\d+)"
    chunks = [tuple(map(int, found)) for found in re.findall(chunk, ask("dump-tree", "-t", "chunk"))]
    extents = [(64 << 10, 4096)]
    for at, kind, length in re.findall(r"key \((\d+) (EXTENT|METADATA)_ITEM (\d+)\)", ask("dump-tree", "-t", "extent")):
        at, length = int(at), int(length) if kind == "EXTENT" else node
        start, _, place = next(found for found in chunks if found[0] <= at < found[0] + found[1])
        extents.append((place + at - start, length))
    return merge(sorted(extents))


def used_by_ntfs(image):
    """The same of an NTFS image, by what ntfs-3g reads as its $Bitmap; the boot sector's copy is partclone's loss."""
    with open(image, "rb") as file:
        boot = file.read(64)
    cluster = int.from_bytes(boot[11:13], "little") * boot[13]
    count = int.from_bytes(boot[40:48], "little") // boot[13]
    bitmap = subprocess.run(["ntfscat", "-f", "-i", "6", str(image)], check=True, capture_output=True).stdout
    text = bin(int.from_bytes(bitmap, "little"))[:1:-1][:count]
    return [(run.start() * cluster, len(run[0]) * cluster) for run in re.finditer("1+", text)]


def free_ranges(text):
    ranges = []
    for line in re.findall(r"^  Free blocks: (.*)$", text, re.M):
        for piece in filter(None, line.split(", ")):
            first, _, last = piece.partition("-")
            ranges.append((int(first), int(last or first)))
    return sorted(ranges)


def merge(extents):
    merged = []
    for start, length in extents:
        if merged and sum(merged[-1]) == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + length)
        else:
            merged.append((start, length))
    return merged


def used_bytes(extents):
    return sum(length for _, length in extents)


def stale_bytes(image, extents, block=4096):
    """Non-zero data outside the used extents: what an imager without a map would store."""
    stale, position, zero = 0, 0, bytes(block)
    with open(image, "rb") as file:
        for start, length in [*extents, (file.seek(0, 2), 0)]:
            file.seek(position)
            for _ in range((start - position) // block):
                stale += block if file.read(block) != zero else 0
            position = start + length
    return stale
