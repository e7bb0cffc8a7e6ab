# shellcheck shell=bash disable=SC2034,SC2154
# Btrfs, by btrfs-progs and the kernel, on one device and on several. Read by make.
#
# A filesystem on several devices is a folder of them: 1, 2, ... Only the root can make those, for only the kernel fills them.

btrfs_on() { mkfs.btrfs -q -f -K "$@" 2>&1 | { grep ERROR >&2 || true; }; }
btrfs_fs() { btrfs_on "$@" "$img"; }
grow_old() { cp -a "$tree" "$mnt/"; sync "$mnt"; age; }
with() { # with OPTIONS COMMAND...: as mounted, with mount options
    local options=$1
    shift
    mounted remounted "$options" "$@"
}
remounted() { local options=$1; shift; mount -o "remount,$options" "$mnt"; "$@"; }

image btrfs-default 128;      btrfs_default() { junk; btrfs_fs -L half\ hour; mounted grow_old; }
image btrfs-rootdir 128;      btrfs_rootdir() { junk; btrfs_fs -r "$stage"; }
image btrfs-empty 128;        btrfs_empty() { junk; btrfs_fs; }
image btrfs-single 96;        btrfs_single() { junk; btrfs_fs -m single; mounted grow_old; }
image btrfs-dup-data 256;     btrfs_dup_data() { junk; btrfs_fs -m dup -d dup; mounted grow_old; }
image btrfs-mixed 64;         btrfs_mixed() { junk; btrfs_fs -M -m single -d single; mounted grow_old; }
image btrfs-mixed-dup 192;    btrfs_mixed_dup() { junk; btrfs_fs -M -m dup -d dup; mounted grow_old; }
image btrfs-nodes-4k 128;     btrfs_nodes_4k() { junk; btrfs_fs -n 4096; mounted grow_old; }
image btrfs-nodes-64k 256;    btrfs_nodes_64k() { junk; btrfs_fs -n 65536; mounted grow_old; }
image btrfs-sectors-64k 256;  btrfs_sectors_64k() { btrfs_fs -s 65536 -n 65536 -r "$stage"; }
image btrfs-xxhash 128;       btrfs_xxhash() { btrfs_fs --csum xxhash; mounted grow_old; }
image btrfs-sha256 128;       btrfs_sha256() { btrfs_fs --csum sha256; mounted grow_old; }
image btrfs-blake2 128;       btrfs_blake2() { btrfs_fs --csum blake2; mounted grow_old; }
image btrfs-old-features 128; btrfs_old_features() { junk; btrfs_fs -O ^skinny-metadata,^no-holes,^extref -R ^free-space-tree; mounted grow_old; }
# The free space is kept in files, as it was before the free space tree.
image btrfs-space-cache 128;  btrfs_space_cache() { btrfs_fs -R ^free-space-tree; with space_cache=v1 grow_old; }
image btrfs-compressed 128;   btrfs_compressed() { junk; btrfs_fs; with compress-force=zstd squeeze; }
squeeze() { grow_old; seq 2000000 > "$mnt/numbers"; sync "$mnt"; }
image btrfs-snapshots 128;    btrfs_snapshots() { junk; btrfs_fs; mounted snapshots; }
snapshots() {
    btrfs -q subvolume create "$mnt/sub"
    cp -a "$tree" "$mnt/sub/"
    btrfs -q subvolume snapshot "$mnt/sub" "$mnt/writable"
    btrfs -q subvolume snapshot -r "$mnt/sub" "$mnt/frozen"
    rm -rf "$mnt/sub/tree/sizes"
    head -c 900000 /dev/urandom > "$mnt/writable/tree/sizes/262144"
    cp --reflink=always "$mnt/frozen/tree/sizes/1000000" "$mnt/shared"
    btrfs -q subvolume snapshot "$mnt/writable" "$mnt/gone"
    sync "$mnt"
    btrfs -q subvolume delete "$mnt/gone"
    btrfs -q subvolume set-default "$mnt/writable"
}
image btrfs-quota 128;        btrfs_quota() { btrfs_fs -R quota; mounted snapshots; }
# BTRFS_IOC_QUOTA_CTL with BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA; older btrfs-progs have no word for it.
image btrfs-simple-quota 128; btrfs_simple_quota() { btrfs_fs; mounted simple_quota; }
simple_quota() {
    python3 -c 'import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0xC0109428, struct.pack("QQ", 4, 0))' "$mnt" 2> /dev/null ||
        { echo "skip $name: this kernel has no simple quotas" >&2; exit 77; }
    grow_old
}
image btrfs-preallocated 128; btrfs_preallocated() { junk; btrfs_fs; mounted preallocate; }
preallocate() {
    cp -a "$tree" "$mnt/"
    fallocate -l 20M "$mnt/reserved"
    head -c 100000 /dev/urandom | dd of="$mnt/reserved" bs=4096 seek=900 conv=notrunc status=none
    truncate -s 0 "$mnt/swap" && chattr +C "$mnt/swap" && fallocate -l 8M "$mnt/swap" && chmod 600 "$mnt/swap"
    fallocate -p -o 65536 -l 131072 "$mnt/tree/sizes/1000000"
}
image btrfs-metadata-uuid 128; btrfs_metadata_uuid() { btrfs_fs -r "$stage"; btrfstune -f -m "$img" > /dev/null; }
image btrfs-other-uuid 128;   btrfs_other_uuid() { btrfs_fs -r "$stage"; btrfstune -f -u "$img" > /dev/null; }
image btrfs-short 160;        btrfs_short() { junk; btrfs_fs -b $((115 * 1048576 + 4096)); mounted grow_old; }
image btrfs-odd-end 128;      btrfs_odd_end() { truncate -s $((120 * 1048576 + 3 * 512)) "$img"; junk; btrfs_fs; mounted grow_old; }
image btrfs-resized 400;      btrfs_resized() { junk; btrfs_fs -b 120M; mounted resize_around; }
resize_around() { grow_old; btrfs filesystem resize max "$mnt" > /dev/null; cp -a "$tree" "$mnt/more"; btrfs filesystem resize 300M "$mnt" > /dev/null; }
image btrfs-balanced 320;     btrfs_balanced() { junk; btrfs_fs -m single; mounted balance; }
balance() { grow_old; btrfs balance start --force -mconvert=dup -sconvert=dup -dusage=100 "$mnt" > /dev/null; rm -rf "$mnt/tree/many"; }
image btrfs-full 112;         btrfs_full() { junk; btrfs_fs -m single; mounted fill_btrfs; }
fill_btrfs() { cp -a "$tree" "$mnt/"; head -c 200M /dev/urandom > "$mnt/fill" 2> /dev/null || true; sync "$mnt"; }
# A copy of the device in use: what was synced last is in the log alone.
image btrfs-log-in-use 128;   btrfs_log_in_use() { btrfs_fs; with commit=300 sync_alone; mv "$img.crashed" "$img"; }
sync_alone() {
    grow_old
    sync -f "$mnt"
    head -c 700000 /dev/urandom > "$mnt/only in the log"
    printf 'small' > "$mnt/inline in the log"
    sync "$mnt/only in the log" "$mnt/inline in the log"
    # Past the device's own cache, which Btrfs does not write through.
    dd if="$(findmnt -no SOURCE "$mnt")" of="$img.crashed" bs=1M iflag=direct conv=sparse status=none
}

