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
