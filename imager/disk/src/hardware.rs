//! Whether a disk belongs to this machine: only then do facts about the machine belong to the disk.
//!
//! Whatever a driver found has a link `device` to it in sysfs. A loop device, a network block device or a RAM disk has
//! none: it stands for something that may come from anywhere. What is built on disks (md, device-mapper) is of this
//! machine if all of them are.

use crate::system::folders;
use crate::{Device, System};
use imager_units::Result;
use std::path::Path;

/// Devices on devices are no deeper than this.
const MOST_LEVELS: u32 = 16;

impl System {
    /// Whether an open disk is hardware of this machine, or built on such.
    ///
    /// # Errors
    /// `NotFound`, `Io` when the kernel knows nothing of it.
    pub fn is_hardware(&self, device: &Device) -> Result<bool> {
        match device.number() {
            None => Ok(false),
            Some(number) => is_hardware(&self.disk_folder(number)?, MOST_LEVELS),
        }
    }
}

fn is_hardware(disk: &Path, levels: u32) -> Result<bool> {
    if disk.join("device").exists() {
        return Ok(true);
    }
    let below = folders(&disk.join("slaves"))?;
    let mut all = !below.is_empty() && levels > 0;
    for part in below {
        // A partition lies in the folder of its disk.
        let disk = if part.join("partition").exists() { part.parent().unwrap_or(&part) } else { &part };
        all = all && is_hardware(disk, levels.saturating_sub(1))?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{MOST_LEVELS, is_hardware};
    use crate::system::described::Machine;

    #[test]
    fn what_stands_for_a_disk_is_none_of_this_machine() {
        let machine = Machine::new();
        machine.disk("sda", "8:0").partition("sda", 1, "8:1", 8, 8).disk("loop0", "7:0").disk("md0", "9:0");
        machine.disk("dm-0", "253:0").disk("dm-1", "253:1");
        machine.attribute("sda", "device/model", "Disk");
        machine.stack("sda/sda1", "md0").stack("md0", "dm-0").stack("loop0", "dm-1").stack("sda", "dm-1");
        let is =
            |name: &str| is_hardware(&machine.path(&format!("sys/devices/{name}")), MOST_LEVELS).unwrap();
        assert!(is("sda") && is("md0") && is("dm-0"));
        assert!(!is("loop0") && !is("dm-1"));
    }
}
