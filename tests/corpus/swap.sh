# shellcheck shell=bash disable=SC2034,SC2154
# Swap, by util-linux. Read by make.

image swap-4k 16;            swap_4k() { junk; mkswap -U "$UUID" -L swap "$img" > /dev/null 2>&1; }
image swap-64k 16;           swap_64k() { junk; mkswap -p 65536 -U "$UUID" -L swap "$img" > /dev/null 2>&1; }
image swap-hibernated 16;    swap_hibernated() { swap_4k; printf 'SWAPSPACE2S1SUSPEND\0' | dd of="$img" bs=1 seek=4076 conv=notrunc status=none; }