# ---- on several devices --------------------------------------------------------------------------------------------

# btrfs_set NUMBER MKFS-OPTIONS...: a folder of so many devices of the image's size; filled by $fill, mounted at $mnt.
btrfs_set() {
    local number=$1 at devices=() loops=() size
    shift
    can_mount || { echo "skip $name: needs root and loop devices" >&2; return 77; }
    size=$(stat -c %s "$img")
    rm "$img" && mkdir "$img"
    for at in $(seq "$number"); do truncate -s "$size" "$img/$at"; devices+=("$img/$at"); done
    btrfs_on "$@" "${devices[@]:0:${made:-$number}}"
    for at in "${devices[@]}"; do loops+=("$(losetup -f --show "$at")"); done
    mnt=$(mktemp -d)
    btrfs device scan "${loops[@]:0:${made:-$number}}" > /dev/null
    if mount "${loops[0]}" "$mnt"; then
        careful "${fill:-grow_old}" "${loops[@]}"
        umount "$mnt"
    else
        echo "skip $name: this kernel cannot mount it" >&2
        status=77
    fi
    for at in "${loops[@]}"; do btrfs device scan --forget "$at" > /dev/null 2>&1 || true; losetup -d "$at"; done
    rmdir "$mnt"
    return $status
}
image btrfs-set-single 96;    btrfs_set_single() { btrfs_set 2 -d single -m raid1; }
image btrfs-set-raid0 136;    btrfs_set_raid0() { btrfs_set 3 -d raid0 -m raid0; }
image btrfs-set-raid1 160;    btrfs_set_raid1() { btrfs_set 2 -d raid1 -m raid1; }
image btrfs-set-raid1c3 160;  btrfs_set_raid1c3() { btrfs_set 4 -d raid1c3 -m raid1c4; }
image btrfs-set-raid10 128;   btrfs_set_raid10() { btrfs_set 4 -d raid10 -m raid10; }
image btrfs-set-raid5 256;    btrfs_set_raid5() { btrfs_set 3 -d raid5 -m raid5; }
image btrfs-set-raid6 128;    btrfs_set_raid6() { btrfs_set 4 -d raid6 -m raid1c3; }
# One device comes later, one goes, and everything is spread anew.
image btrfs-set-changed 192;  btrfs_set_changed() { made=2 fill=change_set btrfs_set 4 -d single -m raid1; rm "$img/1"; }
change_set() {
    grow_old
    btrfs device add -f "$3" "$4" "$mnt" > /dev/null 2>&1
    btrfs balance start --force -dconvert=raid5 -mconvert=raid10,soft "$mnt" > /dev/null 2>&1
    btrfs balance start --force -mconvert=raid1c3 "$mnt" > /dev/null
    btrfs device remove "$1" "$mnt"
}

