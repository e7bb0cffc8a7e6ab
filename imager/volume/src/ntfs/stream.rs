//! Attributes as streams of bytes, and the master file table, which is one and holds the list of its own parts.
//!
//! An attribute with too many runs for one record continues in others; an attribute list in the first names them
//! (ntfs-3g, include/ntfs-3g/layout.h, `ATTR_LIST_ENTRY`). The table's own first part maps the records that its
//! other parts lie in, in order, so it is built up part by part.

use super::boot::Layout;
use super::record::{ATTRIBUTE_LIST, Attribute, DATA, Record, number_of};
use super::runs::Run;
use crate::bytes::Bytes;
use crate::read::read_into;
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, Extent, Result};
use std::borrow::Cow;

/// More runs than this of one attribute (24 MiB of memory) are not looked at.
const MOST_RUNS: usize = 1 << 20;
/// The most that Windows lets an attribute list grow to.
const MOST_LIST_BYTES: u64 = 256 << 10;
const LIST_ENTRY_BYTES: usize = 26;

/// An attribute's value that lies in clusters.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    pub(super) runs: Vec<Run>,
    /// How many of its bytes count: the value's length, but what was never written does not.
    pub(super) len: u64,
}

impl Stream {
    fn end(&self) -> u64 {
        self.runs.last().map_or(0, Run::end)
    }

    /// Adds the next part.
    fn append(&mut self, part: &Attribute<'_>, layout: &Layout) -> Result<()> {
        if part.lowest_vcn() != Some(self.end()) || !part.is_outside() {
            return Err(Error::corrupt("the parts of an attribute do not follow each other"));
        }
        let runs = &mut self.runs;
        part.runs(layout, |run| {
            if runs.len() >= MOST_RUNS {
                return Err(Error::unsupported("an attribute lies in more than a million pieces"));
            }
            runs.push(run);
            Ok(())
        })
    }

    /// The clusters of the volume that it lies in, as runs `from..to`.
    pub(super) fn clusters(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().filter_map(|run| run.lcn.map(|lcn| (lcn, lcn.saturating_add(run.len))))
    }

    /// Reads the `len` bytes at `at`, all of which must be there.
    ///
    /// # Errors
    /// `Corrupt` when they are behind the end, were never written or lie in a hole, `Io` when they cannot be read.
    pub(super) fn read(&self, volume: &dyn ReadAt, layout: &Layout, at: u64, len: u64) -> Result<Vec<u8>> {
        let end = at.saturating_add(len);
        if end > self.len {
            return Err(Error::corrupt("a structure is shorter than it must be"));
        }
        let (mut bytes, mut piece, mut at) = (Vec::new(), Vec::new(), at);
        while at < end {
            let extent = self.piece(layout, at, end)?;
            read_into(volume, extent, &mut piece)?;
            bytes.extend_from_slice(&piece);
            at = at.saturating_add(extent.len().get());
        }
        Ok(bytes)
    }

    /// The piece of the volume with the bytes from `at` on, up to the end of their run or to `end`.
    fn piece(&self, layout: &Layout, at: u64, end: u64) -> Result<Extent> {
        let vcn = at.checked_div(layout.cluster_bytes).unwrap_or_default();
        let after = self.runs.partition_point(|run| run.vcn <= vcn);
        let run = after.checked_sub(1).and_then(|place| self.runs.get(place)).filter(|run| vcn < run.end());
        let Some((run, lcn)) = run.and_then(|run| Some((run, run.lcn?))) else {
            return Err(Error::corrupt("a structure has a hole"));
        };
        let into = at.saturating_sub(run.vcn.saturating_mul(layout.cluster_bytes));
        let whole = layout.extent(lcn, lcn.saturating_add(run.len));
        let start = whole.start().saturating_add(ByteLen::new(into));
        let len = ByteLen::new(end.saturating_sub(at));
        let piece = Extent::between(start, start.saturating_add(len)).intersection(whole);
        if piece.is_empty() { Err(Error::corrupt("a structure ends too early")) } else { Ok(piece) }
    }
}

/// The master file table.
pub(super) struct Table<'a> {
    pub(super) volume: &'a dyn ReadAt,
    pub(super) layout: &'a Layout,
    pub(super) data: Cow<'a, Stream>,
}

