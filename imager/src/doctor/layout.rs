//! What lies where: system and data apart, logs and data apart, room to repair.

use super::design::{Design, Part};
use super::{Finding, Level, Tree};
use imager_disk::System;
use imager_image::manifest::Role;
use imager_units::ByteLen;
use std::collections::BTreeSet;
use std::path::Path;

/// Where servers keep what changes, and what it is.
const DATA: [(&str, &str); 14] = [
    ("/var/lib/postgresql", "PostgreSQL's databases"),
    ("/var/lib/pgsql", "PostgreSQL's databases"),
    ("/var/lib/mysql", "MySQL's or MariaDB's databases"),
    ("/var/lib/mongodb", "MongoDB's databases"),
    ("/var/lib/ldap", "the directory of OpenLDAP"),
    ("/var/lib/samba/sysvol", "the domain's files"),
    ("/var/lib/libvirt/images", "disks of virtual machines"),
    ("/var/lib/docker/volumes", "volumes of containers"),
    ("/var/lib/containers/storage/volumes", "volumes of containers"),
    ("/var/vmail", "mail"),
    ("/var/mail", "mail"),
    ("/var/www", "web sites"),
    ("/srv", "what the server serves"),
    ("/home", "people's files"),
];

/// Databases: where the data lies, and where its log, below a folder that may have any number of clusters.
const LOGS: [(&str, &str, &str); 3] = [
    ("PostgreSQL", "/var/lib/postgresql/*/*/base", "/var/lib/postgresql/*/*/pg_wal"),
    ("PostgreSQL", "/var/lib/pgsql/*/data/base", "/var/lib/pgsql/*/data/pg_wal"),
    ("MariaDB", "/var/lib/mysql/mysql", "/var/lib/mysql/ib_logfile0"),
];

/// A system volume with less room than this, and less than this part of its size, is hard to repair.
const ROOM: ByteLen = ByteLen::new(2 << 30);
const ROOM_PART: u64 = 10;
/// What building an initramfs anew takes beside the one that is there.
const BOOT_ROOM: ByteLen = ByteLen::new(128 << 20);
/// What writing a boot loader anew takes.
const ESP_ROOM: ByteLen = ByteLen::new(8 << 20);

/// Looks at how volumes are laid out.
pub(super) fn examine(design: &Design, tree: Option<&Tree>) -> Vec<Finding> {
    let mut findings = vec![separate(design)];
    findings.extend(disks_apart(design));
    if let Some(tree) = tree {
        findings.extend(misplaced(design, tree));
        findings.extend(logs_apart(tree));
    }
    findings.extend(room(design));
    findings
}

fn names<'a>(parts: impl Iterator<Item = &'a Part>) -> String {
    parts.map(Part::said).collect::<Vec<_>>().join(", ")
}

fn separate(design: &Design) -> Finding {
    const CHECK: &str = "data-apart";
    let data = names(design.of_role(Role::Data));
    if !data.is_empty() {
        return Finding::good(CHECK, format!("data has volumes of its own: {data}"));
    }
    Finding::new(
        Level::Warning,
        CHECK,
        "no volume counts as data: whatever this machine serves lies on the operating system's volumes",
        "a recovery puts these back as they were captured, and what came since is lost with them",
        "give data a volume of its own, mounted outside the system (such as /srv) by a line of /etc/fstab with its UUID; \
         or say --role KEY=data to captures",
    )
}

/// What is not replaced by another disk when one dies.
fn disks_apart(design: &Design) -> Option<Finding> {
    const CHECK: &str = "disks-apart";
    let system: BTreeSet<u32> = design
        .of_role(Role::Os)
        .filter(|part| !part.is_mirrored())
        .flat_map(|part| part.disks.clone())
        .collect();
    let mut data = design.of_role(Role::Data).peekable();
    data.peek()?;
    let shared = names(data.filter(|part| !part.is_mirrored() && !part.disks.is_disjoint(&system)));
    if shared.is_empty() {
        return Some(Finding::good(CHECK, "no single disk holds both the system and data"));
    }
    Some(Finding::new(
        Level::Advice,
        CHECK,
        format!("on one disk with the operating system: {shared}"),
        "one dead disk takes both, and the half hour is for the system alone: data comes back by its own backup",
        "put data on disks of its own, or mirror the disk",
    ))
}

