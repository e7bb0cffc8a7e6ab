//! NTFS.
//!
//! The map is the bits of `$Bitmap`, checked against every cluster that the master file table names, and everything
//! behind the last cluster: the copy of the boot sector lies in the partition's last sector, which no cluster has.
//! The table's first records must be what their copy (`$MFTMirr`) says.
//!
//! A volume is whole unless it was left in order: not marked in use or by chkdsk, its log closed, no Windows hibernated
//! on it. Otherwise the log or a Windows that will go on may know of allocations that `$Bitmap` does not have. Nothing
//! is ever repaired: the image is the volume as it was.

mod boot;
mod files;
mod hibernation;
mod log;
mod map;
mod record;
mod runs;
mod stream;
#[cfg(test)]
mod tests;

use crate::bytes::Bytes;
use crate::read::{read, read_if_inside};
use crate::{Filesystem, State, UsedBlocks, UsedMap};
use boot::{BOOT_BYTES, BootSector, Layout};
pub(crate) use files::files;
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result};
use record::{Record, VOLUME_INFORMATION, VOLUME_NAME};
use stream::Table;

const LOGFILE: u64 = 2;
const VOLUME: u64 = 3;
/// The records of which there is a copy.
const MIRRORED: u64 = 4;
const VOLUME_IS_DIRTY: u16 = 0x0001;
const VOLUME_CHKDSK_UNDERWAY: u16 = 0x4000;

/// NTFS, all versions.
#[derive(Clone, Copy, Debug)]
pub struct Ntfs;

impl UsedBlocks for Ntfs {
    fn probe(&self, volume: &dyn ReadAt) -> Result<Option<Filesystem>> {
        let Some(boot) = boot_sector(volume)? else { return Ok(None) };
        let size = volume.geometry().size;
        let mut filesystem = Filesystem {
            kind: "ntfs",
            uuid: Some(boot.uuid()),
            label: None,
            block: volume.geometry().logical.as_len(),
            size: boot.size(),
            state: State::Unknown,
            head: boot.head(size),
        };
        match look(volume, &boot, &mut filesystem) {
            Err(error) if error.kind() == ErrorKind::Io => return Err(error),
            Err(error) => filesystem.state = State::Dirty(error.to_string()),
            Ok(()) => {}
        }
        Ok(Some(filesystem))
    }

    fn used(&self, volume: &dyn ReadAt) -> Result<UsedMap> {
        let boot = boot_sector(volume)?.ok_or_else(|| Error::corrupt("there is no NTFS boot sector"))?;
        let layout = Layout::new(&boot, volume.geometry().size)?;
        let table = Table::open(volume, &layout)?;
        if let State::Dirty(why) = state(volume, &table)? {
            return Err(Error::corrupt(why));
        }
        map::map(volume, &table)
    }
}

fn boot_sector(volume: &dyn ReadAt) -> Result<Option<BootSector>> {
    let bytes = read_if_inside(volume, 0, BOOT_BYTES)?;
    Ok(bytes.as_deref().and_then(BootSector::parse))
}

/// Fills in what lies behind the boot sector.
fn look(volume: &dyn ReadAt, boot: &BootSector, filesystem: &mut Filesystem) -> Result<()> {
    let layout = Layout::new(boot, volume.geometry().size)?;
    filesystem.block = ByteLen::new(layout.cluster_bytes);
    let table = Table::open(volume, &layout)?;
    filesystem.label = label(&table.record(VOLUME)?)?;
    filesystem.state = state(volume, &table)?;
    Ok(())
}

fn label(record: &Record) -> Result<Option<String>> {
    let name = record.find(VOLUME_NAME, &[])?.and_then(|name| name.value());
    let units: Vec<u16> =
        name.unwrap_or_default().chunks_exact(2).filter_map(|unit| Bytes(unit).le16(0)).collect();
    Ok(Some(String::from_utf16_lossy(&units)).filter(|label| !label.is_empty()))
}

/// Whether the volume was left in order, as far as its flags, its log and the master file table's copy tell.
fn state(volume: &dyn ReadAt, table: &Table<'_>) -> Result<State> {
    let record = table.record(VOLUME)?;
    let information = record.find(VOLUME_INFORMATION, &[])?.and_then(|information| information.value());
    let flags = information.and_then(|information| Bytes(information).le16(10));
    let flags = flags.ok_or_else(|| record.wrong("does not say in which state the volume is"))?;
    if flags & (VOLUME_IS_DIRTY | VOLUME_CHKDSK_UNDERWAY) != 0 {
        return Ok(State::Dirty("it was not unmounted, or has to be checked (marked dirty)".to_owned()));
    }
    check_mirror(volume, table)?;
    let log = log::state(table, &table.data_of(LOGFILE)?)?;
    if log == State::Clean && hibernation::is_hibernated(table)? {
        return Ok(State::Dirty("Windows is hibernated on it (hiberfil.sys)".to_owned()));
    }
    Ok(log)
}

/// As ntfs-3g, which refuses such a volume: what counts of the first records is the same in the copy.
fn check_mirror(volume: &dyn ReadAt, table: &Table<'_>) -> Result<()> {
    let layout = table.layout;
    let start = layout.extent(0, layout.mirror).end();
    for number in 0..MIRRORED {
        let from = start.saturating_add(ByteLen::new(number.saturating_mul(layout.record_bytes)));
        let bytes = read(volume, at(from, layout.record_bytes))?;
        let copy = Record::parse(number, bytes)?;
        let record = table.record(number)?;
        if copy.is_none_or(|copy| record.bytes() != copy.bytes()) {
            return Err(Error::corrupt(format!("file record {number} and its copy ($MFTMirr) differ")));
        }
    }
    Ok(())
}

fn at(start: ByteOffset, len: u64) -> Extent {
    Extent::between(start, start.saturating_add(ByteLen::new(len)))
}
