//! A volume group, made by lvm in a small guest: the kernel that tests run on may have no device mapper.

use crate::guest::{Disk, Guest};

/// The logical volumes that `server-disk --group` makes room for, in extents; the last takes what is left. See
/// `tests/lab/table.py`.
const VOLUMES: [(&str, &str); 3] = [("root", "384"), ("swap", "64"), ("data", "100%FREE")];

/// Takes what lies in the partition of a disk into logical volumes as it is. `false`, with the reason printed, where
/// there is no guest.
#[must_use]
pub fn make(disk: &str, partition: u32) -> bool {
    let Some(builder) = Guest::builder() else { return false };
    let builder = builder.program("lvm").module("dm_mod");
    let mut guest = builder.disk(disk, Disk::Virtio, "GROUP").boot();
    let node = format!("/dev/vda{partition}");
    guest.expect_node(&node);
    guest.set("DM_DISABLE_UDEV", "1");
    guest.sh(&format!("lvm pvcreate {node} 2>&1 && lvm vgcreate --physicalextentsize 4m server {node} 2>&1"));
    for (name, extents) in VOLUMES {
        // Nothing is wiped: the content is there already.
        let make = "lvm lvcreate --yes --activate n --zero n --wipesignatures n";
        guest.sh(&format!("{make} --extents {extents} --name {name} server 2>&1"));
    }
    println!("{}", guest.sh("lvm lvs --segments -o +seg_pe_ranges 2>&1"));
    guest.end();
    true
}
