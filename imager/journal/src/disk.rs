//! A disk as the kernel describes it in `/sys`: which it is, how large, and how much was written to it.

use imager_units::{ByteLen, Context, Error, ErrorKind, Result};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The unit in which the kernel counts, whatever the sector of the device.
pub(crate) const COUNTED_SECTOR_BYTES: u64 = 512;

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    name: String,
    number: (u32, u32),
    folder: PathBuf,
}

impl Disk {
    /// The disk whose node is at `node`.
    ///
    /// # Errors
    /// `Invalid` when that is no block device or a part of one; `NotFound`, `Io`.
    pub fn at_node(node: &Path) -> Result<Self> {
        let say = || format!("looking at {}", node.display());
        let metadata = fs::metadata(node).context(say)?;
        let raw = metadata.rdev();
        if !metadata.file_type().is_block_device() {
            let why = format!("{} is no block device; changes of files are not recorded", node.display());
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        Self::numbered(&format!("{}:{}", nix::sys::stat::major(raw), nix::sys::stat::minor(raw))).context(say)
    }

    /// The disk of this number (`8:16`).
    ///
    /// # Errors
    /// `Invalid` when it is a part of one; `NotFound`, `Io`.
    pub fn numbered(number: &str) -> Result<Self> {
        let folder = fs::canonicalize(format!("/sys/dev/block/{number}"))
            .context(|| format!("looking for disk {number}"))?;
        if folder.join("partition").exists() {
            let why = format!("{number} is a partition: changes are recorded of whole disks");
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        Self::in_folder(&folder)
    }

    /// Whether it is made of nothing else that a disk would be recorded as: no loop device, nothing of device mapper or md.
    pub fn is_of_its_own(&self) -> bool {
        let is_made = ["loop", "dm", "md", "bcache"].iter().any(|kind| self.has(kind));
        !is_made && !["loop", "zram", "ram"].iter().any(|kind| self.name.starts_with(kind))
    }

    /// The disk of this name (`sda`, `nvme0n1`).
    ///
    /// # Errors
    /// `NotFound` when there is none; `Io`.
    pub fn named(name: &str) -> Result<Self> {
        let folder = Path::new("/sys/block").join(name);
        Self::in_folder(&fs::canonicalize(&folder).context(|| format!("looking for disk {name}"))?)
    }

    pub(crate) fn in_folder(folder: &Path) -> Result<Self> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut disk = Self { name, number: (0, 0), folder: folder.to_owned() };
        let number = disk.attribute("dev").unwrap_or_default();
        let parts = number.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let bad = || Error::corrupt(format!("the number of disk {} is {number:?}", disk.name));
        disk.number = parts.ok_or_else(bad)?;
        Ok(disk)
    }

    /// The kernel's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's number for it.
    pub(crate) const fn number(&self) -> (u32, u32) {
        self.number
    }

    /// The trimmed text of an attribute; `None` when it is absent.
    pub(crate) fn attribute(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(name)).ok().map(|text| text.trim().to_owned())
    }

    /// Whether it has an attribute or folder of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    /// Its gauges, opened once: reading them later takes no memory and no path.
    pub(crate) fn gauges(&self) -> Result<Gauges> {
        let open_at = |path: PathBuf| File::open(&path).context(|| format!("opening {}", path.display()));
        let open = |name: &str| open_at(self.folder.join(name));
        let counters = self.counting().into_iter().map(|folder| open_at(folder.join("stat")));
        let stats = counters.collect::<Result<_>>()?;
        let inflight = self.counting().into_iter().map(|folder| open_at(folder.join("inflight")));
        let inflight = inflight.collect::<Result<_>>()?;
        Ok(Gauges { stats, inflight, size: open("size")?, sequence: open("diskseq")? })
    }

