# shellcheck shell=bash disable=SC2034,SC2154
# ext2, ext3, ext4, by e2fsprogs and the kernel. Read by make.

ext() { mke2fs -q -F -U "$UUID" -E "hash_seed=$UUID,nodiscard${opts:+,$opts}" "$@" "$img" ${blocks:-}; }

image ext2-1k 32;            ext2_1k() { junk; ext -t ext2 -b 1024 -d "$stage"; }
image ext2-rev0 24;          ext2_rev0() { ext -t ext2 -r 0 -b 1024; mounted fill; }
fill() { cp -a "$tree" "$mnt/"; }
image ext2-4k 32;            ext2_4k() { junk; ext -t ext2 -b 4096 -d "$stage"; mounted age; }
image ext3-1k 48;            ext3_1k() { ext -t ext3 -b 1024 -d "$stage"; mounted age; }
image ext3-4k 48;            ext3_4k() { junk; ext -t ext3 -b 4096 -d "$stage"; mounted age; }
image ext4-1k 48;            ext4_1k() { junk; ext -t ext4 -b 1024 -d "$stage"; mounted age; }
image ext4-2k 48;            ext4_2k() { ext -t ext4 -b 2048 -d "$stage"; }
image ext4-4k 64;            ext4_4k() { junk; ext -t ext4 -b 4096 -d "$stage"; mounted age; }
image ext4-16k 96;           ext4_16k() { junk; ext -t ext4 -b 16384 -d "$stage" 2> /dev/null; }
image ext4-64k 192;          ext4_64k() { ext -t ext4 -b 65536 -d "$stage" 2> /dev/null; }
image ext4-no-journal 32;    ext4_no_journal() { junk; ext -t ext4 -O ^has_journal -d "$stage"; mounted age; }
# Groups whose bitmaps and inode tables were never written, over junk, under each sort of checksum and none.
image ext4-uninit-crc16 256; ext4_uninit_crc16() { junk; opts=lazy_itable_init=1 ext -t ext4 -b 1024 -g 2048 -O ^metadata_csum,uninit_bg -d "$stage"; }
image ext4-uninit-crc32c 256; ext4_uninit_crc32c() { junk; opts=lazy_itable_init=1,lazy_journal_init=1 ext -t ext4 -b 1024 -O metadata_csum,64bit -d "$stage"; mounted age; }
image ext4-init-junk 128;    ext4_init_junk() { junk; opts=lazy_itable_init=0 ext -t ext4 -b 1024 -d "$stage"; }
image ext4-no-csum 64;       ext4_no_csum() { junk; ext -t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,^64bit -d "$stage"; mounted age; }
image ext4-csum-32bit 64;    ext4_csum_32bit() { junk; ext -t ext4 -b 1024 -O metadata_csum,^64bit -d "$stage"; mounted age; }
image ext4-csum-seed 64;     ext4_csum_seed() { junk; ext -t ext4 -O metadata_csum,metadata_csum_seed -d "$stage"; tune2fs -U 11112222-3333-4444-5555-666677778888 "$img" > /dev/null; }
image ext4-no-flex 96;       ext4_no_flex() { junk; ext -t ext4 -b 1024 -O ^flex_bg -d "$stage"; mounted age; }
image ext4-small-groups 48;  ext4_small_groups() { junk; ext -t ext4 -b 1024 -g 256 -G 4 -N 4096 -O ^resize_inode -d "$stage"; }
image ext4-no-sparse 64;     ext4_no_sparse() { junk; ext -t ext4 -b 1024 -O ^sparse_super,^resize_inode -d "$stage"; }
image ext4-sparse-super2 128; ext4_sparse_super2() { junk; opts=num_backup_sb=2 ext -t ext4 -b 1024 -O sparse_super2 -d "$stage"; }
image ext4-sparse-super2-one 96; ext4_sparse_super2_one() { opts=num_backup_sb=1 ext -t ext4 -b 1024 -O sparse_super2 -d "$stage"; }
image ext4-meta-bg 96;       ext4_meta_bg() { junk; ext -t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode -d "$stage"; mounted age; }
image ext4-meta-bg-32bit 96; ext4_meta_bg_32bit() { junk; ext -t ext4 -b 1024 -g 512 -N 8192 -O meta_bg,^resize_inode,^64bit,^flex_bg -d "$stage"; }
image ext4-bigalloc 128;     ext4_bigalloc() { junk; ext -t ext4 -b 4096 -O bigalloc -C 65536 -d "$stage"; mounted age; }
image ext4-bigalloc-1k 128;  ext4_bigalloc_1k() { junk; ext -t ext4 -b 1024 -O bigalloc -C 4096 -d "$stage"; }
image ext4-bigalloc-meta-bg 128; ext4_bigalloc_meta_bg() { junk; ext -t ext4 -b 1024 -O bigalloc,meta_bg,^resize_inode -C 2048 -d "$stage"; mounted age; }
image ext4-inline-data 48;   ext4_inline_data() { junk; ext -t ext4 -b 4096 -I 256 -O inline_data -d "$stage"; mounted age; }
image ext4-everything 64;    ext4_everything() { junk; ext -t ext4 -I 256 -E encoding=utf8 -O quota,project,casefold,encrypt,verity,ea_inode,large_dir,huge_file,mmp,stable_inodes,inline_data -d "$stage"; settle; }
image ext4-quota 48;         ext4_quota() { junk; ext -t ext4 -I 256 -O quota,project,ea_inode,large_dir,mmp -d "$stage"; settle; }
# mke2fs -d does not count what it puts there against the quotas.
settle() { e2fsck -fy "$img" > /dev/null 2>&1 || [ $? = 1 ]; }
image ext4-orphan-file 48;   ext4_orphan_file() { junk; ext -t ext4 -b 4096 -O orphan_file -d "$stage"; mounted age; }
image ext4-fast-commit 48;   ext4_fast_commit() { junk; ext -t ext4 -O fast_commit -d "$stage"; mounted age; }
image ext4-short 64;         ext4_short() { junk; blocks=12345 ext -t ext4 -b 4096 -d "$stage"; }
image ext4-odd-end 64;       ext4_odd_end() { truncate -s $((50 * 1048576 + 3 * 512)) "$img"; junk; ext -t ext4 -b 4096 -d "$stage"; mounted age; }
image ext4-last-group 64;    ext4_last_group() { junk; blocks=41500 ext -t ext4 -b 1024 -d "$stage"; }
image ext4-resized 160;      ext4_resized() { junk; blocks=24M ext -t ext4 -b 1024 -d "$stage"; resize2fs -f "$img" 150M > /dev/null 2>&1; mounted age; }
image ext4-shrunk 128;       ext4_shrunk() { junk; ext -t ext4 -b 1024 -d "$stage"; settle; resize2fs -f "$img" 40M > /dev/null 2>&1; }
image ext4-grown-online 128; ext4_grown_online() { junk; opts=resize=40960 blocks=16M ext -t ext4 -b 1024 -O 64bit,resize_inode -d "$stage"; mounted grow; }
grow() {
    resize2fs "$(findmnt -no SOURCE "$mnt")" 120M > /dev/null 2>&1 ||
        { echo "skip $name: may not grow a mounted filesystem (CAP_SYS_RESOURCE)" >&2; exit 77; }
    age
}
image ext4-full 24;          ext4_full() { junk; ext -t ext4 -m 0 -b 1024 -d "$stage"; mounted fill_up; }
fill_up() { head -c 64M /dev/urandom > "$mnt/fill" 2> /dev/null || true; sync "$mnt"; }
image ext4-empty 64;         ext4_empty() { junk; ext -t ext4 -m 0; }
image ext4-journal-outside 48
ext4_journal_outside() {
    can_mount || { echo "skip $name: needs root and a loop device" >&2; return 77; }
    local log loop
    log=$(mktemp) && truncate -s 16M "$log"
    mke2fs -q -F -O journal_dev -b 4096 -U 99999999-8888-7777-6666-555544443333 "$log"
    loop=$(losetup -f --show "$log")
    junk
    careful ext -t ext4 -b 4096 -J "device=$loop" -d "$stage"
    losetup -d "$loop"
    rm "$log"
    return $status
}
image ext-journal-device 16; ext_journal_device() { junk; mke2fs -q -F -O journal_dev -b 4096 -U "$UUID" "$img"; }

