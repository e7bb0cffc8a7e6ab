# shellcheck shell=bash disable=SC2034,SC2154
# XFS, by xfsprogs and the kernel. Read by make.
#
# Each has a UUID of its own: the kernel does not mount two alike. --unsupported is for small ones only.

xfs() { mkfs.xfs -q -f -K --unsupported "$@" "$img" > /dev/null 2>&1; }

image xfs-1k 48;             xfs_1k() { junk; xfs -b size=1k; mounted lived; }
lived() { fill; sync "$mnt"; age; }
image xfs-2k 48;             xfs_2k() { xfs -b size=2k; mounted lived; }
image xfs-4k 64;             xfs_4k() { junk; xfs -L "root volume"; mounted lived; }
image xfs-8k 64;             xfs_8k() { xfs -b size=8k; mounted lived; }
image xfs-64k 160;           xfs_64k() { junk; xfs -b size=64k; mounted lived; }
image xfs-4k-sectors 64;     xfs_4k_sectors() { junk; xfs -s size=4k; mounted lived; }
image xfs-plain 64;          xfs_plain() { junk; xfs -m reflink=0,finobt=0,inobtcount=0,bigtime=0 -i sparse=0; mounted lived; }
image xfs-rmap 96;           xfs_rmap() { junk; xfs -m rmapbt=1,reflink=0 -d agcount=2 -l size=24m; mounted lived; }
image xfs-everything 96;     xfs_everything() { junk; xfs -m rmapbt=1,reflink=1,finobt=1,inobtcount=1,bigtime=1 -i sparse=1,nrext64=1,size=2048 -n size=64k -d agcount=2 -l size=24m; mounted share; }
# Files that share blocks, some of which were written to since.
share() {
    lived
    cp -a --reflink=always "$mnt/late" "$mnt/twin"
    printf 'mine' | dd of="$mnt/twin" bs=1 seek=1500000 conv=notrunc status=none
    sync "$mnt"
}
image xfs-one-group 48;      xfs_one_group() { junk; xfs -d agcount=1; mounted lived; }
image xfs-many-groups 400;   xfs_many_groups() { xfs -d agcount=25; mounted lived; }
image xfs-short 64;          xfs_short() { junk; xfs -d size=47m; mounted lived; }
image xfs-odd-end 64;        xfs_odd_end() { truncate -s $((50 * 1048576 + 3 * 512)) "$img"; junk; xfs; mounted lived; }
# The last group is shorter than the others.
image xfs-grown 96;          xfs_grown() { junk; xfs -d size=48m,agcount=2; mounted widen; }
widen() { lived; xfs_growfs -D 19000 "$mnt" > /dev/null; }
image xfs-empty 48;          xfs_empty() { junk; xfs; }
image xfs-full 32;           xfs_full() { junk; xfs -m rmapbt=1; mounted fill_up; }
# Free space in thousands of pieces: trees of more than one level.
image xfs-pieces 64;         xfs_pieces() { junk; xfs -b size=1k -d agcount=2; mounted perforate; }
perforate() {
    fill
    fallocate -l 24M "$mnt/holes"
    for n in $(seq 0 2 24000); do echo "fpunch ${n}k 1k"; done | xfs_io "$mnt/holes"
    sync "$mnt"
}
# Every write of this log takes 64 KiB at least, so it goes round the ring a few times.
image xfs-log-wrapped 64;    xfs_log_wrapped() { junk; xfs -d agcount=1,su=64k,sw=4 -l su=64k; mounted wrap; }
wrap() {
    fill
    for n in $(seq 150); do echo "$n" > "$mnt/n$((n % 7))"; sync "$mnt/n$((n % 7))"; done
    age
}
image xfs-log-stripe 192;    xfs_log_stripe() { xfs -d agcount=2 -l su=256k; mounted lived; }
image xfs-frozen 64;         xfs_frozen() { junk; xfs; mounted frozen; mv "$img.crashed" "$img"; }
image xfs-frozen-rmap 64;    xfs_frozen_rmap() { junk; xfs -m rmapbt=1 -l su=64k; mounted frozen; mv "$img.crashed" "$img"; }
frozen() {
    lived
    exec 9> "$mnt/held open" && rm "$mnt/held open" && echo content >&9
    fsfreeze -f "$mnt"
    # Past the device's own cache, which XFS does not write through: whoever looked at the device filled it.
    dd if="$(findmnt -no SOURCE "$mnt")" of="$img.crashed" bs=1M iflag=direct status=none || true
    fsfreeze -u "$mnt"
    exec 9>&-
}
image xfs-replayed 64;       xfs_replayed() { junk; xfs; mounted fill; crash; mounted :; }
image xfs-repaired 64;       xfs_repaired() { xfs; mounted fill; crash; xfs_repair -L "$img" > /dev/null 2>&1; }
image xfs-other-uuid 64;     xfs_other_uuid() { junk; xfs; mounted lived; xfs_admin -U generate -L renamed "$img" > /dev/null; }
# Directories of every form, links that do not fit into an inode, a file whose extents are a tree.
image xfs-paths 96;          xfs_paths() { junk; xfs -b size=1k -d agcount=2 -n size=4k; mounted paths; }
paths() {
    local n long
    fill
    mkdir -p "$mnt/etc.d" "$mnt/few" "$mnt/thousands"
    printf 'LABEL=data /srv xfs defaults 0 0\n' > "$mnt/etc.d/fstab"
    ln -s "$(printf './%.0s' $(seq 480))etc.d" "$mnt/etc"
    for n in $(seq 30); do echo "$n" > "$mnt/few/$n"; done
    for n in $(seq 6000); do echo "$n" > "$mnt/thousands/a rather long name for the file $n"; done
    for n in $(seq 1 3 6000); do rm "$mnt/thousands/a rather long name for the file $n"; done
    long=$mnt/thousands/link
    ln -s "$(printf '../few/%.0s' $(seq 60))2" "$long" && ln -s /etc/fstab "$mnt/few/absolute"
    fallocate -l 64k "$mnt/etc.d/unwritten"
    printf 'written' | dd of="$mnt/etc.d/unwritten" bs=1 seek=30000 conv=notrunc status=none
    head -c 1048576 /dev/urandom > "$mnt/etc.d/holes"
    for n in $(seq 0 2 1022); do echo "fpunch ${n}k 1k"; done | xfs_io "$mnt/etc.d/holes"
    sync "$mnt"
}
image xfs-v4 48;             xfs_v4() { junk; xfs_v4_of -b size=4k; }
image xfs-v4-512 48;         xfs_v4_512() { xfs_v4_of -b size=512; }
image xfs-v4-old 48;         xfs_v4_old() { junk; xfs_v4_of -l version=1,lazy-count=0 -i attr=1,projid32bit=0 -n ftype=0; }
# Kernels no longer mount version 4, so mkfs.xfs puts the files there.
xfs_v4_of() {
    local proto n
    proto=$(mktemp)
    {
        printf '/none\n0 0\nd--755 0 0\nsizes d--750 3 4\n'
        for n in "$tree"/sizes/*; do echo "${n##*/} -u-640 1 2 $n"; done
        printf '$\nlink l--777 0 0 sizes/4097\n$\n'
    } > "$proto"
    careful xfs -m crc=0 -p "$proto" "$@"
    rm "$proto"
    return $status
}

