//! Filesystems that leave `55 aa` at the end of sector 0, or leave alone what somebody else put there.
//!
//! Only as far as needed to tell a filesystem on a whole disk from an MBR; what the filesystem is in detail is for
//! `imager-volume` to say. The FAT test is libblkid's (`fat_valid_superblock`), since FAT has no reliable magic.

use super::field::{bytes, le16};
use super::sectors::Sectors;

/// The filesystem (or container) that a disk may hold without a table.
pub(super) fn recognise(sectors: &Sectors<'_>, boot: &[u8]) -> Option<&'static str> {
    match bytes(boot, 3) {
        _ if is_fat(boot) => Some("FAT filesystem"),
        oem if oem == *b"NTFS    " => Some("NTFS filesystem"),
        oem if oem == *b"-FVE-FS-" => Some("BitLocker volume"),
        oem if oem == *b"EXFAT   " => Some("exFAT filesystem"),
        _ => behind_the_boot_sector(sectors),
    }
}

fn is_fat(boot: &[u8]) -> bool {
    let named = matches!(&bytes(boot, 54), b"FAT12   " | b"FAT16   " | b"FAT     ")
        || bytes(boot, 54) == *b"MSDOS"
        || bytes(boot, 82) == *b"FAT32   "
        || bytes(boot, 82) == *b"MSWIN";
    let [jump, ..]: [u8; 3] = bytes(boot, 0);
    let other = matches!(&bytes(boot, 54), b"JFS     " | b"HPFS    ");
    (named || (matches!(jump, 0xeb | 0xe9) && !other)) && has_fat_parameters(boot)
}

fn has_fat_parameters(boot: &[u8]) -> bool {
    let sector_bytes = le16(boot, 11);
    let [cluster_sectors] = bytes(boot, 13);
    let reserved_sectors = le16(boot, 14);
    let [fats] = bytes(boot, 16);
    let [media] = bytes(boot, 21);
    sector_bytes.is_power_of_two()
        && (512..=4096).contains(&sector_bytes)
        && cluster_sectors.is_power_of_two()
        && reserved_sectors != 0
        && fats != 0
        && (media == 0xf0 || media >= 0xf8)
}

/// Those that leave the first sectors to a boot loader: offset, magic, name.
fn behind_the_boot_sector(sectors: &Sectors<'_>) -> Option<&'static str> {
    let is_lvm = |at| sectors.peek(at) == Some(*b"LABELONE");
    if sectors.peek(1024 + 56) == Some([0x53, 0xef]) {
        return Some("ext filesystem");
    }
    if sectors.peek(1024) == Some([0x10, 0x20, 0xf5, 0xf2]) {
        return Some("F2FS filesystem");
    }
    if sectors.peek(65_536 + 64) == Some(*b"_BHRfS_M") {
        return Some("Btrfs filesystem");
    }
    if sectors.peek(4096 - 10) == Some(*b"SWAPSPACE2") {
        return Some("swap area");
    }
    [0, 512, 1024, 1536].into_iter().any(is_lvm).then_some("LVM physical volume")
}
