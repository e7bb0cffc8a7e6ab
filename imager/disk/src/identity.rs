//! Which disk it is: model, serial number, WWN, size.
//!
//! Kernel names change between boots and machines, so a person confirms a disk, and a later capture recognises it, by
//! what the disk says of itself. Each kind of disk says it elsewhere in sysfs; udev's database fills the gaps. All of it is
//! what firmware wrote, and is made printable before it is shown or compared.

use crate::system::{folders, leaf, number, printable, text};
use crate::{Device, DeviceNumber, ReadAt, System};
use imager_units::{ByteLen, ByteOffset, Context, Error, ErrorKind, Extent, Result, SectorSize};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The unit of `start` and `size` in sysfs, whatever the sector of the disk.
const SYSFS_SECTOR: SectorSize = SectorSize::B512;

/// The header of the vital product data page 0x80 (SPC-4, 7.8.14), which is followed by the serial number.
const VPD_HEADER_BYTES: usize = 4;

/// What a disk says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskIdentity {
    /// Its path, symbolic links resolved.
    pub path: PathBuf,
    /// Vendor and model, or what kind of device it is; `file` for a regular file. A partition has its disk's.
    pub model: String,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its world-wide name, as the kernel writes it (`naa.…`, `eui.…`, `t10.…`).
    pub wwn: Option<String>,
    /// Its size.
    pub size: ByteLen,
    /// The kernel's name for it; regular files have none.
    pub kernel_name: Option<String>,
}

/// A partition as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table.
    pub number: u32,
    /// Its node.
    pub path: PathBuf,
    /// The bytes of the disk that it is.
    pub extent: Extent,
    /// The kernel's number for it.
    pub device: DeviceNumber,
    /// The kernel's name for it.
    pub kernel_name: String,
}

impl System {
    /// What an open disk says of itself.
    ///
    /// # Errors
    /// `NotFound`, `Io` when the kernel knows nothing of it.
    pub fn identity(&self, device: &Device) -> Result<DiskIdentity> {
        let path = device.path();
        let path = fs::canonicalize(path).context(|| format!("resolving {}", path.display()))?;
        let size = device.geometry().size;
        let Some(number) = device.number() else {
            return Ok(DiskIdentity {
                path,
                model: "file".to_owned(),
                serial: None,
                wwn: None,
                size,
                kernel_name: None,
            });
        };
        let disk = self.disk_folder(number)?;
        let sources = Sources::new(self, &disk);
        let (model, serial, wwn) = (sources.model(), sources.serial(), sources.wwn());
        Ok(DiskIdentity { path, model, serial, wwn, size, kernel_name: Some(self.kernel_name(number)?) })
    }

    /// The path of the disk that a person named: by a path, `serial:X`, or `wwn:X`.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Invalid` when there are several; both name the disks there are.
    pub fn find(&self, selector: &str) -> Result<PathBuf> {
        let candidates =
            || self.disks().map(|disks| disks.iter().map(|disk| self.describe(disk)).collect::<Vec<_>>());
        let wanted = |matches: &dyn Fn(&Sources) -> bool| -> Result<Vec<PathBuf>> {
            let disks = self.disks()?;
            Ok(disks.into_iter().filter(|disk| matches(&Sources::new(self, disk))).collect())
        };
        let found = match selector.split_once(':') {
            Some(("serial", serial)) => wanted(&|disk| same(disk.serial(), serial, str::to_owned))?,
            Some(("wwn", wwn)) => wanted(&|disk| same(disk.wwn(), wwn, bare_wwn))?,
            _ => {
                return fs::canonicalize(selector).map_err(|error| {
                    let disks = candidates().unwrap_or_default().join(", ");
                    Error::io(format!("looking for {selector} (disks here: {disks})"), error)
                });
            }
        };
        match found.as_slice() {
            [disk] => Ok(self.node(&leaf(disk))),
            [] => {
                let what = format!("no disk has {selector} (disks here: {})", candidates()?.join(", "));
                Err(Error::new(ErrorKind::NotFound, what))
            }
            several => {
                let several: Vec<_> = several.iter().map(|disk| self.describe(disk)).collect();
                Err(Error::new(ErrorKind::Invalid, format!("{selector} fits {}", several.join(" and "))))
            }
        }
    }

    /// The partitions of a disk in the order of their numbers; none, when `disk` is itself a partition.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `Corrupt` when the kernel's description is not there or makes no sense.
    pub fn partitions(&self, disk: DeviceNumber) -> Result<Vec<Partition>> {
        let mut partitions = Vec::new();
        for folder in partition_folders(&self.folder(disk)?)? {
            let bytes = |attribute: &str| -> Result<ByteLen> {
                let path = folder.join(attribute);
                let sectors = SYSFS_SECTOR.len_of(number(&path)?);
                sectors.ok_or_else(|| Error::corrupt(format!("{} is too large", path.display())))
            };
            let start = ByteOffset::new(bytes("start")?.get());
            let extent = Extent::new(start, bytes("size")?)
                .ok_or_else(|| Error::corrupt(format!("{} ends past 2^64", folder.display())))?;
            let kernel_name = leaf(&folder);
            partitions.push(Partition {
                number: number(&folder.join("partition"))?,
                path: self.node(&kernel_name),
                extent,
                device: number(&folder.join("dev"))?,
                kernel_name,
            });
        }
        partitions.sort_by_key(|partition| partition.number);
        Ok(partitions)
    }

