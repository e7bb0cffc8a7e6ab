#!/usr/bin/env python3
"""ntfs.py IMAGE flags N | log VERSION FLAGS STATE | clear-bit | far-run | split: changes an NTFS image as no tool does.

Only for images as tests/corpus/ntfs.sh makes them: system files have one run and their attributes lie in one record.
"""

import struct
import sys


class Image:
    def __init__(self, path):
        self.file = open(path, "r+b")
        boot = self.at(0, 512)
        self.sector, power = struct.unpack_from("<HB", boot, 11)
        self.cluster = self.sector * power
        mft, self.mirror = struct.unpack_from("<QQ", boot, 0x30)
        self.mft = mft * self.cluster
        self.record_bytes = 1024

    def at(self, place, length):
        self.file.seek(place)
        return bytearray(self.file.read(length))

    def put(self, place, data):
        self.file.seek(place)
        self.file.write(data)

    def record(self, number):
        """A file record with its last two bytes of every 512 put back."""
        record = self.at(self.mft + number * self.record_bytes, self.record_bytes)
        array, count = struct.unpack_from("<HH", record, 4)
        for n in range(1, count):
            record[n * 512 - 2:n * 512] = record[array + 2 * n:array + 2 * n + 2]
        return record

    def put_record(self, number, record):
        self.put(self.mft + number * self.record_bytes, protect(record))
        if number < 4:
            self.put(self.mirror * self.cluster + number * self.record_bytes, record)

    def attribute(self, record, kind):
        place = struct.unpack_from("<H", record, 20)[0]
        while (found := struct.unpack_from("<II", record, place))[0] != 0xFFFFFFFF:
            if found[0] == kind:
                return place
            place += found[1]
        raise SystemExit(f"no attribute {kind:#x}")

    def first_run(self, number):
        """Where the record's unnamed data begins."""
        record = self.record(number)
        place = self.attribute(record, 0x80)
        pairs = place + struct.unpack_from("<H", record, place + 32)[0]
        lengths, offsets = record[pairs] & 15, record[pairs] >> 4
        lcn = record[pairs + 1 + lengths:pairs + 1 + lengths + offsets]
        return int.from_bytes(lcn, "little", signed=True) * self.cluster


def protect(data):
    """Replaces the last two bytes of every 512 as NTFS does."""
    array, count = struct.unpack_from("<HH", data, 4)
    mark = bytes(data[array:array + 2])
    for n in range(1, count):
        data[array + 2 * n:array + 2 * n + 2] = data[n * 512 - 2:n * 512]
        data[n * 512 - 2:n * 512] = mark
    return data


def flags(image, value):
    record = image.record(3)
    place = image.attribute(record, 0x70)
    struct.pack_into("<H", record, place + struct.unpack_from("<H", record, place + 20)[0] + 10, int(value, 0))
    image.put_record(3, record)


def log(image, version, clean, state):
    """Two restart pages as Windows writes them; the second is the newer and in STATE, the first one says otherwise."""
    place, page = image.first_run(2), 4096
    major, minor = map(int, version.split("."))
    for number in (0, 1):
        is_open = (state == "used") == (number == 1)
        data = bytearray(page)
        magic = b"CHKD" if state == "checked" else b"RSTR"
        checked = 100 + number if state == "checked" else 0
        struct.pack_into("<4sHHQIIHhh", data, 0, magic, 0x1E, 9, checked, page, page, 0x30, minor, major)
        struct.pack_into("<H", data, 0x1E, 7)
        free, used = (0xFFFF, 0) if is_open else (0, 0xFFFF)
        struct.pack_into("<QHHHHIHHQIHH", data, 0x30, 1000 + number, 1, free, used, int(clean) if number == 1 else 0,
                         45, 224, 64, 2 << 20, 0, 48, 64)
        struct.pack_into("<QQHHH6xI128s", data, 0x70, 0, 0, 0xFFFF, 0xFFFF, 0, 8, "NTFS".encode("utf-16-le"))
        data = protect(data)
        if state == "torn" and number == 1:
            data[2046] ^= 0xFF
        image.put(place + number * page, data)
    # Records of a log follow.
    image.put(place + 2 * page, b"RCRD" + bytes(page - 4))


def clear_bit(image):
    """The first cluster of the first file that lies in clusters becomes free."""
    number = next(n for n in range(64, 256) if lies_in_clusters(image, n))
    cluster = image.first_run(number) // image.cluster
    place = image.first_run(6) + cluster // 8
    byte = image.at(place, 1)
    byte[0] &= ~(1 << cluster % 8)
    image.put(place, byte)


def far_run(image):
    """The first run of a file lies behind the end of the volume."""
    number = next(n for n in range(64, 256) if lies_in_clusters(image, n))
    record = image.record(number)
    place = image.attribute(record, 0x80)
    pairs = place + struct.unpack_from("<H", record, place + 32)[0]
    record[pairs + (record[pairs] & 15) + (record[pairs] >> 4)] = 0x7F
    image.put_record(number, record)


