# shellcheck shell=bash disable=SC2034,SC2154
# exFAT, by exfatprogs; exfat-fuse fills it. Read by make.

exfat() { LC_ALL=C.UTF-8 mkfs.exfat -L "${label:-Größe Ω}" "$@" "$img" > /dev/null && tune.exfat -I 0x1234ABCD "$img" > /dev/null; }
# Runs a command with the image mounted by exfat-fuse.
mounted_exfat() {
    can_mount && [ -e /dev/fuse ] || { echo "skip $name: needs root, a loop device and /dev/fuse" >&2; return 77; }
    mnt=$(mktemp -d)
    mount -t exfat-fuse -o loop "$img" "$mnt" > /dev/null || { rmdir "$mnt"; echo "skip $name: exfat-fuse cannot mount it" >&2; return 77; }
    careful "$@"
    umount "$mnt"
    rmdir "$mnt"
    return $status
}
# exFAT has neither links nor owners. Every second file goes again, larger ones come into the holes, and more go.
fill_exfat() {
    local n
    mkdir "$mnt/many" "$mnt/dir"
    for n in sizes many deep empty; do cp -r "$tree/$n" "$mnt/dir/"; done
    cp "$tree/many"/* "$tree/hole" "$mnt/many/"
    for n in $(seq 2 2 120); do rm "$mnt/many/file $n"; done
    cp -r "$tree/sizes" "$mnt/sizes again"
    # Two files that grow in turns lie in pieces.
    for n in $(seq 20); do
        cat "$tree/sizes/4097" >> "$mnt/one"
        cat "$tree/sizes/65537" >> "$mnt/other"
    done
    for n in $(seq 1 6 120); do rm "$mnt/many/file $n"; done
}
exfat_filled() { junk; exfat "$@"; mounted_exfat fill_exfat; }

image exfat-512 32;          exfat_512() { exfat_filled -c 512; }
image exfat-4k 32;           exfat_4k() { exfat_filled -c 4K; }
image exfat-32k 64;          exfat_32k() { exfat_filled -c 32K; }
image exfat-1m 280;          exfat_1m() { exfat -c 1M; mounted_exfat fill_exfat; }
image exfat-32m 320;         exfat_32m() { exfat -c 32M; mounted_exfat one_file; }
one_file() { cp "$tree/sizes/65537" "$mnt/"; }
image exfat-unaligned 24;    exfat_unaligned() { truncate -s $((21 * 1048576 + 3 * 512)) "$img"; exfat_filled -c 8K -b 512; }
image exfat-packed-bitmap 48; exfat_packed_bitmap() { exfat_filled -c 4K --pack-bitmap; }
image exfat-no-label 16;     exfat_no_label() { junk; mkfs.exfat -c 1K "$img" > /dev/null; mounted_exfat fill_exfat; }
image exfat-empty 16;        exfat_empty() { junk; exfat -c 4K; }
# The volume goes on behind the filesystem.
image exfat-short 64;        exfat_short() { truncate -s 40M "$img"; exfat_filled -c 4K; truncate -s 64M "$img"; }
# A root directory and a bitmap of many clusters; names longer than one entry.
image exfat-long-root 32
exfat_long_root() { junk; exfat -c 512; mounted_exfat fill_exfat_root; }
fill_exfat_root() { local n; for n in $(seq 300); do echo "$n" > "$mnt/a name of which there are several entries $n"; done; }
image exfat-full 12
exfat_full() { junk; exfat -c 2K; mounted_exfat fill_exfat_up; }
fill_exfat_up() { fill_exfat; head -c 64M /dev/urandom > "$mnt/fill" 2> /dev/null || true; }
# Sectors of 4096 bytes: mkfs.exfat asks a device for them.
image exfat-4k-sectors 64
exfat_4k_sectors() {
    local loop
    can_mount || { echo "skip $name: needs root and a loop device" >&2; return 77; }
    loop=$(losetup -b 4096 -f --show "$img")
    careful mkfs.exfat -c 8K -L SECTORS "$loop" > /dev/null
    losetup -d "$loop"
    [ $status = 0 ] && mounted_exfat fill_exfat
}

# ---- images that were not left in order, or are damaged -----------------------------------------------------------

# A copy of the device while it is in use.
image exfat-dirty 32;        exfat_dirty() { junk; exfat -c 4K; mounted_exfat crash_exfat; mv "$img.crashed" "$img"; }
crash_exfat() {
    fill_exfat
    sync -f "$mnt"
    dd if="$(findmnt -no SOURCE "$mnt")" of="$img.crashed" bs=1M status=none
}
poke_exfat() { printf '%b' "$2" | dd of="$img" bs=1 seek="$1" conv=notrunc status=none; }
# VolumeFlags: a medium that failed.
image exfat-error 32;        exfat_error() { exfat_filled -c 4K; poke_exfat 106 '\004'; }
# A byte of the boot code, which only the checksum covers.
image exfat-corrupt-boot 32; exfat_corrupt_boot() { exfat_filled -c 4K; poke_exfat 300 '\001'; }
# The clusters of eight that the bitmap has lose their bits: files name clusters that it calls free.
image exfat-corrupt-bitmap 32
exfat_corrupt_bitmap() { exfat_filled -c 4K; poke_exfat $((512 * $(od -An -tu4 -j88 -N4 "$img") + 25)) '\000'; }
# The chain of the bitmap, which begins with cluster 2, leads to a bad cluster.
image exfat-corrupt-chain 32
exfat_corrupt_chain() { exfat_filled -c 512; poke_exfat $((512 * $(od -An -tu4 -j80 -N4 "$img") + 4 * 5)) '\367\377\377\377'; }