# ---- images that were not left in order, or lie elsewhere too ------------------------------------------------------

image xfs-dirty 64;          xfs_dirty() { junk; xfs; mounted fill; crash; }
image xfs-dirty-rmap 64;     xfs_dirty_rmap() { junk; xfs -m rmapbt=1 -l su=64k; mounted fill; crash; }
image xfs-dirty-needsrepair 64; xfs_dirty_needsrepair() { damage 'sb 0' features_incompat 0x1b; }
image xfs-dirty-log-outside 64
xfs_dirty_log_outside() {
    local log
    log=$(mktemp) && truncate -s 32M "$log"
    junk
    careful xfs -l logdev="$log",size=16m
    rm "$log"
    return $status
}
image xfs-error-realtime 64
xfs_error_realtime() {
    local rt
    rt=$(mktemp) && truncate -s 32M "$rt"
    careful xfs -r rtdev="$rt"
    rm "$rt"
    return $status
}
# A field that contradicts the rest, under a right checksum: damage OBJECT FIELD VALUE.
damage() { xfs; xfs_db -x -c "$1" -c "write -d $2 $3" "$img" > /dev/null; }
image xfs-corrupt-unknown-bit 48; xfs_corrupt_unknown_bit() { damage 'sb 0' features_incompat 0x80000003; }
image xfs-corrupt-free-count 48;  xfs_corrupt_free_count() { damage 'agf 1' freeblks 4; }
image xfs-corrupt-free-total 48;  xfs_corrupt_free_total() { damage 'sb 0' fdblocks 4; }
image xfs-corrupt-group 48;       xfs_corrupt_group() { damage 'agf 1' seqno 0; }
image xfs-corrupt-root 48;        xfs_corrupt_root() { damage 'agf 0' bnoroot 100000; }
image xfs-corrupt-swapped 48;     xfs_corrupt_swapped() { damage 'agf 0' bnoroot 2; }
# A tree leads back to what it led to before.
image xfs-corrupt-circle 64
xfs_corrupt_circle() {
    xfs -b size=1k -d agcount=1
    mounted perforate || return
    local first
    first=$(xfs_db -r -c 'agf 0' -c 'addr bnoroot' -c 'p ptrs[1]' "$img" | sed 's/.*[:= ]//')
    xfs_db -x -c 'agf 0' -c 'addr bnoroot' -c "write -d ptrs[2] $first" "$img" > /dev/null
}
# Bytes that somebody else wrote, without their checksum: scribble OFFSET.
scribble() { printf '\125' | dd of="$img" bs=1 seek="$1" conv=notrunc status=none; }
image xfs-corrupt-superblock 48; xfs_corrupt_superblock() { xfs; scribble 305; }
image xfs-corrupt-header 48;     xfs_corrupt_header() { xfs; scribble 640; }
image xfs-corrupt-tree 48;       xfs_corrupt_tree() { xfs; scribble $((4096 + 63)); }
# Without checksums: a record is one block longer than its group knows.
image xfs-corrupt-v4 48
xfs_corrupt_v4() {
    xfs_v4_of -b size=4k
    local last
    last=$(xfs_db -r -c 'agf 0' -c 'addr bnoroot' -c 'p recs[1]' "$img" | sed -n 's/.*\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/p')
    xfs_db -x -c 'agf 0' -c 'addr bnoroot' -c "write -d recs[1].startblock $((${last% *} - 1))" "$img" > /dev/null
}
image xfs-corrupt-truncated 64;  xfs_corrupt_truncated() { xfs; truncate -s -4096 "$img"; }