def split(image):
    """The second half of the table of files is listed in record 40, which is free, and both in an attribute list."""
    spare, record = 40, image.record(0)
    assert not image.record(spare)[22] & 1, "record 40 is in use"
    place = image.attribute(record, 0x80)
    length, pairs = struct.unpack_from("<I", record, place + 4)[0], struct.unpack_from("<H", record, place + 32)[0]
    data = record[place:place + length]
    runs, at, vcn, lcn = [], pairs, 0, 0
    while data[at]:
        lengths, offsets = data[at] & 15, data[at] >> 4
        lcn += int.from_bytes(data[at + 1 + lengths:at + 1 + lengths + offsets], "little", signed=True)
        runs.append((vcn, lcn, int.from_bytes(data[at + 1:at + 1 + lengths], "little")))
        vcn, at = vcn + runs[-1][2], at + 1 + lengths + offsets
    if len(runs) == 1:
        start, lcn, length = runs[0]
        cut = length * 3 // 4
        runs = [(start, lcn, cut), (start + cut, lcn + cut, length - cut)]
    half = len(runs) // 2
    first, second = part(data, pairs, runs[:half]), part(data, pairs, runs[half:])
    order, at = [], struct.unpack_from("<H", record, 20)[0]
    attributes = {}
    while (kind := struct.unpack_from("<I", record, at)[0]) != 0xFFFFFFFF:
        end = at + struct.unpack_from("<I", record, at + 4)[0]
        attributes[kind] = record[at:end]
        at = end
    attributes[0x80] = first
    reference = 1 << 48
    for kind in attributes:
        order.append((kind, 0, reference, struct.unpack_from("<H", attributes[kind], 14)[0]))
        if kind == 0x80:
            order.append((kind, runs[half][0], 7 << 48 | spare, 0))
    entries = b"".join(struct.pack("<IHBBQQH6x", kind, 32, 0, 26, *rest) for kind, *rest in order)
    header = struct.pack("<IIBBHHHIHH", 0x20, 24 + len(entries), 0, 0, 0, 0, 60, len(entries), 24, 0)
    attributes[0x20] = header + entries
    image.put_record(0, filled(record, [attributes[kind] for kind in sorted(attributes)]))
    other = image.record(0)
    struct.pack_into("<H", other, 16, 7)
    struct.pack_into("<Q", other, 32, reference)
    struct.pack_into("<I", other, 44, spare)
    image.put_record(spare, filled(other, [second]))
    bits = image.record(0)
    place = image.attribute(bits, 0xB0)
    at = place + struct.unpack_from("<H", bits, place + 32)[0]
    lengths = bits[at] & 15
    cluster = int.from_bytes(bits[at + 1 + lengths:at + 1 + lengths + (bits[at] >> 4)], "little")
    at = cluster * image.cluster + spare // 8
    image.put(at, bytes([image.at(at, 1)[0] | 1 << spare % 8]))


def part(data, pairs, runs):
    """The attribute with just these runs; only the first part says sizes."""
    listed, before = b"", 0
    for _, lcn, length in runs:
        listed += b"\x44" + length.to_bytes(4, "little") + (lcn - before).to_bytes(4, "little", signed=True)
        before = lcn
    length = (pairs + len(listed) + 8) // 8 * 8
    made = bytearray(data[:pairs] + listed).ljust(length, b"\0")
    struct.pack_into("<I", made, 4, length)
    struct.pack_into("<QQ", made, 16, runs[0][0], runs[-1][0] + runs[-1][2] - 1)
    if runs[0][0]:
        struct.pack_into("<H", made, 14, 0)
        made[40:64] = bytes(24)
    return made


def filled(record, attributes):
    start = struct.unpack_from("<H", record, 20)[0]
    made = bytes(record[:start]) + b"".join(attributes) + b"\xff\xff\xff\xff\0\0\0\0"
    made = bytearray(made.ljust(len(record), b"\0"))
    assert len(made) == len(record), "too much for a record"
    struct.pack_into("<I", made, 24, start + sum(map(len, attributes)) + 8)
    return made


def lies_in_clusters(image, number):
    record = image.record(number)
    if record[:4] != b"FILE" or not record[22] & 1:
        return False
    try:
        place = image.attribute(record, 0x80)
    except SystemExit:
        return False
    # Not in the record, and not beginning with a hole.
    return record[place + 8] == 1 and record[place + struct.unpack_from("<H", record, place + 32)[0]] >> 4 > 0


COMMANDS = {"flags": flags, "log": log, "clear-bit": clear_bit, "far-run": far_run, "split": split}

if __name__ == "__main__":
    COMMANDS[sys.argv[2]](Image(sys.argv[1]), *sys.argv[3:])
