//! Records of the master file table and the attributes in them.
//!
//! ntfs-3g, include/ntfs-3g/layout.h: `NTFS_RECORD`, `MFT_RECORD`, `ATTR_RECORD`. The last two bytes of every 512 of a
//! record were replaced when it was written, so a write that was cut short shows.

use super::boot::Layout;
use super::runs::{Run, decode};
use crate::bytes::Bytes;
use imager_units::{Error, Result};

const STRIDE: usize = 512;
const MFT_RECORD_IN_USE: u16 = 1;
const MFT_RECORD_IS_DIRECTORY: u16 = 2;
const ATTR_COMPRESSION_MASK: u16 = 0x00FF;
const ATTR_IS_ENCRYPTED: u16 = 0x4000;
const ATTR_END: u32 = 0xFFFF_FFFF;
/// A reference is a record's number in 48 bits and how often it was used before in 16.
const NUMBER_MASK: u64 = (1 << 48) - 1;

/// Attribute types.
pub(super) const STANDARD_INFORMATION: u32 = 0x10;
pub(super) const ATTRIBUTE_LIST: u32 = 0x20;
pub(super) const FILE_NAME: u32 = 0x30;
pub(super) const VOLUME_NAME: u32 = 0x60;
pub(super) const VOLUME_INFORMATION: u32 = 0x70;
pub(super) const DATA: u32 = 0x80;
pub(super) const INDEX_ROOT: u32 = 0x90;
pub(super) const INDEX_ALLOCATION: u32 = 0xA0;
pub(super) const BITMAP: u32 = 0xB0;
pub(super) const REPARSE_POINT: u32 = 0xC0;

/// The record that a reference names.
pub(super) fn number_of(reference: u64) -> u64 {
    reference & NUMBER_MASK
}

/// Checks and puts back the last two bytes of each 512; `None` when one does not fit or the array of them cannot be.
pub(super) fn fix(bytes: &mut [u8]) -> Option<()> {
    let b = Bytes(bytes);
    let (at, count) = (usize::from(b.le16(4)?), usize::from(b.le16(6)?));
    let strides = bytes.len().checked_div(STRIDE)?;
    if count != strides.checked_add(1)? || !bytes.len().is_multiple_of(STRIDE) || at & 1 != 0 {
        return None;
    }
    let array = b.slice(at, count.checked_mul(2)?)?.to_vec();
    // The array lies before the first bytes that it keeps.
    if at.checked_add(array.len())? > STRIDE.saturating_sub(2) {
        return None;
    }
    let (mark, kept) = array.split_first_chunk::<2>()?;
    for (stride, kept) in bytes.chunks_exact_mut(STRIDE).zip(kept.chunks_exact(2)) {
        let last = stride.last_chunk_mut::<2>()?;
        if last != mark {
            return None;
        }
        last.copy_from_slice(kept);
    }
    Some(())
}

/// A record that is in use.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) number: u64,
    bytes: Vec<u8>,
}

/// One attribute, or one part of it, in a record.
#[derive(Clone, Copy)]
pub(super) struct Attribute<'a> {
    pub(super) kind: u32,
    /// Its name in UTF-16.
    pub(super) name: &'a [u8],
    bytes: Bytes<'a>,
}

impl Record {
    /// Takes the bytes of record `number`; `None` when it is not in use, or never was.
    ///
    /// # Errors
    /// `Corrupt` when it is in use and was written in part, or says impossible sizes.
    pub(super) fn parse(number: u64, mut bytes: Vec<u8>) -> Result<Option<Self>> {
        let b = Bytes(&bytes);
        if b.is(0, b"BAAD") {
            return Err(Error::corrupt(format!("file record {number} was found damaged before")));
        }
        if !b.is(0, b"FILE") || b.le16(22).is_none_or(|flags| flags & MFT_RECORD_IN_USE == 0) {
            return Ok(None);
        }
        fix(&mut bytes).ok_or_else(|| Error::corrupt(format!("file record {number} was written in part")))?;
        let used = Bytes(&bytes).le32(24).and_then(|used| usize::try_from(used).ok());
        match used.filter(|&used| used <= bytes.len()) {
            Some(used) => bytes.truncate(used),
            None => return Err(Error::corrupt(format!("file record {number} is longer than it can be"))),
        }
        Ok(Some(Self { number, bytes }))
    }

    /// Everything in it that counts.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is a folder's.
    pub(super) fn is_folder(&self) -> bool {
        Bytes(&self.bytes).le16(22).is_some_and(|flags| flags & MFT_RECORD_IS_DIRECTORY != 0)
    }

    /// The record that this one continues; `None` for one that stands by itself.
    pub(super) fn base(&self) -> Option<u64> {
        Bytes(&self.bytes).le64(32).filter(|&base| base != 0).map(number_of)
    }