# ---- images that were not left in order --------------------------------------------------------------------------

image ext4-dirty 64;         ext4_dirty() { junk; ext -t ext4 -b 4096 -d "$stage"; crash; }
image ext4-dirty-1k 64;      ext4_dirty_1k() { junk; ext -t ext4 -b 1024 -O ^metadata_csum -d "$stage"; crash; }
image ext3-dirty 64;         ext3_dirty() { junk; ext -t ext3 -b 1024 -d "$stage"; crash; }
image ext2-unclean 32;       ext2_unclean() { ext -t ext2 -b 1024 -d "$stage"; crash; }
# A copy of the device while it is in use: committed to the log, not yet written back.
crash() { mounted crash_now; mv "$img.crashed" "$img"; }
crash_now() {
    age
    sync "$mnt"
    rm -rf "$mnt/tree/sizes"
    mkdir "$mnt/after"
    cp -a "$tree/many" "$mnt/after/"
    sync "$mnt/after" "$mnt/after/many/file 7"
    dd if="$(findmnt -no SOURCE "$mnt")" of="$img.crashed" bs=1M status=none
}
image ext4-error 32;         ext4_error() { ext -t ext4 -d "$stage"; debugfs -w -R 'set_super_value state 2' "$img" 2> /dev/null; }
# The bit of a block that is in use is cleared; the checksum of the bitmap no longer fits.
image ext4-corrupt-bitmap 32
ext4_corrupt_bitmap() {
    ext -t ext4 -b 4096 -d "$stage"
    local block
    block=$(dumpe2fs "$img" 2> /dev/null | sed -n 's/.*Block bitmap at \([0-9]*\).*/\1/p' | head -1)
    printf '\376' | dd of="$img" bs=1 seek=$((block * 4096 + 100)) conv=notrunc status=none
}
# The same without checksums: the count of free blocks no longer fits.
image ext2-corrupt-bitmap 32
ext2_corrupt_bitmap() {
    ext -t ext2 -b 4096 -d "$stage"
    local block
    block=$(dumpe2fs "$img" 2> /dev/null | sed -n 's/.*Block bitmap at \([0-9]*\).*/\1/p' | head -1)
    printf '\376' | dd of="$img" bs=1 seek=$((block * 4096 + 100)) conv=notrunc status=none
}
