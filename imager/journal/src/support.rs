//! What the journal cannot follow, said before it starts: with the reason, and what there is to do.

use crate::disk::Disk;
use imager_units::{Error, ErrorKind, Result};
use std::fs;
use std::path::Path;

/// The oldest kernel whose events and structures are known.
const OLDEST: (u32, u32) = (6, 1);

/// Refuses where the changes of a disk cannot be recorded.
pub(crate) fn check(disk: &Disk) -> Result<()> {
    machine()?;
    let name = disk.name();
    let refused = |why: String| Err(Error::unsupported(why));
    let says = |attribute: &str| disk.attribute(attribute).unwrap_or_default();
    if !disk.has("mq") && disk.paths().is_none() {
        // Includes persistent memory, which programs may write past the block layer.
        return refused(match disk.attribute("dm/name").is_some() || disk.has("md") {
            true => format!("{name} is made of other disks: name those"),
            false => {
                format!("disk {name} takes no requests that could be followed (zram, persistent memory)")
            }
        });
    }
    if !matches!(says("queue/zoned").as_str(), "" | "none") {
        return refused(format!("disk {name} has zones, which choose themselves where a write lands"));
    }
    if let Some(switch) = disk.counters_off() {
        return refused(format!(
            "the statistics of disk {name} are off, against which the journal is checked: echo 1 > {}",
            switch.display()
        ));
    }
    Ok(())
}

/// The same for the machine as a whole.
fn machine() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(ErrorKind::Denied, "recording changes needs root"));
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if !is_new_enough(&release) {
        let (major, minor) = OLDEST;
        return Err(Error::unsupported(format!(
            "this kernel is {}; recording changes needs {major}.{minor} or newer",
            release.trim()
        )));
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(Error::unsupported(
            "this kernel does not describe its own types (CONFIG_DEBUG_INFO_BTF)",
        ));
    }
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return Err(Error::unsupported(
            "this kernel is locked down so that no program may look at it (lockdown=confidentiality)",
        ));
    }
    Ok(())
}

fn is_new_enough(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= OLDEST)
}

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn kernels_are_told_apart_by_numbers() {
        for (release, is) in [
            ("6.1.0-56-amd64", true),
            ("6.18.44", true),
            ("10.0", true),
            ("5.10.0-30-amd64", false),
            ("4.18.0-553.el8.x86_64", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(release), is, "{release}");
        }
    }
}