impl<'a> Table<'a> {
    /// Finds all parts of the table.
    ///
    /// # Errors
    /// `Corrupt` when its records contradict each other, `Io` when they cannot be read.
    pub(super) fn open(volume: &'a dyn ReadAt, layout: &'a Layout) -> Result<Self> {
        let start = ByteOffset::new(layout.extent(0, layout.mft).len().get());
        let mut bytes = Vec::new();
        let extent = Extent::between(start, start.saturating_add(ByteLen::new(layout.record_bytes)));
        read_into(volume, extent, &mut bytes)?;
        let lost = || Error::corrupt("the master file table does not begin with its own record");
        let base = Record::parse(0, bytes)?.ok_or_else(lost)?;
        let mut table = Self { volume, layout, data: Cow::default() };
        let first = base.find(DATA, &[])?.ok_or_else(lost)?;
        table.data.to_mut().append(&first, layout)?;
        table.data.to_mut().len = first.written().ok_or_else(lost)?;
        if table.data.clusters().next().is_none_or(|(from, _)| from != layout.mft) {
            return Err(Error::corrupt("the master file table does not begin where the boot sector says"));
        }
        for (number, vcn) in table.parts(&base, DATA, &[])? {
            if vcn > 0 {
                let record = table.part(&base, number)?;
                table.data.to_mut().append(&record.part(DATA, &[], vcn)?, layout)?;
            }
        }
        Ok(table)
    }

    /// The table whose parts were found before.
    pub(super) fn over(volume: &'a dyn ReadAt, layout: &'a Layout, data: &'a Stream) -> Self {
        Self { volume, layout, data: Cow::Borrowed(data) }
    }

    /// How many records there are.
    pub(super) fn records(&self) -> u64 {
        self.data.len.checked_div(self.layout.record_bytes).unwrap_or_default()
    }

    /// Reads record `number`.
    ///
    /// # Errors
    /// `Corrupt` when it is not there or not in use, `Io` when it cannot be read.
    pub(super) fn record(&self, number: u64) -> Result<Record> {
        let len = self.layout.record_bytes;
        let at = number.checked_mul(len).ok_or_else(|| Error::corrupt("a file record is out of range"))?;
        let bytes = self.data.read(self.volume, self.layout, at, len)?;
        let record = Record::parse(number, bytes)?;
        record.ok_or_else(|| Error::corrupt(format!("file record {number} should be in use and is not")))
    }

    /// The attribute of the kind and name that `base` has, with all its parts; `None` when it has none, or one whose
    /// value lies in the record.
    ///
    /// # Errors
    /// `Corrupt` when its parts do not fit each other, `Io` when they cannot be read.
    pub(super) fn stream(&self, base: &Record, kind: u32, name: &[u8]) -> Result<Option<Stream>> {
        let mut stream = Stream::default();
        let mut parts = self.parts(base, kind, name)?;
        if parts.is_empty() && base.find(kind, name)?.is_some() {
            parts.push((base.number, 0));
        }
        let length = || base.wrong("has an attribute without a length");
        for &(number, vcn) in &parts {
            let record = self.part(base, number)?;
            let part = record.part(kind, name, vcn)?;
            if !part.is_outside() {
                return Ok(None);
            }
            if vcn == 0 {
                stream.len = part.written().ok_or_else(length)?;
            }
            stream.append(&part, self.layout)?;
        }
        Ok(Some(stream).filter(|_| !parts.is_empty()))
    }

    /// The value of an attribute that lies in a record, `base` or one that continues it; `None` when there is none.
    ///
    /// # Errors
    /// As [`Table::stream`].
    pub(super) fn resident(&self, base: &Record, kind: u32, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let elsewhere = match self.parts(base, kind, name)?.first() {
            Some(&(number, _)) => Some(self.part(base, number)?),
            None => None,
        };
        let found = elsewhere.as_ref().unwrap_or(base).find(kind, name)?;
        Ok(found.and_then(|found| found.value()).map(<[u8]>::to_vec))
    }

    /// The record in which the attribute begins, its own or another; `None` when there is no such attribute.
    ///
    /// # Errors
    /// As [`Table::stream`].
    pub(super) fn first(&self, base: &Record, kind: u32, name: &[u8]) -> Result<Option<Record>> {
        let record = match self.parts(base, kind, name)?.first() {
            Some(&(number, _)) => self.part(base, number)?,
            None => base.clone(),
        };
        Ok(if record.find(kind, name)?.is_some() { Some(record) } else { None })
    }