    /// Its attributes in order.
    ///
    /// # Errors
    /// `Corrupt` when one does not fit into the record.
    pub(super) fn attributes(&self) -> Result<Vec<Attribute<'_>>> {
        let mut found = Vec::new();
        self.walk(&mut found).ok_or_else(|| self.wrong("has attributes that do not fit"))?;
        Ok(found)
    }

    fn walk<'a>(&'a self, found: &mut Vec<Attribute<'a>>) -> Option<()> {
        let record = Bytes(&self.bytes);
        let mut at = usize::from(record.le16(20)?);
        while record.le32(at)? != ATTR_END {
            let len = usize::try_from(record.le32(at.checked_add(4)?)?).ok()?;
            let bytes = Bytes(record.slice(at, len).filter(|_| len >= 16)?);
            let name_bytes = usize::from(bytes.byte(9)?).checked_mul(2)?;
            let name = match name_bytes {
                0 => &[],
                _ => bytes.slice(usize::from(bytes.le16(10)?), name_bytes)?,
            };
            found.push(Attribute { kind: bytes.le32(0)?, name, bytes });
            at = at.checked_add(len)?;
        }
        Some(())
    }

    /// The first attribute or part of the kind and name.
    ///
    /// # Errors
    /// As [`Record::attributes`].
    pub(super) fn find(&self, kind: u32, name: &[u8]) -> Result<Option<Attribute<'_>>> {
        let attributes = self.attributes()?;
        Ok(attributes.into_iter().find(|attribute| attribute.kind == kind && attribute.name == name))
    }

    /// The part of the attribute that begins at its cluster `vcn`.
    ///
    /// # Errors
    /// `Corrupt` when it is not here.
    pub(super) fn part(&self, kind: u32, name: &[u8], vcn: u64) -> Result<Attribute<'_>> {
        let is_it =
            |part: &Attribute<'_>| part.kind == kind && part.name == name && part.lowest_vcn() == Some(vcn);
        let found = self.attributes()?.into_iter().find(is_it);
        found.ok_or_else(|| self.wrong("lacks a part of an attribute"))
    }

    /// What is wrong with this record.
    pub(super) fn wrong(&self, what: &str) -> Error {
        Error::corrupt(format!("file record {} {what}", self.number))
    }
}

impl<'a> Attribute<'a> {
    /// Whether its value lies in clusters rather than in the record.
    pub(super) fn is_outside(&self) -> bool {
        self.bytes.byte(8) != Some(0)
    }

    /// The value in the record.
    pub(super) fn value(&self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.bytes.le32(16)?).ok()?;
        self.bytes.slice(usize::from(self.bytes.le16(20)?), len).filter(|_| !self.is_outside())
    }

    /// The first cluster of the attribute that this part maps; 0 for a value in the record.
    pub(super) fn lowest_vcn(&self) -> Option<u64> {
        if self.is_outside() { self.bytes.le64(16) } else { Some(0) }
    }

    fn flags(&self) -> u16 {
        self.bytes.le16(12).unwrap_or_default()
    }

    /// Whether its clusters are compressed by units.
    pub(super) fn is_compressed(&self) -> bool {
        self.flags() & ATTR_COMPRESSION_MASK != 0
    }

    /// Whether its clusters are encrypted (EFS).
    pub(super) fn is_encrypted(&self) -> bool {
        self.flags() & ATTR_IS_ENCRYPTED != 0
    }

    /// How many clusters make a unit of compression. Only the first part says.
    pub(super) fn unit_clusters(&self) -> Option<u64> {
        let logarithm = self.bytes.byte(34).filter(|&logarithm| (1..=16).contains(&logarithm))?;
        1_u64.checked_shl(u32::from(logarithm))
    }

    /// How long the value is. Only the first part says.
    pub(super) fn size(&self) -> Option<u64> {
        self.bytes.le64(48)
    }

    /// How much the value takes on the volume. Only the first part says.
    pub(super) fn stored(&self) -> Option<u64> {
        if self.bytes.byte(34)? == 0 { self.bytes.le64(40) } else { self.bytes.le64(64) }
    }

    /// How many bytes of the value are there and were ever written. Only the first part says.
    pub(super) fn written(&self) -> Option<u64> {
        Some(self.bytes.le64(48)?.min(self.bytes.le64(56)?))
    }

    /// Calls `visit` with every run of this part.
    ///
    /// # Errors
    /// `Corrupt` when the runs are not what the part says to have; whatever `visit` returns.
    pub(super) fn runs(&self, layout: &Layout, visit: impl FnMut(Run) -> Result<()>) -> Result<()> {
        let wrong = || Error::corrupt("an attribute says wrongly which part of it this is");
        let pairs =
            self.bytes.le16(32).and_then(|at| self.bytes.0.get(usize::from(at)..)).ok_or_else(wrong)?;
        let (lowest, highest) =
            (self.bytes.le64(16).ok_or_else(wrong)?, self.bytes.le64(24).ok_or_else(wrong)?);
        let end = decode(pairs, lowest, layout, visit)?;
        // An empty attribute ends at cluster -1.
        if end == highest.wrapping_add(1) { Ok(()) } else { Err(wrong()) }
    }
}
