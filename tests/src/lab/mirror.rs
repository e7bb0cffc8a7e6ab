//! Mirrors of md, made by mdadm in a small guest: the kernel that tests run on may have no md.

use crate::guest::{Disk, Guest};

/// The members that `server-disk --mirror` makes room for, with the versions of their superblocks; see `tests/lab/table.py`.
const MEMBERS: [(u32, &str, &str); 3] = [(1, "1.0", "boot"), (5, "1.2", "root"), (7, "1.2", "data")];

/// Takes what lies on two disks into mirrors as it is. `false`, with the reason printed, where there is no guest.
#[must_use]
pub fn make(disks: [&str; 2]) -> bool {
    let Some(builder) = Guest::builder() else { return false };
    let builder = builder.program("mdadm").module("raid1");
    let mut guest = disks
        .iter()
        .zip(["FIRST", "SECOND"])
        .fold(builder, |all, (disk, serial)| all.disk(disk, Disk::Virtio, serial))
        .boot();
    for (number, version, name) in MEMBERS {
        let nodes = ["a", "b"].map(|disk| format!("/dev/vd{disk}{number}"));
        nodes.iter().for_each(|node| guest.expect_node(node));
        let room = if version == "1.2" { "--data-offset=1M" } else { "" };
        guest.sh(&format!(
            "mdadm --create /dev/md{number} --run --level=1 --raid-devices=2 --metadata={version} {room} --bitmap=none \
             --assume-clean --homehost=server1 --name={name} {} 2>&1 && mdadm --detail /dev/md{number} && \
             mdadm --stop /dev/md{number} 2>&1",
            nodes.join(" ")
        ));
    }
    guest.end();
    true
}