    /// The value of an attribute of at most `most` bytes, wherever it lies; `None` when there is none.
    ///
    /// # Errors
    /// `Corrupt` when it is longer; as [`Table::stream`].
    pub(super) fn value(&self, base: &Record, kind: u32, name: &[u8], most: u64) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.resident(base, kind, name)? {
            return Ok(Some(value));
        }
        let Some(stream) = self.stream(base, kind, name)? else { return Ok(None) };
        if stream.len > most {
            return Err(base.wrong("has an attribute that is too long"));
        }
        self.read(&stream, 0, stream.len).map(Some)
    }

    /// The values of all unnamed attributes of a kind that lie in records.
    ///
    /// # Errors
    /// As [`Table::stream`].
    pub(super) fn values(&self, base: &Record, kind: u32) -> Result<Vec<Vec<u8>>> {
        let mut numbers: Vec<u64> =
            self.parts(base, kind, &[])?.into_iter().map(|(number, _)| number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut values = Vec::new();
        let mut take = |record: &Record| -> Result<()> {
            let attributes = record.attributes()?;
            let values_of = attributes.iter().filter(|found| found.kind == kind && found.name.is_empty());
            values.extend(values_of.filter_map(Attribute::value).map(<[u8]>::to_vec));
            Ok(())
        };
        if numbers.is_empty() {
            take(base)?;
        }
        for number in numbers {
            take(&self.part(base, number)?)?;
        }
        Ok(values)
    }

    /// The names of all attributes of a kind.
    ///
    /// # Errors
    /// As [`Table::stream`].
    pub(super) fn names_of(&self, base: &Record, kind: u32) -> Result<Vec<Vec<u8>>> {
        match self.list(base)? {
            Some(list) => {
                names(Bytes(&list), kind).ok_or_else(|| base.wrong("has an attribute list that is cut off"))
            }
            None => {
                let attributes = base.attributes()?;
                let of_kind = attributes.iter().filter(|found| found.kind == kind);
                Ok(of_kind.map(|found| found.name.to_vec()).collect())
            }
        }
    }

    /// The unnamed data of record `number`, which must lie in clusters.
    ///
    /// # Errors
    /// As there.
    pub(super) fn data_of(&self, number: u64) -> Result<Stream> {
        let base = self.record(number)?;
        let stream = self.stream(&base, DATA, &[])?;
        stream.ok_or_else(|| base.wrong("has no data in clusters"))
    }

    /// Reads from a stream of this volume; see [`Stream::read`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn read(&self, stream: &Stream, at: u64, len: u64) -> Result<Vec<u8>> {
        stream.read(self.volume, self.layout, at, len)
    }

    /// The record `number`, which is `base` or continues it.
    fn part(&self, base: &Record, number: u64) -> Result<Record> {
        let record = self.record(number)?;
        let continues = record.base().is_some_and(|of| of == base.number);
        if continues || number == base.number {
            return Ok(record);
        }
        Err(base.wrong("names parts that are not its own"))
    }

    /// In which records the parts of an attribute lie and where in it they begin, in order; nothing for a base
    /// record that has no list.
    fn parts(&self, base: &Record, kind: u32, name: &[u8]) -> Result<Vec<(u64, u64)>> {
        let Some(entries) = self.list(base)? else { return Ok(Vec::new()) };
        let parts = parts(Bytes(&entries), kind, name);
        let mut parts = parts.ok_or_else(|| base.wrong("has an attribute list that is cut off"))?;
        parts.sort_unstable_by_key(|&(_, vcn)| vcn);
        Ok(parts)
    }

    /// The attribute list of a base record that has one.
    fn list(&self, base: &Record) -> Result<Option<Vec<u8>>> {
        let Some(list) = base.find(ATTRIBUTE_LIST, &[])? else { return Ok(None) };
        if let Some(value) = list.value() {
            return Ok(Some(value.to_vec()));
        }
        let mut stream = Stream::default();
        stream.append(&list, self.layout)?;
        stream.len = list.written().unwrap_or(u64::MAX);
        if stream.len > MOST_LIST_BYTES {
            return Err(base.wrong("has an attribute list that is too long"));
        }
        self.read(&stream, 0, stream.len).map(Some)
    }
}

/// The names that a list has for attributes of a kind, each as often as it has parts.
fn names(list: Bytes<'_>, kind: u32) -> Option<Vec<Vec<u8>>> {
    let (mut names, mut at) = (Vec::new(), 0_usize);
    while at < list.0.len() {
        let len = usize::from(list.le16(at.checked_add(4)?)?);
        let entry = Bytes(list.slice(at, len).filter(|_| len >= LIST_ENTRY_BYTES)?);
        if entry.le32(0)? == kind {
            let name_bytes = usize::from(entry.byte(6)?).checked_mul(2)?;
            names.push(entry.slice(usize::from(entry.byte(7)?), name_bytes)?.to_vec());
        }
        at = at.checked_add(len)?;
    }
    Some(names)
}

fn parts(list: Bytes<'_>, kind: u32, name: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (mut parts, mut at) = (Vec::new(), 0_usize);
    while at < list.0.len() {
        let len = usize::from(list.le16(at.checked_add(4)?)?);
        let entry = Bytes(list.slice(at, len).filter(|_| len >= LIST_ENTRY_BYTES)?);
        let name_bytes = usize::from(entry.byte(6)?).checked_mul(2)?;
        let named = name_bytes == name.len() && entry.is(usize::from(entry.byte(7)?), name);
        if entry.le32(0)? == kind && named {
            parts.push((number_of(entry.le64(16)?), entry.le64(8)?));
        }
        at = at.checked_add(len)?;
    }
    Some(parts)
}
