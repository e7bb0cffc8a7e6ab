//! Looking at disks: tables, volumes, filesystems and what each volume is for. Reads only.

mod arrays;
pub mod fstab;
mod groups;
mod members;
mod roles;
mod unread;

pub use unread::NO_FSTAB;

use crate::firmware::Facts;
use imager_disk::identity::DiskIdentity;
use imager_disk::table::{self, Entry, Table, TableKind};
use imager_disk::{Access, Device, Geometry, ReadAt, System, Window};
use imager_image::manifest::{Role, Stack};
use imager_units::{ByteLen, ByteOffset, Context, Error, ErrorKind, Extent, ExtentSet, Result, SectorSize};
use imager_volume::{Filesystem, Member, UsedMap};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A disk that was looked at.
pub struct Disk {
    /// Its number, from 1.
    pub number: u32,
    /// The disk, open for reading.
    pub device: Arc<dyn ReadAt>,
    /// Which one it is.
    pub identity: DiskIdentity,
    /// Its size and sectors.
    pub geometry: Geometry,
    /// How it is divided.
    pub table: Table,
}

/// A volume that was looked at.
pub struct Volume {
    /// The number of its disk.
    pub disk: u32,
    /// How the command line calls it.
    pub key: String,
    /// How a person knows it.
    pub name: String,
    /// Its partition; none for a whole disk.
    pub partition: Option<Entry>,
    /// Where it, or its first piece, lies on its disk.
    pub extent: Extent,
    /// All its pieces, in order.
    pub pieces: Vec<Piece>,
    /// Its bytes.
    pub bytes: Arc<dyn ReadAt>,
    /// Which device of its filesystem it is, where that has several.
    pub member: Option<Member>,
    /// The other volumes on which its filesystem lies, as far as they are here.
    pub companions: Vec<Arc<dyn ReadAt>>,
    /// What is on it.
    pub filesystem: Option<Filesystem>,
    /// What it is a part of.
    pub stack: Option<Stack>,
    /// The array that it holds a copy of, to look into.
    pub content: Option<Content>,
    /// What is known of its map beyond what it says itself.
    pub map: Option<UsedMap>,
    /// What it is for.
    pub role: Role,
    /// Why we think so.
    pub role_because: String,
}

/// A piece of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of its disk.
    pub disk: u32,
    /// Where on the disk.
    pub extent: Extent,
}

/// What an array of which a volume holds a copy has in it.
pub struct Content {
    /// Its bytes.
    pub bytes: Arc<dyn ReadAt>,
    /// What is on it.
    pub filesystem: Option<Filesystem>,
}

