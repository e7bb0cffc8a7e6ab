//! What was written to a device, by the kernel's own count.
//!
//! A restore proves by these that it wrote nothing else: after it, each untouched partition's count is what it was, and
//! the disk's has risen by just what was planned. Documentation/block/stat.rst names the fields.

use crate::system::text;
use crate::{DeviceNumber, System};
use imager_units::{ByteLen, Error, ErrorKind, Result};

/// The unit in which the kernel counts, whatever the sector of the device.
const COUNTED_SECTOR_BYTES: u64 = 512;

/// How often and how much a device was written since it appeared; a partition's also count for its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteCounters {
    /// Writes that were completed.
    pub writes: u64,
    /// What they wrote, zeros by command included.
    pub written: ByteLen,
    /// Discards that were completed.
    pub discards: u64,
    /// What they discarded.
    pub discarded: ByteLen,
}

impl WriteCounters {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            writes: self.writes.wrapping_sub(earlier.writes),
            written: self.written.saturating_sub(earlier.written),
            discards: self.discards.wrapping_sub(earlier.discards),
            discarded: self.discarded.saturating_sub(earlier.discarded),
        }
    }

    /// Whether nothing was written and nothing discarded.
    pub fn is_nothing(self) -> bool {
        self.writes == 0 && self.discards == 0 && self.written.is_zero() && self.discarded.is_zero()
    }
}

impl System {
    /// The counters of a disk or partition.
    ///
    /// # Errors
    /// `NotFound` when there is no such device; `Unsupported` when its statistics are switched off.
    pub fn write_counters(&self, device: DeviceNumber) -> Result<WriteCounters> {
        let switch = self.disk_folder(device)?.join("queue/iostats");
        if text(&switch).as_deref() == Some("0") {
            return Err(Error::unsupported(format!(
                "the statistics of {device} are off ({})",
                switch.display()
            )));
        }
        let path = self.folder(device)?.join("stat");
        let stat = text(&path).unwrap_or_default();
        let fields: Vec<u64> = stat.split(' ').map_while(|field| field.parse().ok()).collect();
        let field = |number: usize| fields.get(number).copied();
        let bytes = |sectors: u64| ByteLen::new(sectors.saturating_mul(COUNTED_SECTOR_BYTES));
        match (field(4), field(6)) {
            (Some(writes), Some(sectors)) => Ok(WriteCounters {
                writes,
                written: bytes(sectors),
                // Kernels before 4.18 end before these and discard as writes.
                discards: field(11).unwrap_or(0),
                discarded: bytes(field(13).unwrap_or(0)),
            }),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                format!("{} has too few fields: {stat:?}", path.display()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::System;
    use imager_units::{ByteLen, ErrorKind};
    use std::fs;

    #[test]
    fn fields_are_those_of_the_kernels_documentation() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sys/dev/block/8:0");
        fs::create_dir_all(folder.join("queue")).unwrap();
        let system = System::below(root.path());
        let (disk, stat) = ("8:0".parse().unwrap(), folder.join("stat"));
        fs::write(&stat, "  10 11   12 13   14 15   16 17 0 19 20  21 22   23 24 25 26\n").unwrap();
        let counters = system.write_counters(disk).unwrap();
        assert_eq!((counters.writes, counters.written), (14, ByteLen::new(16 * 512)));
        assert_eq!((counters.discards, counters.discarded), (21, ByteLen::new(23 * 512)));
        assert!(counters.since(counters).is_nothing());
        fs::write(&stat, "1 2 3 4 5 6 7 8 9 10 11\n").unwrap();
        assert_eq!(system.write_counters(disk).unwrap().written, ByteLen::new(7 * 512));
        fs::write(&stat, "1 2 3\n").unwrap();
        assert_eq!(system.write_counters(disk).unwrap_err().kind(), ErrorKind::Unsupported);
        fs::write(folder.join("queue/iostats"), "0\n").unwrap();
        assert!(system.write_counters(disk).unwrap_err().to_string().contains("off"));
    }
}