    /// The switch that turns on what [`Gauges::sectors`] needs, where it is off.
    pub(crate) fn counters_off(&self) -> Option<PathBuf> {
        let mut switches = self.counting().into_iter().map(|folder| folder.join("queue/iostats"));
        switches.find(|switch| fs::read_to_string(switch).is_ok_and(|text| text.trim() == "0"))
    }

    /// The folders of what the kernel counts by: older kernels count nothing of an NVMe disk with paths itself.
    fn counting(&self) -> Vec<PathBuf> {
        let paths = self.paths().map(|paths| paths.names);
        paths.map_or_else(
            || vec![self.folder.clone()],
            |names| names.iter().map(|name| Path::new("/sys/block").join(name)).collect(),
        )
    }

    /// The paths to which the requests of an NVMe disk go that may have several; `None` where they go to itself.
    pub(crate) fn paths(&self) -> Option<Paths> {
        let (subsystem, space) = self.name.strip_prefix("nvme")?.split_once('n')?;
        let (subsystem, space) = (subsystem.parse().ok()?, space.parse().ok()?);
        let is_path = |name: &str| {
            let rest = name.strip_prefix(&format!("nvme{subsystem}c"))?;
            let (controller, of) = rest.split_once('n')?;
            let is_number = !controller.is_empty() && controller.bytes().all(|byte| byte.is_ascii_digit());
            (is_number && of.parse() == Ok(space)).then_some(())
        };
        let entries = fs::read_dir("/sys/block").ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| !self.has("mq") && is_path(name).is_some()).collect();
        names.sort();
        (!names.is_empty()).then_some(Paths { subsystem, space, names })
    }
}

/// The paths of an NVMe disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) subsystem: u32,
    pub(crate) space: u32,
    pub(crate) names: Vec<String>,
}

/// What the kernel counts of a disk.
#[derive(Debug)]
pub(crate) struct Gauges {
    stats: Vec<File>,
    inflight: Vec<File>,
    size: File,
    sequence: File,
}

/// Sectors of 512 bytes whose writing or discarding was completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sectors {
    pub(crate) written: u64,
    pub(crate) discarded: u64,
}

impl Gauges {
    /// How much was written and discarded since the disk appeared (Documentation/block/stat.rst: fields 7 and 14).
    pub(crate) fn sectors(&self) -> Result<Sectors> {
        let mut sum = Sectors::default();
        for stat in &self.stats {
            let fields = numbers::<14>(stat)?;
            sum.written = sum.written.wrapping_add(fields[6]);
            sum.discarded = sum.discarded.wrapping_add(fields[13]);
        }
        Ok(sum)
    }

    /// How many writes and discards were handed to the driver and are not completed.
    pub(crate) fn in_flight(&self) -> Result<u64> {
        let mut sum = 0_u64;
        for inflight in &self.inflight {
            let [_reads, writes] = numbers(inflight)?;
            sum = sum.saturating_add(writes);
        }
        Ok(sum)
    }

    /// The size.
    pub(crate) fn size(&self) -> Result<ByteLen> {
        let [sectors] = numbers(&self.size)?;
        Ok(ByteLen::new(sectors.saturating_mul(COUNTED_SECTOR_BYTES)))
    }

    /// A number that no other disk of this start of the machine has, whatever its name.
    pub(crate) fn sequence(&self) -> Result<u64> {
        numbers(&self.sequence).map(|[number]| number)
    }
}

/// The first numbers of an attribute, without taking memory.
fn numbers<const N: usize>(file: &File) -> Result<[u64; N]> {
    let mut text = [0_u8; 512];
    let len = file.read_at(&mut text, 0).context(|| "reading what the kernel counts of a disk".to_owned())?;
    let text = text.get(..len).unwrap_or_default();
    let mut words = text.split(|byte| !byte.is_ascii_digit()).filter(|word| !word.is_empty());
    let mut found = [0; N];
    for number in &mut found {
        let word = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        *number = word.ok_or_else(|| Error::corrupt("the kernel counts too little of a disk"))?;
    }
    Ok(found)
}