# ---- not to be believed --------------------------------------------------------------------------------------------

# One of two devices alone.
image btrfs-member-whole 96;  btrfs_member_whole() { btrfs_set 2 -d single -m raid1; mv "$img/1" "$img.1"; rm -r "$img"; mv "$img.1" "$img"; }
image btrfs-seed-whole 128;   btrfs_seed_whole() { btrfs_fs -r "$stage"; btrfstune -f -S 1 "$img" > /dev/null; }
image btrfs-corrupt-super 128; btrfs_corrupt_super() { btrfs_fs -r "$stage"; printf x | dd of="$img" bs=1 seek=$((65536 + 300)) conv=notrunc status=none; }
image btrfs-corrupt-copy 128; btrfs_corrupt_copy() { btrfs_fs -r "$stage"; dd if=/dev/zero of="$img" bs=4096 seek=16384 count=1 conv=notrunc status=none; }
image btrfs-corrupt-count 128; btrfs_corrupt_count() { btrfs_fs -r "$stage"; super 120 +4096; }
image btrfs-corrupt-generation 128; btrfs_corrupt_generation() { btrfs_fs -r "$stage"; super 72 +1; }
image btrfs-error 128;        btrfs_error() { btrfs_fs -r "$stage"; super 56 +4; }
image btrfs-corrupt-cut 128;  btrfs_corrupt_cut() { btrfs_fs -r "$stage"; truncate -s 100M "$img"; }
# The root of the extent tree, which has one copy, holds junk in its middle.
image btrfs-corrupt-tree 128
btrfs_corrupt_tree() {
    local logical at
    btrfs_fs -m single -r "$stage"
    logical=$(btrfs inspect-internal dump-tree -t root "$img" | sed -n '/(EXTENT_TREE ROOT_ITEM 0)/,/bytenr/s/.* bytenr \([0-9]*\) .*/\1/p')
    at=$(btrfs-map-logical -l "$logical" "$img" | sed -n 's/mirror 1 .*physical \([0-9]*\) .*/\1/p' | head -1)
    printf 'junk' | dd of="$img" bs=1 seek=$((at + 5000)) conv=notrunc status=none
}
# super OFFSET +N: adds to a number of all superblocks, with checksums that fit.
super() {
    python3 -c '
import struct, sys
def crc(data):
    sum = 0xFFFFFFFF
    for byte in data:
        sum ^= byte
        for _ in range(8):
            sum = sum >> 1 ^ (0x82F63B78 if sum & 1 else 0)
    return sum ^ 0xFFFFFFFF
with open(sys.argv[1], "r+b") as image:
    for at in (64 << 10, 64 << 20):
        image.seek(at)
        block = bytearray(image.read(4096))
        place = int(sys.argv[2])
        struct.pack_into("<Q", block, place, struct.unpack_from("<Q", block, place)[0] + int(sys.argv[3]))
        struct.pack_into("<I", block, 0, crc(block[32:]))
        image.seek(at)
        image.write(block)' "$img" "$1" "$2"
}