    fn describe(&self, disk: &Path) -> String {
        let sources = Sources::new(self, disk);
        let serial = sources.serial().map(|serial| format!(" serial:{serial}")).unwrap_or_default();
        let wwn = sources.wwn().map(|wwn| format!(" wwn:{wwn}")).unwrap_or_default();
        format!("{} ({}{serial}{wwn})", self.node(&leaf(disk)).display(), sources.model())
    }
}

/// The folders of a disk's partitions.
pub(crate) fn partition_folders(disk: &Path) -> Result<Vec<PathBuf>> {
    let mut inside = folders(disk)?;
    inside.retain(|folder| folder.parent() == Some(disk) && folder.join("partition").exists());
    Ok(inside)
}

/// Where a disk's identity may be written.
struct Sources<'a> {
    folder: &'a Path,
    /// udev's properties.
    udev: HashMap<String, String>,
}

impl<'a> Sources<'a> {
    fn new(system: &System, folder: &'a Path) -> Self {
        let database = text(&folder.join("dev")).map(|dev| system.at(&format!("run/udev/data/b{dev}")));
        let lines = database.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        let lines = String::from_utf8_lossy(&lines);
        let properties = lines.lines().filter_map(|line| line.strip_prefix("E:")?.split_once('='));
        let udev = properties.filter_map(|(key, value)| Some((key.to_owned(), printable(value.as_bytes())?)));
        Self { folder, udev: udev.collect() }
    }

    fn attribute(&self, path: &str) -> Option<String> {
        text(&self.folder.join(path))
    }

    fn property(&self, key: &str) -> Option<String> {
        self.udev.get(key).cloned()
    }

    fn model(&self) -> String {
        // "ATA" is what the kernel calls every SATA disk; some vendors begin the model with their name themselves.
        let vendor =
            self.attribute("device/vendor").filter(|vendor| vendor != "ATA" && !vendor.starts_with("0x"));
        let model = self.attribute("device/model").map(|model| match vendor {
            Some(vendor) if !model.starts_with(&vendor) => format!("{vendor} {model}"),
            _ => model,
        });
        model
            .or_else(|| self.attribute("device/name"))
            .or_else(|| self.attribute("md/level").map(|level| format!("md {level}")))
            .or_else(|| self.attribute("dm/name").map(|name| format!("dm {name}")))
            .or_else(|| self.property("ID_MODEL"))
            .or_else(|| self.usb("product"))
            .or_else(|| self.driver())
            .unwrap_or_else(|| "disk".to_owned())
    }

    /// What drives a disk without a model: `virtio` by its bus, `loop` or `zram` by its name.
    fn driver(&self) -> Option<String> {
        let bus = fs::canonicalize(self.folder.join("device/subsystem")).ok().map(|bus| leaf(&bus));
        let name = leaf(self.folder);
        bus.or_else(|| Some(name.trim_end_matches(|last: char| last.is_ascii_digit()).to_owned()))
    }

    fn serial(&self) -> Option<String> {
        self.attribute("serial")
            .or_else(|| self.attribute("device/serial"))
            .or_else(|| {
                let page = fs::read(self.folder.join("device/vpd_pg80")).ok()?;
                printable(page.get(VPD_HEADER_BYTES..)?)
            })
            .or_else(|| self.attribute("md/uuid"))
            .or_else(|| self.attribute("dm/uuid"))
            .or_else(|| self.property("ID_SCSI_SERIAL"))
            .or_else(|| self.property("ID_SERIAL_SHORT"))
            .or_else(|| self.usb("serial"))
    }

    /// What the USB device says in which the disk is: the nearest one above it, as udev's usb_id does. Without udev
    /// nothing else tells the serial number of most sticks. Those above that one are hubs and controllers.
    fn usb(&self, attribute: &str) -> Option<String> {
        let device = fs::canonicalize(self.folder.join("device")).ok()?;
        let usb = device.ancestors().find(|folder| folder.join("idVendor").exists())?;
        text(&usb.join(attribute))
    }

    fn wwn(&self) -> Option<String> {
        self.attribute("wwid")
            .or_else(|| self.attribute("device/wwid"))
            .or_else(|| self.property("ID_WWN_WITH_EXTENSION"))
            .or_else(|| self.property("ID_WWN"))
    }
}

/// Whether what a disk says is what a person typed, which may be in another case or have other spaces.
fn same(found: Option<String>, wanted: &str, form: impl Fn(&str) -> String) -> bool {
    let form = |text: &str| form(&text.to_ascii_lowercase());
    printable(wanted.as_bytes()).zip(found).is_some_and(|(wanted, found)| form(&wanted) == form(&found))
}

/// A world-wide name without what says its kind: the kernel writes `naa.5000…`, udev `0x5000…`.
fn bare_wwn(wwn: &str) -> String {
    let kinds = ["naa.", "eui.", "0x", "wwn-0x"];
    kinds.iter().find_map(|kind| wwn.strip_prefix(kind)).unwrap_or(wwn).to_owned()
}

#[cfg(test)]
mod tests;
