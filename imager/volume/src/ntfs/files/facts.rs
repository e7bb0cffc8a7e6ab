//! What is known of a file beside its content.
//!
//! ntfs-3g keeps links and devices of Linux as Interix did: files with the system flag and a magic word
//! (libntfs-3g/reparse.c, ntfs-3g's src/ntfs-3g_common.h `INTX_FILE`).

use super::super::record::{FILE_NAME, REPARSE_POINT, Record, STANDARD_INFORMATION};
use super::super::stream::Table;
use super::data::Data;
use super::name;
use super::reparse::{self, Reparse};
use crate::bytes::Bytes;
use crate::files::{Attributes, Kind, Time};
use imager_units::{ByteLen, Error, Result};

const SYSTEM: u32 = 0x0000_0004;
const OFFLINE: u32 = 0x0000_1000;
const RECALL_ON_OPEN: u32 = 0x0004_0000;
const RECALL_ON_DATA_ACCESS: u32 = 0x0040_0000;
const INTX_LINK: &[u8] = b"IntxLNK\x01";
const INTX_CHARACTER: &[u8] = b"IntxCHR\0";
const INTX_BLOCK: &[u8] = b"IntxBLK\0";
/// The longest link that ntfs-3g makes.
const MOST_INTX_BYTES: usize = 8192;
const FILE_NAME_DOS: u8 = 2;
const MOST_REPARSE_BYTES: u64 = 16 << 10;
/// From 1601 to 1970.
const EPOCH_SECONDS: i64 = 11_644_473_600;
const TICKS: i64 = 10_000_000;

/// What a file is instead of content.
pub(super) enum Special {
    Link(Vec<u8>),
    Device(Kind),
}

impl Special {
    pub(super) fn target(self) -> Option<Vec<u8>> {
        match self {
            Self::Link(target) => Some(target),
            Self::Device(_) => None,
        }
    }
}

/// What its record says of a file.
pub(super) struct Facts {
    number: u64,
    standard: Vec<u8>,
    reparse: Option<Reparse>,
    special: Option<Special>,
    folder: bool,
}

impl Facts {
    /// Reads it.
    pub(super) fn of(table: &Table<'_>, record: &Record) -> Result<Self> {
        let standard = table.resident(record, STANDARD_INFORMATION, &[])?;
        let standard = standard.ok_or_else(|| record.wrong("has no standard information"))?;
        let reparse = match table.value(record, REPARSE_POINT, &[], MOST_REPARSE_BYTES)? {
            Some(value) => Some(reparse::parse(&value)?),
            None => None,
        };
        let mut facts =
            Self { number: record.number, standard, reparse, special: None, folder: record.is_folder() };
        if facts.flags() & SYSTEM != 0 && !facts.folder && facts.reparse.is_none() {
            facts.special = special(table, record)?;
        }
        Ok(facts)
    }

    fn flags(&self) -> u32 {
        Bytes(&self.standard).le32(32).unwrap_or_default()
    }

    /// What it is instead of content; `None` where its data stream is what it holds.
    ///
    /// # Errors
    /// `Unsupported` when its content is kept in a way that is not known here.
    pub(super) fn stands_for(self) -> Result<Option<Special>> {
        let number = self.number;
        let elsewhere = |why: &str| Err(Error::unsupported(format!("file record {number} {why}")));
        match (&self.reparse, self.flags() & (OFFLINE | RECALL_ON_OPEN | RECALL_ON_DATA_ACCESS)) {
            (Some(Reparse::Elsewhere(why)), _) => elsewhere(why),
            (Some(Reparse::Cloud), flags) if flags != 0 => elsewhere("is kept in a cloud"),
            _ => Ok(match self.reparse {
                Some(Reparse::Link(target)) => Some(Special::Link(target)),
                _ => self.special,
            }),
        }
    }

    /// What `stat` says of it.
    pub(super) fn attributes(&self, table: &Table<'_>, record: &Record) -> Result<Attributes> {
        let (mut size, mut stored) = (0, 0);
        let kind = match (&self.reparse, &self.special) {
            (Some(Reparse::Link(target)), _) | (_, Some(Special::Link(target))) => {
                size = ByteLen::of(target).get();
                Kind::Link
            }
            (_, Some(Special::Device(kind))) => *kind,
            _ if self.folder => Kind::Folder,
            _ => {
                (size, stored) = sizes(table, record)?;
                Kind::File
            }
        };
        let links = table.values(record, FILE_NAME)?;
        let links = links.iter().filter(|name| Bytes(name).byte(65) != Some(FILE_NAME_DOS)).count();
        Ok(Attributes {
            kind,
            mode: None,
            owner: None,
            links: u32::try_from(links.max(1)).unwrap_or(u32::MAX),
            size: ByteLen::new(size),
            stored: ByteLen::new(stored),
            accessed: self.time(24),
            modified: self.time(8),
            changed: self.time(16),
        })
    }

    /// Tenths of microseconds since 1601.
    fn time(&self, at: usize) -> Time {
        let ticks = Bytes(&self.standard).array(at).map(i64::from_le_bytes).unwrap_or_default();
        let seconds = ticks.div_euclid(TICKS).saturating_sub(EPOCH_SECONDS);
        let rest = u32::try_from(ticks.rem_euclid(TICKS)).unwrap_or_default();
        Time { seconds, nanoseconds: rest.saturating_mul(100) }
    }
}

/// The size of the unnamed stream and what it takes. An encrypted one has a size too.
fn sizes(table: &Table<'_>, record: &Record) -> Result<(u64, u64)> {
    let Some(first) = table.first(record, super::DATA, &[])? else { return Ok((0, 0)) };
    let part = first.part(super::DATA, &[], 0)?;
    if let Some(value) = part.value() {
        return Ok((ByteLen::of(value).get(), 0));
    }
    let size = part.size().ok_or_else(|| record.wrong("has content without a length"))?;
    Ok((size, part.stored().unwrap_or(size)))
}

/// A link or device that ntfs-3g made.
fn special(table: &Table<'_>, record: &Record) -> Result<Option<Special>> {
    let Some(first) = table.first(record, super::DATA, &[])? else { return Ok(None) };
    let value = match first.part(super::DATA, &[], 0)? {
        part if part.is_encrypted() => return Ok(None),
        part => match part.value() {
            Some(value) => value.to_vec(),
            None => match Data::find(table, record, &[])? {
                Some(data) => data.beginning(table, MOST_INTX_BYTES)?,
                None => return Ok(None),
            },
        },
    };
    let number = |at| Bytes(&value).le64(at).and_then(|number| u32::try_from(number).ok());
    let device = |kind: fn(u32, u32) -> Kind| Some(Special::Device(kind(number(8)?, number(16)?)));
    Ok(if let Some(target) = value.strip_prefix(INTX_LINK) {
        Some(Special::Link(name::to_bytes(target)))
    } else if value.starts_with(INTX_CHARACTER) {
        device(Kind::Character)
    } else if value.starts_with(INTX_BLOCK) {
        device(Kind::Block)
    } else {
        None
    })
}
