# shellcheck shell=bash disable=SC2034,SC2154
# FAT, by dosfstools and mtools. Read by make.

fat() { mkfs.fat -i 1234ABCD -n "${label:-HALFHOUR}" "$@" "$img" > /dev/null 2>&1; fill_fat; }
fill_fat() {
    local n
    export MTOOLSRC=/dev/null
    for n in 1 2 3; do mmd -i "$img" "::dir $n"; done
    mcopy -i "$img" -smQ "$tree/many" ::
    mcopy -i "$img" -smQ "$tree/sizes" "::dir 2"
    # Holes: every second file goes again, and larger ones come.
    for n in $(seq 2 2 120); do mdel -i "$img" "::many/file $n"; done
    for n in 65537 262144 4097; do mcopy -i "$img" -mQ "$tree/sizes/$n" "::dir 3/later $n"; done
}
image fat12-floppy 2;        fat12_floppy() { truncate -s 1440K "$img"; mkfs.fat -i 1234ABCD -n FLOPPY "$img" > /dev/null; mcopy -i "$img" -smQ "$tree/many" ::; mdel -i "$img" "::many/file 2" "::many/file 60"; }
image fat12-8m 8;            fat12_8m() { junk; fat -F 12 -s 8; }
image fat12-one-fat 8;       fat12_one_fat() { junk; fat -F 12 -f 1 -s 8; }
image fat12-most 16;         fat12_most() { junk; fat_clusters 12 4084; }
image fat16-fewest 16;       fat16_fewest() { junk; fat_clusters 16 4087; } # dosfstools makes none with fewer
# A volume of exactly so many clusters of four sectors.
fat_clusters() {
    local bits=$1 clusters=$2 fat=12
    [ "$bits" = 16 ] && fat=16
    truncate -s $(((1 + 2 * fat + 32 + clusters * 4) * 512)) "$img"
    fat -a -F "$bits" -s 4 -R 1 -f 2 -r 512
}
image fat16 32;              fat16() { junk; fat -F 16 -s 4; }
image fat16-4k-sectors 128;  fat16_4k_sectors() { junk; fat -F 16 -S 4096 -s 1; }
image fat16-one-fat 32;      fat16_one_fat() { fat -F 16 -f 1; }
image fat32 64;              fat32() { junk; fat -F 32 -s 1; }
# FAT32 with so few clusters that counting them alone says FAT16. mtools cannot read that, so it is cut short afterwards.
image fat32-few-clusters 40
fat32_few_clusters() {
    local at
    junk
    fat -F 32 -s 1
    for at in 32 $((6 * 512 + 32)); do printf '\140\352\0\0' | dd of="$img" bs=1 seek=$at conv=notrunc status=none; done
    fsck.fat -a "$img" > /dev/null || [ $? = 1 ]
}
image fat32-2k-sectors 192;  fat32_2k_sectors() { fat -F 32 -S 2048 -s 1; }
image fat32-4k-sectors 300;  fat32_4k_sectors() { fat -F 32 -S 4096 -s 1; }
image fat32-short 80;        fat32_short() { junk; mkfs.fat -F 32 -s 1 -i 1234ABCD "$img" $((70 * 1024 + 1)) > /dev/null 2>&1; fill_fat; }
image fat32-full 36
fat32_full() {
    local n
    junk
    fat -F 32 -s 1
    head -c 400000 /dev/urandom > "$tree/part"
    for n in $(seq 90); do mcopy -i "$img" -Q "$tree/part" "::full $n" > /dev/null 2>&1 || break; done
    rm "$tree/part"
}
image fat16-in-use 32;       fat16_in_use() { junk; fat -F 16 -s 4; printf '\001' | dd of="$img" bs=1 seek=37 conv=notrunc status=none; }
# The copies contradict each other on a volume that says it is in order.
image fat16-corrupt-copies 32
fat16_corrupt_copies() {
    local reserved length
    fat -F 16 -s 4
    reserved=$(od -An -tu2 -j14 -N2 "$img")
    length=$(od -An -tu2 -j22 -N2 "$img")
    printf '\377\377' | dd of="$img" bs=1 seek=$(((reserved + length) * 512 + 30000)) conv=notrunc status=none
}
image fat32-corrupt-media 34; fat32_corrupt_media() { fat -F 32 -s 1; printf '\000' | dd of="$img" bs=1 seek=$((32 * 512)) conv=notrunc status=none; }