/// Everything seen.
pub struct Survey {
    /// The disks, by number.
    pub disks: Vec<Disk>,
    /// Their volumes, by disk and place.
    pub volumes: Vec<Volume>,
    /// Text files of the system found on them that say how it is put together.
    pub files: BTreeMap<String, String>,
    /// The firmware of the machine, where that is the one the disks belong to.
    pub firmware: Facts,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Roles a person assigned, by volume key.
pub type Assigned = BTreeMap<String, Role>;

/// A disk about to be looked at.
pub struct Source {
    /// The disk, open for reading.
    pub device: Arc<dyn ReadAt>,
    /// Which one it is.
    pub identity: DiskIdentity,
}

/// Opens a disk or image file to read. A file's sector size is found from its table unless given.
///
/// # Errors
/// `NotFound`, `Denied`, `Io` from the system.
pub fn open(path: &Path, sector: Option<SectorSize>) -> Result<Source> {
    let mut device = Device::open(path, Access::Read, sector)?;
    if !device.is_block()
        && sector.is_none()
        && let Some(found) = table::guess_sector_size(&device)?
    {
        device = Device::open(path, Access::Read, Some(found))?;
    }
    if device.is_block() {
        // A disk and its partitions have page caches of their own: what this one holds may be older than the disk.
        device.drop_cache(device.geometry().extent());
    }
    let identity = System::new().identity(&device)?;
    Ok(Source { device: Arc::new(device), identity })
}

/// Opens a disk to read what is on it now, whoever else writes to it: past the page cache.
///
/// # Errors
/// As [`open`]; `Unsupported` where it cannot be read so.
pub fn open_running(path: &Path, sector: Option<SectorSize>) -> Result<Source> {
    let device = Device::open(path, Access::ReadDirect, sector)?;
    if !device.is_direct() {
        let what = format!("{} cannot be read past the page cache", path.display());
        return Err(Error::new(ErrorKind::Unsupported, what));
    }
    let identity = System::new().identity(&device)?;
    Ok(Source { device: Arc::new(device), identity })
}

/// Looks at disks, numbered in the order given.
///
/// # Errors
/// `Corrupt` when a table contradicts itself; `Io`; `Invalid` when a role is assigned to a volume that is not there.
pub fn survey(sources: Vec<(u32, Source)>, assigned: &Assigned) -> Result<Survey> {
    let mut survey = Survey {
        disks: Vec::new(),
        volumes: Vec::new(),
        files: BTreeMap::new(),
        firmware: Facts::default(),
        warnings: Vec::new(),
    };
    for (number, source) in sources {
        survey.add(number, source)?;
    }
    arrays::look_into(&mut survey)?;
    groups::look_into(&mut survey)?;
    members::join(&mut survey)?;
    let told = roles::assign(&mut survey, assigned)?;
    let warning = unread::warning(&survey, &told);
    survey.warnings.extend(warning);
    Ok(survey)
}

impl Survey {
    fn add(&mut self, number: u32, source: Source) -> Result<()> {
        let Source { device, identity } = source;
        let say = || identity.path.display().to_string();
        let geometry = device.geometry();
        if geometry.size.is_zero() {
            return Err(Error::new(ErrorKind::Invalid, format!("{} is empty", say())));
        }
        let table = table::read(&*device).context(say)?;
        self.warnings.extend(table.warnings.iter().map(|warning| format!("disk {number}: {warning}")));
        let parts: Vec<_> = match table.kind {
            TableKind::None => vec![(None, geometry.extent())],
            _ => table.volumes().map(|entry| (Some(entry.clone()), entry.extent)).collect(),
        };
        for (partition, extent) in parts {
            let key = volume_key(number, partition.as_ref().map_or(0, |p| p.number));
            let bytes: Arc<dyn ReadAt> = Arc::new(Window::part(Arc::clone(&device), extent)?);
            let filesystem = self.probe(&key, &*bytes)?;
            let name = name_of(&key, filesystem.as_ref(), partition.as_ref());
            self.volumes.push(Volume {
                disk: number,
                key,
                name,
                partition,
                extent,
                pieces: vec![Piece { disk: number, extent }],
                bytes,
                member: None,
                companions: Vec::new(),
                filesystem,
                stack: None,
                content: None,
                map: None,
                role: Role::Os,
                role_because: String::new(),
            });
        }
        self.disks.push(Disk { number, device, identity, geometry, table });
        Ok(())
    }

    /// What is on a volume. One bad sector must not keep a whole machine from being captured.
    fn probe(&mut self, key: &str, bytes: &dyn ReadAt) -> Result<Option<Filesystem>> {
        match imager_volume::probe(bytes) {
            Err(error) if error.kind() == ErrorKind::Io => {
                let why = imager_volume::chain(&error);
                self.warnings.push(format!("volume {key} could not be read to see what is on it: {why}"));
                Ok(None)
            }
            probed => probed.context(|| format!("volume {key}")),
        }
    }

