# shellcheck shell=bash disable=SC2034,SC2154
# NTFS, by ntfs-3g: mkntfs makes it, FUSE fills it. Read by make.

# The serial number is random otherwise, and a label in two alphabets is short and long at once.
ntfs() { mkntfs -F -f -q -s "${sector:-512}" -p 2048 -H 16 -S 63 -L "${label-Größe Ω}" "$@" "$img" ${blocks:-} > /dev/null 2>&1; }
# Runs a command with the image mounted by ntfs-3g, whose end is awaited: it writes until then.
fused() {
    local pid turns=0
    [ "$(id -u)" = 0 ] && [ -e /dev/fuse ] || { echo "skip $name: needs root and /dev/fuse" >&2; return 77; }
    mnt=$(mktemp -d)
    ntfs-3g -o "no_detach,permissions,compression,streams_interface=xattr${opts:+,$opts}" "$img" "$mnt" 2> /dev/null &
    pid=$!
    until mountpoint -q "$mnt"; do
        turns=$((turns + 1))
        [ $turns -lt 200 ] && kill -0 $pid 2> /dev/null || { echo "skip $name: ntfs-3g cannot mount here" >&2; rmdir "$mnt"; return 77; }
        sleep 0.02
    done
    careful "$@"
    umount "$mnt"
    wait $pid
    rmdir "$mnt"
    return $status
}
fill_ntfs() { cp -a "$tree" "$mnt/" && age; }

