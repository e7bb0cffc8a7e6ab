//! The content of a stream: in its record, in clusters with holes, or compressed.
//!
//! ntfs-3g, include/ntfs-3g/layout.h, `ATTR_RECORD`. A compressed stream is cut into units of (mostly) 16 clusters. A
//! unit with all its clusters holds them as they are, one with none is zeros, and what is between is packed.

use super::super::boot::Layout;
use super::super::record::{DATA, Record};
use super::super::runs::Run;
use super::super::stream::{Stream, Table};
use super::lznt1;
use crate::read::read_into;
use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, Extent, Result};

/// Windows compresses units of 64 KiB at most; more is not unpacked.
const MOST_UNIT_BYTES: u64 = 1 << 20;

/// A stream's content, found.
pub(super) enum Data {
    Resident(Vec<u8>),
    Clusters(Clusters),
}

pub(super) struct Clusters {
    stream: Stream,
    size: u64,
    /// What lies behind was never written and reads as zeros.
    written: u64,
    /// How many clusters are compressed together; 0 where nothing is.
    unit: u64,
}

impl Data {
    /// The data stream of that name; `None` when there is none.
    pub(super) fn find(table: &Table<'_>, base: &Record, name: &[u8]) -> Result<Option<Self>> {
        let Some(first) = table.first(base, DATA, name)? else { return Ok(None) };
        let attribute = first.part(DATA, name, 0)?;
        if attribute.is_encrypted() {
            return Err(Error::unsupported(format!("file record {} is encrypted (EFS)", base.number)));
        }
        if let Some(value) = attribute.value() {
            return Ok(Some(Self::Resident(value.to_vec())));
        }
        let wrong = || base.wrong("has content without a length");
        let (size, written) = (attribute.size().ok_or_else(wrong)?, attribute.written().ok_or_else(wrong)?);
        let unit = if attribute.is_compressed() { attribute.unit_clusters().ok_or_else(wrong)? } else { 0 };
        if unit.saturating_mul(table.layout.cluster_bytes) > MOST_UNIT_BYTES {
            return Err(Error::unsupported("content is compressed in larger pieces than Windows makes"));
        }
        let stream = table.stream(base, DATA, name)?.ok_or_else(wrong)?;
        Ok(Some(Self::Clusters(Clusters { stream, size, written, unit })))
    }

    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Resident(value) => ByteLen::of(value).get(),
            Self::Clusters(clusters) => clusters.size,
        }
    }

    pub(super) fn runs(&self) -> usize {
        match self {
            Self::Resident(_) => 0,
            Self::Clusters(clusters) => clusters.stream.runs.len(),
        }
    }

    /// Reads from `at` on as much as there is and `buf` holds.
    pub(super) fn read(
        &self,
        volume: &dyn ReadAt,
        layout: &Layout,
        at: u64,
        buf: &mut [u8],
    ) -> Result<usize> {
        let rest = usize::try_from(self.size().saturating_sub(at)).unwrap_or(usize::MAX);
        let len = rest.min(buf.len());
        let buf = buf.get_mut(..len).unwrap_or_default();
        match self {
            Self::Resident(value) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                let value = value.get(from..).and_then(|rest| rest.get(..len)).unwrap_or_default();
                buf.copy_from_slice(value);
            }
            Self::Clusters(clusters) => clusters.read(volume, layout, at, buf)?,
        }
        Ok(len)
    }
}

