# shellcheck shell=bash disable=SC2034,SC2154
# F2FS, by f2fs-tools, which fill it too: no kernel need know it. Read by make.

f2fs() { mkfs.f2fs -q -f -t 0 -U "$UUID" -l "Größe Ω" "$@" "$img" ${blocks:-} > /dev/null; }
# It ends with 1 where its check put something right, as it does with checksums of inodes.
load_f2fs() { sload.f2fs -P -f "$stage" "$@" "$img" > /dev/null 2>&1 || [ $? = 1 ]; }
loaded_f2fs() { junk; f2fs "$@"; load_f2fs; }

image f2fs-plain 112; f2fs_plain() { loaded_f2fs; }
image f2fs-empty 112; f2fs_empty() { junk; f2fs; }
image f2fs-checksums 112; f2fs_checksums() { loaded_f2fs -O extra_attr,inode_checksum,sb_checksum,inode_crtime,flexible_inline_xattr; }
image f2fs-everything 112; f2fs_everything() { loaded_f2fs -O encrypt,verity,extra_attr,project_quota,quota,lost_found,casefold,sb_checksum -C utf8; }
image f2fs-compressed 112; f2fs_compressed() { loaded_f2fs -O extra_attr,compression; }
image f2fs-large-sections 112; f2fs_large_sections() { loaded_f2fs -s 2 -z 2; }
# Version bitmaps of another place, behind their checksum.
image f2fs-large-nat 112; f2fs_large_nat() { loaded_f2fs -i; }
image f2fs-short 112; f2fs_short() { blocks=$((100 * 2048)) loaded_f2fs; }
image f2fs-odd-end 112; f2fs_odd_end() { truncate -s $((101 * 1048576 + 3 * 512)) "$img"; loaded_f2fs; }
# More segments than one block of their table has.
image f2fs-several-tables 300; f2fs_several_tables() { f2fs; load_f2fs; }

# ---- images that were not left in order, or are damaged -----------------------------------------------------------

# Sets the flags of all checkpoints, and their checksums right.
flags_f2fs() {
    python3 - "$img" "$1" << 'PYTHON'
import struct, sys
def crc(data, total=0xF2F52010):
    for byte in data:
        total ^= byte
        for _ in range(8):
            total = total >> 1 ^ 0xEDB88320 * (total & 1)
    return total
with open(sys.argv[1], "r+b") as image:
    image.seek(1024 + 76)
    first = struct.unpack("<I", image.read(4))[0]
    for pack in first, first + 512:
        image.seek(pack * 4096 + 136)
        length = struct.unpack("<I", image.read(4))[0]
        for block in pack, pack + length - 1:
            image.seek(block * 4096)
            data = bytearray(image.read(4092))
            data[132:136] = struct.pack("<I", int(sys.argv[2], 0))
            image.seek(block * 4096)
            image.write(data + struct.pack("<I", crc(data)))
PYTHON
}
poke_f2fs() { printf '%b' "$2" | dd of="$img" bs=1 seek="$1" conv=notrunc status=none; }
block_f2fs() { od -An -tu4 -j$((1024 + $1)) -N4 "$img" | tr -d ' '; }

image f2fs-unclean 112; f2fs_unclean() { loaded_f2fs; flags_f2fs 0x80; }
image f2fs-error 112; f2fs_error() { loaded_f2fs; flags_f2fs 0x89; }
image f2fs-corrupt-checkpoints 112
f2fs_corrupt_checkpoints() {
    loaded_f2fs
    poke_f2fs $((4096 * $(block_f2fs 76) + 16)) '\377'
    poke_f2fs $((4096 * ($(block_f2fs 76) + 512) + 16)) '\377'
}
# A bit of the fourth segment changes in both copies of the table.
image f2fs-corrupt-sit 112
f2fs_corrupt_sit() {
    loaded_f2fs
    poke_f2fs $((4096 * $(block_f2fs 80) + 3 * 74 + 40)) '\125'
    poke_f2fs $((4096 * ($(block_f2fs 80) + 512) + 3 * 74 + 40)) '\125'
}
# The copy of the superblock says that the main area is shorter.
image f2fs-corrupt-copy 112; f2fs_corrupt_copy() { loaded_f2fs; poke_f2fs $((4096 + 1024 + 68)) '\001'; }
