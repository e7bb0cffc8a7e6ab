#!/usr/bin/env python3
"""Reads a Halfhour repository without Halfhour: lists captures and writes disks or volumes into image files.

    python3 restore.py REPO list
    python3 restore.py REPO show CAPTURE [--json]
    python3 restore.py REPO restore CAPTURE --disk N --output FILE       a whole disk, as a sparse file
    python3 restore.py REPO restore CAPTURE --volume KEY --output FILE   one volume

CAPTURE is MACHINE or MACHINE@latest (its newest capture that is not marked inconsistent) or id:HEX (8 digits or
more). An existing FILE is never touched. Every byte is checked before it is written. A damaged block is named on
stderr, left zero in FILE, and the rest is restored.

Exit status: 0 done, 2 the capture itself lacks blocks (unreadable when it was taken), 3 damage found, 10 no
repository here, 11 no such capture, 12 wrong password, 13 made by a newer version, 64 wrong usage, 1 anything else.

One file on purpose, so that it can lie in every repository. Needs Python 3.9 and a zstd: the module zstandard (or
Python 3.14, or the command zstd); PyNaCl where the repository is encrypted. The module blake3 makes it fast.
FORMAT.md in Halfhour's source describes the format.
"""
import argparse
import base64
import getpass
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from collections import OrderedDict

BLOCK = 65536
FANOUT = 128
FORMAT = 1
FRAME_MAGIC = bytes.fromhex("dbc414132e82466d")
MANIFEST_MAGIC = bytes.fromhex("5056c85de84b8488")
BLOCKS, NODE, MANIFEST, MOVED = 1, 2, 4, 6  # kinds of frames
MOST_RAW = {BLOCKS: 1 << 20, NODE: 1 << 20, MANIFEST: 64 << 20, MOVED: 64 << 20}
MOST_FRAME = 80 + (1 << 20) + 16
CACHED_FRAMES = 16
MOST_PLACES = 64  # where one frame is looked for


class Stop(Exception):
    """Ends the run with an exit status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Damaged(Exception):
    """Some bytes are not what they should be; what does not depend on them can still be restored."""


class TooNew(Damaged):
    """Not understood by this version, so no use to it either."""

    def __init__(self):
        super().__init__("made by a newer version, it needs a newer restore.py")


# What reading nonsense can raise.
NONSENSE = (Damaged, LookupError, ArithmeticError, AttributeError, TypeError, ValueError, RuntimeError, struct.error)


# --- BLAKE3 -------------------------------------------------------------------------------------------------------
# Without the module, this is BLAKE3 in plain Python. It works on all 1 KiB chunks of its input at once: each of the
# 16 state words is one long integer with a 64-bit lane per chunk, whose upper half absorbs carries and shifts.

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED, CONTEXT, MATERIAL = 1, 2, 4, 8, 16, 32, 64


def little(words):
    """An array in the byte order of the format."""
    if sys.byteorder == "big":
        words.byteswap()
    return words


def lanes_of(words):
    """One integer with a 64-bit lane for each word."""
    return int.from_bytes(little(array("Q", words)).tobytes(), "little")


def compress(key, block, counter, length, flags, ones):
    """BLAKE3's compression function on every lane; `key` and `block` hold one integer a word."""
    low = ones * 0xFFFFFFFF
    v = list(key) + [iv * ones for iv in IV[:4]] + [counter, 0, length * ones, flags * ones]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXES):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = (va + vb + block[2 * i]) & low
            vd ^= va
            vd = (vd >> 16 | vd << 16) & low
            vc = (vc + vd) & low
            vb ^= vc
            vb = (vb >> 12 | vb << 20) & low
            va = (va + vb + block[2 * i + 1]) & low
            vd ^= va
            vd = (vd >> 8 | vd << 24) & low
            vc = (vc + vd) & low
            vb ^= vc
            vb = (vb >> 7 | vb << 25) & low
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
        block = [block[p] for p in PERMUTATION]
    size = ones.bit_length() // 64 * 8 + 8
    return [little(array("Q", (v[i] ^ v[i + 8]).to_bytes(size, "little"))) for i in range(8)]