impl Clusters {
    /// Fills `buf`, which ends where the stream does at the latest.
    fn read(&self, volume: &dyn ReadAt, layout: &Layout, at: u64, buf: &mut [u8]) -> Result<()> {
        let written = usize::try_from(self.written.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
        let (there, never) = buf.split_at_mut(written);
        never.fill(0);
        let unit_bytes = self.unit.max(1).saturating_mul(layout.cluster_bytes);
        let (mut at, mut rest) = (at, there);
        while !rest.is_empty() {
            let first = at.checked_div(unit_bytes).unwrap_or_default().saturating_mul(self.unit.max(1));
            let end = match self.unit {
                0 => self.run(at.checked_div(layout.cluster_bytes).unwrap_or_default())?.end(),
                unit => first.saturating_add(unit),
            };
            let bytes = end.saturating_mul(layout.cluster_bytes).saturating_sub(at);
            let len = usize::try_from(bytes).unwrap_or(usize::MAX).min(rest.len());
            let (here, behind) = rest.split_at_mut(len);
            match self.unit {
                0 => self.plain(volume, layout, at, here)?,
                _ => self.unit(volume, layout, first, at, here)?,
            }
            at = at.saturating_add(ByteLen::of(here).get());
            rest = behind;
        }
        Ok(())
    }

    /// The run that cluster `vcn` of the stream lies in.
    fn run(&self, vcn: u64) -> Result<Run> {
        let after = self.stream.runs.partition_point(|run| run.vcn <= vcn);
        let run = after.checked_sub(1).and_then(|place| self.stream.runs.get(place));
        let run = run.filter(|run| vcn < run.end()).copied();
        run.ok_or_else(|| Error::corrupt("a stream has fewer clusters than bytes"))
    }

    /// Fills `buf` from the run that `at` lies in; does not go beyond it.
    fn plain(&self, volume: &dyn ReadAt, layout: &Layout, at: u64, buf: &mut [u8]) -> Result<()> {
        let run = self.run(at.checked_div(layout.cluster_bytes).unwrap_or_default())?;
        let Some(lcn) = run.lcn else {
            buf.fill(0);
            return Ok(());
        };
        let into = at.saturating_sub(run.vcn.saturating_mul(layout.cluster_bytes));
        let start = layout.extent(lcn, lcn.saturating_add(run.len)).start();
        volume.read_exact_at(start.saturating_add(ByteLen::new(into)), buf)
    }

    /// Fills `buf` from `at` on, all of it in the unit that begins with cluster `first`.
    fn unit(&self, volume: &dyn ReadAt, layout: &Layout, first: u64, at: u64, buf: &mut [u8]) -> Result<()> {
        let (mut packed, mut piece) = (Vec::new(), Vec::new());
        let (mut vcn, end) = (first, first.saturating_add(self.unit));
        while vcn < end {
            // The hole behind the last unit's clusters need not be listed.
            let Some(run) = self.run(vcn).ok().filter(|run| run.lcn.is_some()) else { break };
            let until = run.end().min(end);
            let lcn = run.lcn.unwrap_or_default().saturating_add(vcn.saturating_sub(run.vcn));
            let extent: Extent = layout.extent(lcn, lcn.saturating_add(until.saturating_sub(vcn)));
            read_into(volume, extent, &mut piece)?;
            packed.extend_from_slice(&piece);
            vcn = until;
        }
        let unit_bytes = usize::try_from(self.unit.saturating_mul(layout.cluster_bytes)).unwrap_or_default();
        let unpacked = if packed.len() >= unit_bytes {
            packed
        } else {
            let mut unpacked = vec![0; unit_bytes];
            if !packed.is_empty() {
                lznt1::unpack(&packed, &mut unpacked)?;
            }
            unpacked
        };
        let into = at.saturating_sub(first.saturating_mul(layout.cluster_bytes));
        let into = usize::try_from(into).unwrap_or(usize::MAX);
        let part = unpacked.get(into..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(part.ok_or_else(|| Error::corrupt("a compressed unit is too short"))?);
        Ok(())
    }
}

impl Data {
    /// All of it, where it is no longer than `most`; otherwise nothing.
    pub(super) fn beginning(&self, table: &Table<'_>, most: usize) -> Result<Vec<u8>> {
        let len = usize::try_from(self.size()).ok().filter(|&len| len <= most).unwrap_or_default();
        let mut bytes = vec![0; len];
        self.read(table.volume, table.layout, 0, &mut bytes)?;
        Ok(bytes)
    }
}