/// Data on the system's volumes.
fn misplaced(design: &Design, tree: &Tree) -> Vec<Finding> {
    const CHECK: &str = "data-on-system";
    let data: BTreeSet<_> =
        design.of_role(Role::Data).filter_map(|part| tree.filesystem_of(&part.name)).collect();
    let system: BTreeSet<_> =
        design.of_role(Role::Os).filter_map(|part| tree.filesystem_of(&part.name)).collect();
    let is_misplaced = |(folder, _): &&(&str, &str)| {
        let on = tree.filesystem_of(folder);
        tree.is_filled(folder) && on.is_some_and(|on| system.contains(&on) && !data.contains(&on))
    };
    let finding = |(folder, what): &(&str, &str)| {
        Finding::new(
            Level::Warning,
            CHECK,
            format!("{folder} ({what}) lies on the operating system's volume"),
            "a recovery of the system puts it back as of the capture: what was written since is gone",
            format!(
                "move {folder} to a data volume, or keep its own backup and know that it comes after the recovery"
            ),
        )
    };
    DATA.iter().filter(is_misplaced).map(finding).collect()
}

/// Databases whose log would die with their data.
fn logs_apart(tree: &Tree) -> Vec<Finding> {
    const CHECK: &str = "logs-apart";
    let mut findings = Vec::new();
    for (database, data, log) in LOGS {
        for (data, log) in expand(tree, data).into_iter().zip(expand(tree, log)) {
            let (Some(under_data), Some(under_log)) = (beneath(tree, &data), beneath(tree, &log)) else {
                continue;
            };
            findings.push(if under_data.is_disjoint(&under_log) {
                Finding::good(CHECK, format!("{database}'s data and log are on different devices ({data}, {log})"))
            } else {
                Finding::new(
                    Level::Advice,
                    CHECK,
                    format!("{database}'s data ({data}) and its log ({log}) are on one device"),
                    "with the log elsewhere, the newest changes outlive a dead data disk: the last backup and the log give \
                     back everything",
                    "put the log on a device of its own",
                )
            });
        }
    }
    findings
}

/// The devices under a path.
fn beneath(tree: &Tree, path: &str) -> Option<BTreeSet<String>> {
    let path = tree.resolved(path)?;
    let devices = System::new().backs_path(Path::new(&path)).ok()?;
    Some(devices.iter().map(ToString::to_string).collect()).filter(|set: &BTreeSet<_>| !set.is_empty())
}

/// The paths that a pattern fits, in order; `*` is any one name.
fn expand(tree: &Tree, pattern: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in pattern.trim_start_matches('/').split('/') {
        let next = |path: &String| match part {
            "*" => tree.list(path),
            name => vec![format!("{path}/{name}")],
        };
        found = found.iter().flat_map(next).filter(|path| tree.resolved(path).is_some()).collect();
    }
    found
}

/// Volumes too full to be repaired.
fn room(design: &Design) -> Vec<Finding> {
    const CHECK: &str = "room";
    let mut findings = Vec::new();
    for part in &design.parts {
        let Some(free) = part.free_bytes else { continue };
        let least = match (part.role, part.filesystem.as_deref()) {
            (Role::Os, _) => ROOM.get().min(part.size_bytes / ROOM_PART),
            (Role::Boot, Some("fat12" | "fat16" | "fat32")) => ESP_ROOM.get(),
            (Role::Boot, Some("ext2" | "ext3" | "ext4" | "xfs" | "btrfs")) => BOOT_ROOM.get(),
            _ => continue,
        };
        if free < least {
            findings.push(Finding::new(
                Level::Warning,
                CHECK,
                format!("{} has {} free of {}", part.said(), ByteLen::new(free), ByteLen::new(part.size_bytes)),
                "a repair after a recovery (another kernel, an initramfs for other hardware, logs of what went wrong) needs \
                 room",
                format!("keep {} free there", ByteLen::new(least)),
            ));
        }
    }
    if findings.is_empty() && design.parts.iter().any(|part| part.free_bytes.is_some()) {
        findings.push(Finding::good(CHECK, "the system's volumes have room for a repair"));
    }
    findings
}