def chunk_values(data, first, key, flags, root):
    """The chaining values of `data`, whole chunks or a single shorter one: 8 arrays with a word for each chunk."""
    lanes = max(1, len(data) // 1024)
    ones = lanes_of([1] * lanes)
    words = little(array("I", bytes(data) + bytes(-len(data) % 64 if data else 64)))
    step = len(words) // lanes
    counter = lanes_of(range(first, first + lanes))
    value = [k * ones for k in key]
    for at in range(0, step, 16):
        last = at + 16 == step
        length = len(data) // lanes - at * 4 if last else 64
        here = flags | (CHUNK_START if at == 0 else 0) | (CHUNK_END | root if last else 0)
        block = [lanes_of(words[at + i::step]) for i in range(16)]
        words_out = compress(value, block, counter, length, here, ones)
        value = [lanes_of(w) for w in words_out]
    return words_out


def plain_blake3(data, key=None, context=None):
    """hash, keyed_hash (`key`) or derive_key (`context`): 32 bytes."""
    flags = KEYED if key else 0
    if context is not None:
        key, flags = tree(context.encode(), IV, CONTEXT), MATERIAL
    return tree(data, struct.unpack("<8I", key) if key else IV, flags)


def tree(data, key, flags):
    data = memoryview(data)
    whole = len(data) // 1024 * 1024
    if len(data) <= 1024:
        values = chunk_values(data, 0, key, flags, ROOT)
    else:
        values = chunk_values(data[:whole], 0, key, flags, 0)
        if whole < len(data):
            tail = chunk_values(data[whole:], whole // 1024, key, flags, 0)
            values = [a + b for a, b in zip(values, tail)]
    while len(values[0]) > 1:  # neighbours pair up; an odd last one moves up as it is
        count = len(values[0]) // 2 * 2
        ones = lanes_of([1] * (count // 2))
        block = [lanes_of(v[:count:2]) for v in values] + [lanes_of(v[1:count:2]) for v in values]
        here = flags | PARENT | (ROOT if len(values[0]) == 2 else 0)
        parents = compress([k * ones for k in key], block, 0, 64, here, ones)
        values = [p + v[count:] for p, v in zip(parents, values)]
    return struct.pack("<8I", *(v[0] for v in values))


try:
    import blake3 as blake3_module

    def blake3(data, key=None, context=None):
        return blake3_module.blake3(bytes(data), key=key, derive_key_context=context).digest()
except ImportError:
    blake3_module, blake3 = None, plain_blake3

# --- Compression and encryption, by whatever this machine has -------------------------------------------------------


def decompressor():
    """A function (compressed bytes, exact length) -> bytes."""
    try:
        import zstandard

        def by_zstandard(data, length):
            if zstandard.frame_content_size(data) != length:  # believed by the module, so checked first
                raise Damaged("compressed data of the wrong length")
            return zstandard.ZstdDecompressor().decompress(data, max_output_size=length)
        return by_zstandard
    except ImportError:
        pass
    try:
        from compression import zstd  # Python 3.14
        return lambda data, length: zstd.ZstdDecompressor().decompress(data, max_length=length + 1)
    except ImportError:
        pass
    if not shutil.which("zstd"):
        raise Stop(1, "no zstd here: apt install python3-zstandard (or zstd), or: pip install zstandard")

    def by_command(data, length):
        with tempfile.TemporaryFile() as stdin:
            stdin.write(data)
            stdin.seek(0)
            command = ["zstd", "-dcq"]
            with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
                raw = run.stdout.read(length + 1)
                run.kill()
        return raw
    return by_command


def sodium():
    try:
        import nacl.bindings
        import nacl.exceptions
        import nacl.pwhash
        return nacl
    except ImportError:
        raise Stop(1, "the repository is encrypted and Python's module nacl is missing: "
                      "apt install python3-nacl, or: pip install pynacl") from None


# --- The repository -------------------------------------------------------------------------------------------------


class Repository:
    """Objects by name, frames by place, both checked."""

    def __init__(self, folder, password):
        self.folder = folder
        self.frames = OrderedDict()
        self.damaged = False
        self.unzstd = None
        self.master = None
        if not os.path.isfile(os.path.join(folder, "halfhour.json")):
            raise Stop(10, f"{folder}: no repository here (there is no halfhour.json)")
        try:
            about = json.loads(self.read("halfhour.json", most=1 << 16))
            if about["format"] != "halfhour-repository":
                raise ValueError("not a description of a repository")
            self.id, self.key_check = bytes.fromhex(about["id"]), about["key_check"]
            too_new = about["min_reader"] > FORMAT or about["block_bytes"] != BLOCK
            cipher = about["encryption"]
        except NONSENSE as e:
            raise Stop(3, f"halfhour.json is damaged: {e}") from None
        self.encrypted = cipher != "none"
        self.password = password
        if too_new or cipher not in ("none", "xchacha20poly1305"):
            raise Stop(13, "this repository needs a newer restore.py")

    def read(self, name, offset=0, length=None, most=1 << 27):
        """Bytes of an object. A missing object is FileNotFoundError, a share that went away is Stop."""
        try:
            with open(os.path.join(self.folder, *name.split("/")), "rb") as file:
                if os.fstat(file.fileno()).st_size > most:
                    raise Damaged(f"{name}: longer than it can be")
                file.seek(offset)
                return file.read() if length is None else file.read(length)
        except OSError as e:
            if name != "halfhour.json" and not os.path.exists(os.path.join(self.folder, "halfhour.json")):
                raise Stop(1, f"the repository went away: {e}") from None
            if isinstance(e, FileNotFoundError):
                raise
            raise Damaged(f"{name}: {e.strerror}") from None

    def subkey(self, purpose):
        return blake3(self.master, context="halfhour 2026-11 " + purpose)

    def unlock(self):
        """Finds the master key and derives the others."""
        if self.master:
            return
        if self.encrypted:
            self.master = self.unwrap(self.password())
        else:
            self.master = blake3(self.id, context="halfhour 2026-11 public master key")
        if blake3(self.id, key=self.subkey("key check")).hex() != self.key_check:
            raise Stop(3, "halfhour.json and the key do not fit together: one of them is damaged")
        self.block_key, self.node_key = self.subkey("block ids"), self.subkey("node ids")
        self.key_id = self.subkey("key id")[:8]
        self.sealing = {kind: self.subkey("manifests" if kind == MANIFEST else "frames") for kind in MOST_RAW}

    def unwrap(self, secret):
        nacl = sodium()
        folder = os.path.join(self.folder, "keys")
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        tried = 0
        for name in filter(re.compile("[0-9a-f]{16}").fullmatch, names):
            try:
                slot = json.loads(self.read("keys/" + name, most=1 << 16))
                kdf = slot["kdf"]
                if kdf["name"] != "argon2id" or kdf["lanes"] != 1 or not 8 <= kdf["m_kib"] <= 65536 \
                        or not 1 <= kdf["passes"] <= 16:
                    raise ValueError("parameters outside what is accepted")
                key = nacl.pwhash.argon2id.kdf(32, secret, bytes.fromhex(kdf["salt"]), opslimit=kdf["passes"],
                                               memlimit=kdf["m_kib"] * 1024)
                tried += 1
                return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                    bytes.fromhex(slot["wrapped"]), self.id + b"key slot", bytes.fromhex(slot["nonce"]), key)
            except nacl.exceptions.CryptoError:
                continue
            except NONSENSE as e:
                say(f"key slot {name} is damaged: {e}")
        if tried:
            raise Stop(12, "wrong password")
        raise Stop(3, "the repository is encrypted and no usable key slot is left in keys/")

    def open_frame(self, kind, frame):
        """What a frame holds: digest first, then decrypted, then decompressed."""
        if len(frame) < 80 or frame[:8] != FRAME_MAGIC:
            raise Damaged("not a frame")
        found, codec, cipher, flags, raw_len, stored = struct.unpack_from("<4B2I", frame, 8)
        if stored != len(frame) - 80 or blake3(frame[:48] + frame[80:]) != frame[48:80]:
            raise Damaged("digest does not match")
        if flags or codec > 1 or cipher > 1:
            raise TooNew()
        if found != kind or raw_len > MOST_RAW[kind] or bool(cipher) != self.encrypted:
            raise Damaged("not the frame that belongs here")
        payload = frame[80:]
        if cipher:
            nacl = sodium()
            try:
                payload = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                    payload, self.id + bytes([kind]) + self.key_id, frame[24:48], self.sealing[kind])
            except nacl.exceptions.CryptoError:
                raise Damaged("altered, or of another repository") from None
        if codec:
            self.unzstd = self.unzstd or decompressor()
            try:
                payload = self.unzstd(payload, raw_len)
            except Exception as e:  # each zstd has its own
                raise e if isinstance(e, (Stop, Damaged)) else Damaged(f"does not decompress: {e}")
        if len(payload) != raw_len:
            raise Damaged("a frame of the wrong length")
        return payload

    def fetch(self, kind, place):
        """The opened frame at a place (pack, pack length, offset, length), or where it moved."""
        if place in self.frames:
            self.frames.move_to_end(place)
            return self.frames[place]
        left, raw, why = [place], None, None
        for _ in range(MOST_PLACES):
            if raw is not None or not left:
                break
            here = left.pop()
            try:
                raw = self.fetch_here(kind, here)
            except Damaged as e:
                why = why or e
                left += list(self.moved(here))[::-1]
        if raw is None:
            raise why
        self.frames[place] = raw
        if len(self.frames) > CACHED_FRAMES:
            self.frames.popitem(last=False)
        return raw

    def moved(self, place):
        """Where else a frame may be: its pack was repacked, or its damage healed."""
        for part in range(1000):
            name = f"moved/{place[0]}-{part}" if part else f"moved/{place[0]}"
            try:
                raw = self.open_frame(MOVED, self.read(name))
                pack, length, count = struct.unpack_from("<32sII", raw)
                if (pack.hex(), length) != place[:2]:
                    raise Damaged("of another pack")
                packs = [struct.unpack_from("<32sI", raw, 40 + 36 * n) for n in range(count)]
                found = [f for f in struct.iter_unpack("<5I", raw[40 + 36 * count:]) if f[:2] == place[2:]]
                places = [(packs[f[2]][0].hex(), packs[f[2]][1], f[3], f[4]) for f in found]
            except FileNotFoundError:
                return
            except NONSENSE as e:
                say(f"{name} is passed over: {e}")
                continue
            yield from places

    def fetch_here(self, kind, place):
        pack, _, offset, length = place
        name = f"packs/{pack[:2]}/{pack}"
        try:
            if not 80 <= length <= MOST_FRAME or not re.fullmatch("[0-9a-f]{64}", pack):
                raise Damaged("a frame where none can be")
            frame = self.read(name, offset, length)
            if len(frame) < length:
                raise Damaged("cut off")
            raw = self.open_frame(kind, frame)
        except FileNotFoundError:
            raise Damaged(f"{name} is missing") from None
        except Damaged as e:
            raise Damaged(f"{name} at {offset:#x}: {e}") from None
        return raw

    # -- manifests

    def split(self, name):
        """A manifest's header and the frame of its body."""
        data = self.read(name)
        if len(data) < 48 or blake3(data[:-32]) != data[-32:] or data[:8] != MANIFEST_MAGIC:
            raise Damaged("damaged or cut off")
        version, incompatible, length = struct.unpack_from("<HHI", data, 8)
        if version > FORMAT or incompatible:
            raise TooNew()
        header = json.loads(data[16:16 + length])
        _, machine, file = name.split("/")
        compact = re.sub("[-:]", "", header["time"])
        if (header["machine"], f"{compact}-{header['id']}") != (machine, file):
            raise Damaged("the manifest of another capture")
        return header, data[16 + length:-32]

    def captures(self, wanted=lambda machine, capture: True):
        """Name and header of captures, the newest of a machine last, whatever the clocks said."""
        found = []
        root = os.path.join(self.folder, "captures")
        for machine in sorted(os.listdir(root)) if os.path.isdir(root) else []:
            folder = os.path.join(root, machine)
            for file in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                if not re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{32}", file) or not wanted(machine, file[17:]):
                    continue
                name = f"captures/{machine}/{file}"
                try:
                    header, _ = self.split(name)
                    if not header.get("revoked"):
                        found.append((name, header))
                except NONSENSE as e:
                    self.leave_out(name, e)
        return sorted(found, key=lambda c: (c[1]["machine"], c[1]["sequence"]))

    def manifest(self, wanted):
        """The body of the capture a person means."""
        self.unlock()
        by_id = re.fullmatch(r"id:([0-9a-f]{8,32})", wanted)
        by_name = re.fullmatch(r"([a-z0-9][a-z0-9-]{0,62})(@latest)?", wanted)
        if not by_id and not by_name:
            raise Stop(64, f"{wanted}: say MACHINE, MACHINE@latest or id:HEX with 8 digits or more")
        if by_id:
            found = self.captures(lambda machine, capture: capture.startswith(by_id[1]))
            if len(found) > 1:
                raise Stop(64, f"{wanted} means more than one capture")
        else:
            found = self.captures(lambda machine, capture: machine == by_name[1])
        for name, _ in reversed(found):
            try:
                header, frame = self.split(name)
                body = json.loads(self.open_frame(MANIFEST, frame))
                if any(body["header"].get(key) != header[key] for key in header):
                    raise Damaged("its header is not its own")
            except NONSENSE as e:
                self.leave_out(name, e)
                continue
            if by_id or body["consistency"] != "inconsistent":
                return body
        raise Stop(3 if self.damaged else 11, f"{wanted}: no such capture")

    def leave_out(self, name, error):
        self.damaged = True
        say(f"{'TOO NEW' if isinstance(error, TooNew) else 'DAMAGED'} {name}: {error}; it is left out")

    # -- block maps

    def blocks(self, block_map, overlaps):
        """Walks a map: ("data", offset, length, mask, id, place, at), ("unreadable", offset, length, mask) and
        ("lost", offset, length, why). Unused and zero blocks are holes, so they are passed over; so is what
        `overlaps(start, end)` does not want."""
        size, unit = block_map["size_bytes"], block_map["mask_unit_bytes"]
        if unit not in (512 << n for n in range(8)):
            raise Damaged(f"a mask unit of {unit} bytes")
        total, root, level = -(-size // BLOCK), block_map["root"], 0
        while FANOUT ** (level + 1) < total:
            level += 1
        if root["content"] == "node":
            place = (root["pack"], root["pack_bytes"], root["offset"], root["len"])
            yield from self.walk(bytes.fromhex(root["id"]), place, level, 0, total, size, unit, overlaps)

    def walk(self, node_id, place, level, first, total, size, unit, overlaps):
        under = FANOUT ** level  # blocks below one child
        start, end = first * BLOCK, min((first + under * FANOUT) * BLOCK, size)
        if not overlaps(start, end):
            return
        count = min(-(-(total - first) // under), FANOUT)
        try:
            raw = self.fetch(NODE, place)
            if blake3(raw, key=self.node_key) != node_id:
                raise Damaged(f"packs/{place[0][:2]}/{place[0]} at {place[2]:#x}: not the map node that belongs here")
            children = list(parse_node(raw, level, count, unit))
        except (Damaged, struct.error) as e:
            yield "lost", start, end - start, f"map node: {e}"
            return
        for index, (kind, mask, unreadable, child_id, place, at) in enumerate(children):
            child = first + index * under
            if level and kind == 2:
                yield from self.walk(child_id, place, level - 1, child, total, size, unit, overlaps)
            elif level == 0:
                offset = child * BLOCK
                length = min(BLOCK, size - offset)
                if unreadable:
                    yield "unreadable", offset, length, unreadable
                if kind == 2:
                    full = (1 << -(-length // unit)) - 1
                    yield "data", offset, length, full if mask is None else mask, child_id, place, at

    def block(self, block_id, place, at, length):
        raw = self.fetch(BLOCKS, place)[at:at + length]
        if len(raw) != length or blake3(raw, key=self.block_key) != block_id:
            raise Damaged(f"packs/{place[0][:2]}/{place[0]} at {place[2]:#x}: not the block that was captured")
        return raw


def parse_node(raw, level, count, unit):
    """Yields (kind, mask, unreadable, id, place, at) for each child; a mask of None is a full one."""
    found = struct.unpack_from("<BBHHH", raw)
    if found[:3] != (level, unit.bit_length() - 1, count):
        raise Damaged("not the map node that belongs here")
    at = 8
    packs, frames = [], []
    for _ in range(found[3]):
        pack, length = struct.unpack_from("<32sI", raw, at)
        packs.append((pack.hex(), length))
        at += 36
    for _ in range(found[4]):
        pack, offset, length = struct.unpack_from("<HII", raw, at)
        if pack >= len(packs):
            raise Damaged("refers to a pack it does not list")
        frames.append(packs[pack] + (offset, length))
        at += 10
    mask_bytes = max(1, BLOCK // unit // 8)
    for _ in range(count):
        tag = raw[at] if at < len(raw) else 255
        at += 1
        if tag > (2 if level else 15):
            raise Damaged("an entry of an unknown kind")
        mask, unreadable, reference = None, 0, (None, None, 0)
        if tag & 4:
            mask = int.from_bytes(raw[at:at + mask_bytes], "little")
            at += mask_bytes
        if tag & 8:
            unreadable = int.from_bytes(raw[at:at + mask_bytes], "little")
            at += mask_bytes
        if tag & 3 == 2:
            child_id, frame, within = struct.unpack_from("<32sHI", raw, at)
            at += 38
            if frame >= len(frames):
                raise Damaged("refers to a frame it does not list")
            reference = (child_id, frames[frame], within)
        if tag & 3 == 3 and not unreadable:
            raise Damaged("an unreadable block that says nothing")
        yield (tag & 3, mask, unreadable) + reference
    if at != len(raw):
        raise Damaged("has bytes behind its end")


# --- Restoring ------------------------------------------------------------------------------------------------------


class Output:
    """A new sparse file and the account of what could not be put into it."""

    def __init__(self, repository, path, size):
        self.repository = repository
        try:
            self.file = open(path, "xb")  # never an existing file
        except FileExistsError:
            raise Stop(1, f"{path} exists; it is not touched") from None
        self.file.truncate(size)
        self.damaged = self.lacking = False
        self.last_report = None
        self.shown = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.report(None, None, 0, 0, None)
        with self.file:
            self.file.flush()
            os.fsync(self.file.fileno())
        if kind:
            say(f"{self.file.name} is incomplete: delete it and run this again")

    def copy(self, name, block_map, pieces):
        """Writes a map's blocks; `pieces` are (start in the map, start in the file, length)."""
        def overlaps(start, end):
            return any(start < p[0] + p[2] and p[0] < end for p in pieces)

        unit, size = block_map["mask_unit_bytes"], block_map["size_bytes"]
        for what, offset, length, *more in self.repository.blocks(block_map, overlaps):
            if not overlaps(offset, offset + length):
                continue
            self.progress(name, offset, size)
            if what == "lost":
                self.report("DAMAGED", name, offset, length, more[0])
            elif what == "unreadable":
                for start, end in runs(more[0], unit, length):
                    self.report("MISSING", name, offset + start, end - start, "unreadable when it was captured")
            else:
                mask, block_id, place, at = more
                try:
                    block = self.repository.block(block_id, place, at, length)
                except Damaged as e:
                    self.report("DAMAGED", name, offset, length, e)
                    continue
                for start, end in runs(mask, unit, length):
                    self.write(block, offset, start, end, pieces)

    def write(self, block, offset, start, end, pieces):
        """Only what the mask says: another volume may own the rest of these 64 KiB of the disk."""
        for source, target, length in pieces:
            low, high = max(offset + start, source), min(offset + end, source + length)
            if low < high:
                self.file.seek(target + low - source)
                self.file.write(block[low - offset:high - offset])

    def report(self, what, name, offset, length, why):
        """Gathers neighbours, so that a lost pack is one line and not a thousand."""
        last = self.last_report
        if last and last[:2] == [what, name] and last[2] + last[3] == offset:
            last[3] += length
            return
        if last:
            say(f"{last[0]} {last[1]} {last[2]:#x}+{last[3]:#x}: {last[4]}")
        self.last_report = [what, name, offset, length, why] if what else None
        self.damaged |= what == "DAMAGED"
        self.lacking |= what == "MISSING"

    def progress(self, name, offset, size):
        if sys.stderr.isatty() and time.monotonic() > self.shown + 1:
            self.shown = time.monotonic()
            print(f"\r{name}: {100 * offset // max(size, 1)} % ", end="", file=sys.stderr, flush=True)


def runs(mask, unit, length):
    """The byte ranges of a block that a mask covers."""
    at = 0
    while mask >> at:
        while not mask >> at & 1:
            at += 1
        start = at
        while mask >> at & 1:
            at += 1
        yield min(start * unit, length), min(at * unit, length)


def restore_volume(repository, manifest, key, path):
    volume = next((v for v in manifest["volumes"] if v["key"] == key), None)
    if volume is None:
        keys = ", ".join(v["key"] for v in manifest["volumes"])
        raise Stop(64, f"no volume {key} in this capture; it has {keys or 'none'}")
    if volume["map"] is None:
        raise Stop(1, f"nothing of volume {key} is in this capture (mode: {volume['mode']})")
    size = volume["map"]["size_bytes"]
    with Output(repository, path, size) as output:
        output.copy(f"volume {key}", volume["map"], [(0, 0, size)])
    return output


def restore_disk(repository, manifest, number, path):
    """What lies outside the volumes first, then the volumes, at last the partition table, which is kept twice."""
    disk = next((d for d in manifest["disks"] if d["number"] == number), None)
    if disk is None:
        raise Stop(64, f"no disk {number} in this capture")
    size = disk["size_bytes"]
    with Output(repository, path, size) as output:
        output.copy(f"disk {number} outside its volumes", disk["remainder"], [(0, 0, size)])
        for volume in manifest["volumes"]:
            pieces = pieces_on(number, volume, size)
            if pieces and volume["map"] is None:
                say(f"volume {volume['key']} ({volume['name']}) is not in this capture: left empty")
            elif pieces:
                output.copy(f"volume {volume['key']}", volume["map"], pieces)
        for sectors in disk["table"]["raw"]:
            data = base64.b64decode(sectors["base64"], validate=True)
            if sectors["start_byte"] + len(data) > size:
                raise Damaged("a partition table outside its disk")
            output.file.seek(sectors["start_byte"])
            output.file.write(data)
    return output


def pieces_on(number, volume, size):
    """Where a volume's parts on a disk lie: (start in the volume, start on the disk, length)."""
    pieces, at = [], 0
    for segment in volume["segments"]:
        start, length = segment["start_byte"], segment["len_bytes"]
        if segment["disk"] == number:
            if start + length > size:
                raise Damaged(f"volume {volume['key']} lies outside its disk")
            pieces.append((at, start, length))
        at += length
    return pieces


def show(manifest):
    header = manifest["header"]
    say("  ".join((header["machine"], header["time"], header["kind"], f"id:{header['id']}", manifest["consistency"])),
        sys.stdout)
    for disk in manifest["disks"]:
        words = (disk["model"], disk["serial"], disk["path"])
        say(f"disk {disk['number']}: {size_of(disk['size_bytes'])}, table {disk['table']['kind']}, "
            f"sectors of {disk['logical_sector_bytes']} bytes, " + ", ".join(w for w in words if w), sys.stdout)
    for volume in manifest["volumes"]:
        where = ", ".join(f"disk {s['disk']} at {s['start_byte']:#x}+{s['len_bytes']:#x}" for s in volume["segments"])
        say(f"volume {volume['key']}: {volume['name']}, {size_of(volume['size_bytes'])}, {volume['role']}, "
            f"{volume['filesystem'] or 'no filesystem'}, in the capture: {volume['mode']}, {where}", sys.stdout)
    for problem in manifest["problems"]:
        say(f"missing from volume {problem['volume']}: {problem['message']}", sys.stdout)
    for name in manifest["not_captured"]:
        say(f"content not in this capture: {name}", sys.stdout)


def size_of(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def say(text, to=sys.stderr):
    """Prints without whatever else a name from a repository might do to a terminal."""
    print("".join(c if c.isprintable() else "?" for c in text), file=to, flush=True)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")


def arguments():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", metavar="REPO", help="the folder with halfhour.json")
    parser.add_argument("command", choices=("list", "show", "restore"))
    parser.add_argument("capture", metavar="CAPTURE", nargs="?")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--disk", metavar="N", type=int)
    what.add_argument("--volume", metavar="KEY")
    parser.add_argument("--output", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="show everything the manifest holds")
    parser.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    options = parser.parse_args()
    if (options.command == "list") == bool(options.capture):
        parser.error("show and restore need a CAPTURE, list takes none")
    if options.command == "restore" and not (options.output and (options.volume or options.disk is not None)):
        parser.error("restore needs --output FILE and --disk N or --volume KEY")
    return options


def main():
    options = arguments()

    def password():
        if not options.password_file:
            return getpass.getpass("Password of the repository: ").encode()
        with open(options.password_file, "rb") as file:
            return file.readline().rstrip(b"\r\n")

    repository = Repository(options.repo, password)
    if options.command == "list":
        for _, h in repository.captures():
            say(f"{h['machine']}  {h['time']}  {h['kind']}  sequence {h['sequence']}  id:{h['id']}", sys.stdout)
        return 3 if repository.damaged else 0
    manifest = repository.manifest(options.capture)
    if options.command == "show":
        print(json.dumps(manifest, indent=2)) if options.json else show(manifest)
        return 3 if repository.damaged else 0
    if not blake3_module:
        say("Python's module blake3 is missing: everything is still checked, but slowly (some 10 MB/s). "
            "For speed: pip install blake3")
    if options.volume:
        output = restore_volume(repository, manifest, options.volume, options.output)
    else:
        output = restore_disk(repository, manifest, options.disk, options.output)
    if repository.damaged or output.damaged:
        say("Damage was found: see the lines above. What is not named there was checked and is right.")
        return 3
    return 2 if output.lacking else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stop as stop:
        say(f"restore.py: {stop}")
        sys.exit(stop.status)
    except NONSENSE as error:
        say(f"restore.py: the repository makes no sense here: {error!r}")
        sys.exit(3)
    except OSError as error:
        say(f"restore.py: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