    /// The volume that a person calls `key`: its key, or a UUID or label that is unique.
    ///
    /// # Errors
    /// `Invalid` when there is none or more than one.
    pub fn volume(&self, key: &str) -> Result<&Volume> {
        let by = |matches: &dyn Fn(&Volume) -> bool| {
            self.volumes.iter().filter(|v| matches(v)).collect::<Vec<_>>()
        };
        let named = |volume: &Volume| {
            let filesystem = volume.filesystem.as_ref();
            let uuid = filesystem.and_then(|f| f.uuid.as_deref());
            let part = volume.partition.as_ref().and_then(|p| p.unique_id.as_deref());
            let label = filesystem.and_then(|f| f.label.as_deref());
            [uuid, part].into_iter().flatten().any(|id| id.eq_ignore_ascii_case(key)) || label == Some(key)
        };
        let (by_key, by_name) = (by(&|v| v.key == key), by(&named));
        match (by_key.as_slice(), by_name.as_slice()) {
            ([volume], _) | ([], [volume]) => Ok(volume),
            _ => {
                let keys: Vec<_> = self.volumes.iter().map(|v| v.key.as_str()).collect();
                let what = if by_name.is_empty() { "no volume" } else { "more than one volume" };
                let message = format!("{what} is called {key:?}; the volumes are {}", keys.join(", "));
                Err(Error::new(ErrorKind::Invalid, message))
            }
        }
    }
}

impl Volume {
    /// Its size.
    pub fn size(&self) -> ByteLen {
        self.bytes.geometry().size
    }

    /// The filesystem that its system mounts: its own, or the one in the array it holds a copy of.
    pub fn mounted(&self) -> Option<&Filesystem> {
        self.content.as_ref().map_or(self.filesystem.as_ref(), |content| content.filesystem.as_ref())
    }

    /// What it is a part of: the devices of one filesystem, and the members of one array, are one thing.
    fn thing(&self) -> &str {
        match (&self.stack, &self.member) {
            (Some(Stack::Member { array, .. }), _) => array,
            (_, Some(member)) if self.is_of_one_set() => &member.set,
            _ => &self.key,
        }
    }

    /// Whether all devices of its filesystem are here, and each once.
    fn is_of_one_set(&self) -> bool {
        let here = u64::try_from(self.companions.len()).ok().and_then(|others| others.checked_add(1));
        self.member.as_ref().is_some_and(|member| here == Some(member.of))
    }

    /// Whether a person said what it is for.
    fn is_told(&self) -> bool {
        self.role_because == roles::TOLD
    }

    /// The bytes of it that count: all, if what says so cannot be read.
    ///
    /// # Errors
    /// Those of the disk, but for `Io`.
    pub fn used(&self) -> Result<UsedMap> {
        if let Some(map) = &self.map {
            return Ok(map.clone());
        }
        let companions: Vec<_> = self.companions.iter().map(|bytes| &**bytes).collect();
        match imager_volume::used_with(&*self.bytes, &companions) {
            Err(error) if error.kind() == ErrorKind::Io => {
                let why = format!("its used map cannot be read: {}", imager_volume::chain(&error));
                Ok(UsedMap::whole(self.size(), why))
            }
            used => used.context(|| format!("volume {}", self.key)),
        }
    }
}

impl Disk {
    /// Every byte outside its volumes.
    pub fn remainder(&self) -> ExtentSet {
        match self.table.kind {
            TableKind::None => ExtentSet::new(),
            _ => self
                .table
                .covered()
                .complement(Extent::between(ByteOffset::ZERO, ByteOffset::new(self.geometry.size.get()))),
        }
    }
}

/// How the command line calls a volume: `N` on the first disk, `D:N` on another.
pub fn volume_key(disk: u32, number: u32) -> String {
    if disk == 1 { number.to_string() } else { format!("{disk}:{number}") }
}

fn name_of(key: &str, filesystem: Option<&Filesystem>, partition: Option<&Entry>) -> String {
    filesystem
        .and_then(|f| f.label.clone())
        .or_else(|| partition.and_then(|p| p.name.clone()))
        .unwrap_or_else(|| key.to_owned())
}