image ntfs-512 32;           ntfs_512() { junk; ntfs -c 512; fused fill_ntfs; }
image ntfs-1k 32;            ntfs_1k() { junk; ntfs -c 1024; fused fill_ntfs; }
image ntfs-2k 32;            ntfs_2k() { junk; ntfs -c 2048; fused fill_ntfs; }
image ntfs-4k 48;            ntfs_4k() { junk; ntfs -c 4096; fused fill_ntfs; }
image ntfs-16k 64;           ntfs_16k() { junk; ntfs -c 16384; fused fill_ntfs; }
image ntfs-64k 96;           ntfs_64k() { junk; ntfs -c 65536; fused fill_ntfs; }
image ntfs-128k 128;         ntfs_128k() { junk; ntfs -c 131072; fused fill_ntfs; }
image ntfs-2m 512;           ntfs_2m() { ntfs -c 2097152; fused fill_little; }
fill_little() { cp -a "$tree/many" "$tree/hole" "$mnt/"; }
image ntfs-1k-sectors 32;    ntfs_1k_sectors() { junk; sector=1024 ntfs -c 4096; fused fill_ntfs; }
image ntfs-4k-sectors 48;    ntfs_4k_sectors() { junk; sector=4096 ntfs; fused fill_ntfs; }
image ntfs-4k-sectors-64k 96; ntfs_4k_sectors_64k() { junk; sector=4096 ntfs -c 65536; fused fill_ntfs; }
image ntfs-empty 16;         ntfs_empty() { junk; label='' ntfs; }
image ntfs-full 16;          ntfs_full() { junk; ntfs -c 512; fused fill_up; }
image ntfs-compressed 48;    ntfs_compressed() { junk; ntfs -c 4096; fused compressed; }
compressed() {
    mkdir "$mnt/compressed"
    setfattr -n system.ntfs_attrib_be -v 0x00000810 "$mnt/compressed"
    local n text
    text=$(printf 'line %s of text that is packed well\n' $(seq 30000))
    for n in $(seq 40); do printf '%s' "${text:0:$((n * 25001))}" > "$mnt/compressed/$n"; done
    cp -a "$tree/sizes" "$mnt/compressed/"
    rm "$mnt"/compressed/*[02468]
    getfattr -n system.ntfs_attrib_be -e hex "$mnt/compressed/1" 2> /dev/null | grep -q '=0x00000[89a]'
}
image ntfs-sparse 48;        ntfs_sparse() { junk; ntfs; fused sparse; }
sparse() {
    truncate -s 300M "$mnt/sparse"
    for n in $(seq 0 7 290); do printf 'island %s' "$n" | dd of="$mnt/sparse" bs=1M seek="$n" conv=notrunc status=none; done
    cp -a "$tree/hole" "$mnt/"
}
image ntfs-streams 48;       ntfs_streams() { junk; ntfs; fused streams; }
streams() {
    fill_ntfs
    head -c 40000 "$tree/sizes/65536" | base64 -w0 > "$tree/stream"
    for n in $(seq 30); do setfattr -n "user.stream number $n" -v "$(cat "$tree/stream")" "$mnt/tree/sizes/65537"; done
    rm "$tree/stream"
}
# What comes when only holes are left lies in many pieces, the table of files too; in the second image, its list of
# pieces is so long that it goes on in another record, as on servers with millions of files.
image ntfs-fragmented 12;    ntfs_fragmented() { junk; ntfs -c 512; fused fragment; }
image ntfs-fragmented-list 12; ntfs_fragmented_list() { ntfs_fragmented && edit_ntfs split; }
fragment() {
    local n
    mkdir "$mnt/a" "$mnt/b"
    for n in 1001 1301 1601 1901; do (cd "$mnt/a" && tee $(seq "$n" $((n + 299))) < "$tree/sizes/1023" > /dev/null); done
    # Full, then holes of a few clusters, and no file record that is free.
    head -c 64M /dev/zero > "$mnt/fill" 2> /dev/null || true
    truncate -s 0 "$mnt"/a/*[13579]
    (cd "$mnt/b" && seq 250 | xargs touch)
    head -c 150000 "$tree/sizes/262144" > "$mnt/pieces" 2> /dev/null || true
    truncate -s 3M "$mnt/fill"
    cp "$tree/sizes/262144" "$mnt/"
}
image ntfs-many 48;          ntfs_many() { junk; ntfs -c 1024; fused many; }
many() { mkdir "$mnt/many" && (cd "$mnt/many" && seq 3000 | xargs touch) && find "$mnt/many" -name '*7' -delete; }
image ntfs-short 64;         ntfs_short() { junk; blocks=90000 ntfs; fused fill_ntfs; }
image ntfs-odd-end 64;       ntfs_odd_end() { truncate -s $((50 * 1048576 + 7 * 512)) "$img"; junk; ntfs; fused fill_ntfs; }
image ntfs-grown 128;        ntfs_grown() { junk; blocks=60000 ntfs -c 512; fused fill_ntfs; resize_ntfs -s "$(stat -c %s "$img")"; fused fill_again; }
fill_again() { cp -a "$tree/sizes" "$mnt/grown"; }
image ntfs-shrunk 96;        ntfs_shrunk() { junk; ntfs -c 1024; fused fill_ntfs; resize_ntfs -s 40M; }
# Marks the volume for chkdsk, which is not here to come.
resize_ntfs() { printf 'y\n' | ntfsresize -f -f "$@" "$img" > /dev/null 2>&1 && ntfsfix -d "$img" > /dev/null 2>&1; }
# What a Windows that went on left behind, and one that never hibernated.
image ntfs-resumed 32;       ntfs_resumed() { junk; ntfs; fused hiberfile 'wake'; }
image ntfs-log-closed 32;    ntfs_log_closed() { junk; ntfs; fused fill_ntfs; log_pages 1.1 2 closed; }
image ntfs-log-checked 32;   ntfs_log_checked() { junk; ntfs; fused fill_ntfs; log_pages 1.1 2 checked; }

# ---- images that were not left in order --------------------------------------------------------------------------

image ntfs-dirty 32;         ntfs_dirty() { junk; ntfs; fused fill_ntfs; volume_flags 1; }
image ntfs-dirty-chkdsk 32;  ntfs_dirty_chkdsk() { ntfs; volume_flags 0x4000; }
image ntfs-dirty-hibernated 32; ntfs_dirty_hibernated() { junk; ntfs; fused hiberfile 'hibr'; }
image ntfs-dirty-hibernated-many 48; ntfs_dirty_hibernated_many() { junk; ntfs; fused hiberfile_among_many; }
image ntfs-dirty-log 32;     ntfs_dirty_log() { ntfs; fused fill_ntfs; log_pages 1.1 0 used; }
image ntfs-dirty-log-2 32;   ntfs_dirty_log_2() { ntfs; log_pages 2.0 2 closed; }
image ntfs-corrupt-log 32;   ntfs_corrupt_log() { ntfs; log_pages 1.1 2 torn; }
image ntfs-corrupt-bitmap 32; ntfs_corrupt_bitmap() { ntfs; fused fill_ntfs; clear_bit; }
image ntfs-corrupt-mirror 32; ntfs_corrupt_mirror() { ntfs; poke "$(at 0x38 cluster 1320)" '\001'; }
image ntfs-corrupt-record 32; ntfs_corrupt_record() { ntfs; poke "$(at 0x30 cluster $((9 * 1024 + 1022)))" '\125\252'; }
image ntfs-corrupt-runs 32;  ntfs_corrupt_runs() { ntfs; fused fill_ntfs; poke_runs; }
image ntfs-corrupt-size 32;  ntfs_corrupt_size() { ntfs; poke 44 '\001'; }

hiberfile() { { printf '%s' "$1"; head -c 100000 /dev/zero; } > "$mnt/HiberFil.sys"; }
hiberfile_among_many() { (cd "$mnt" && seq 2000 | xargs touch) && hiberfile HIBR; }
poke() { printf '%b' "$2" | dd of="$img" bs=1 seek="$1" conv=notrunc status=none; }
# at FIELD cluster MORE: the byte MORE behind the start of the cluster that this field of the boot sector names.
at() { echo $(($(od -An -tu8 -j$(($1)) -N8 "$img") * $(od -An -tu2 -j11 -N2 "$img") * $(od -An -tu1 -j13 -N1 "$img") + $3)); }
edit_ntfs() { python3 "$here/ntfs.py" "$img" "$@"; }
volume_flags() { edit_ntfs flags "$1"; }
log_pages() { edit_ntfs log "$@"; }
clear_bit() { edit_ntfs clear-bit; }
poke_runs() { edit_ntfs far-run; }
