//! Chains of clusters (specification, section 4, and 6.3.4 for files without one), followed within bounds.

use super::boot::Layout;
use crate::bytes::Bytes;
use crate::read::read_into;
use imager_disk::ReadAt;
use imager_units::{ByteLen, Error, Extent, Result};

/// How much of the FAT is read at once.
const PAGE_BYTES: u64 = 64 << 10;
const END_OF_CHAIN: u32 = u32::MAX;
/// After so many reads of structures, seconds to half a minute on a slow disk, or so many links, nothing further is
/// looked at.
const MOST_READS: u32 = 4096;
const MOST_LINKS: u32 = 1 << 24;

/// The FAT of a volume, with what may still be spent on looking at it.
pub(super) struct Table<'a> {
    pub(super) volume: &'a dyn ReadAt,
    pub(super) layout: &'a Layout,
    page: Vec<u8>,
    page_number: Option<u64>,
    reads: u32,
    links: u32,
}

impl<'a> Table<'a> {
    pub(super) fn new(volume: &'a dyn ReadAt, layout: &'a Layout) -> Self {
        Self { volume, layout, page: Vec::new(), page_number: None, reads: 0, links: 0 }
    }

    /// Whether enough was looked at.
    pub(super) fn is_spent(&self) -> bool {
        self.reads >= MOST_READS || self.links >= MOST_LINKS
    }

    /// Reads a piece of a directory.
    pub(super) fn read(&mut self, piece: Extent, buffer: &mut Vec<u8>) -> Result<()> {
        self.reads = self.reads.saturating_add(1);
        read_into(self.volume, piece, buffer)
    }

    /// What it means that enough was looked at before something without which there is no map was understood.
    ///
    /// # Errors
    /// `Unsupported` in that case.
    pub(super) fn ensure_unspent(&self, what: &str) -> Result<()> {
        match self.is_spent() {
            true => Err(Error::unsupported(format!("{what} lies in too many pieces"))),
            false => Ok(()),
        }
    }

    /// The cluster that follows in a chain; `None` at its end.
    fn next(&mut self, cluster: u64) -> Result<Option<u64>> {
        self.links = self.links.saturating_add(1);
        let at = cluster.saturating_mul(4);
        let (number, within) = (at / PAGE_BYTES, at % PAGE_BYTES);
        if self.page_number != Some(number) {
            let fat = self.layout.fat;
            let start = fat.start().saturating_add(ByteLen::new(number.saturating_mul(PAGE_BYTES)));
            let end = start.saturating_add(ByteLen::new(PAGE_BYTES)).min(fat.end());
            self.reads = self.reads.saturating_add(1);
            self.page_number = None;
            read_into(self.volume, Extent::between(start, end), &mut self.page)?;
            self.page_number = Some(number);
        }
        let entry = usize::try_from(within).ok().and_then(|within| Bytes(&self.page).le32(within));
        match entry {
            Some(END_OF_CHAIN) => Ok(None),
            Some(next) if self.layout.has(next.into()) => Ok(Some(next.into())),
            _ => Err(Error::corrupt(format!("the chain of clusters breaks off at cluster {cluster}"))),
        }
    }
}

/// The clusters of a file or directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allocation {
    first: u64,
    /// How many clusters at most.
    most: u64,
    /// Whether the chain may end sooner than that.
    is_open: bool,
    is_chained: bool,
}

impl Allocation {
    /// The clusters of something of `bytes`, beginning with `first`; `None` when it has none.
    ///
    /// # Errors
    /// `Corrupt` when there are no such clusters.
    pub(super) fn new(layout: &Layout, first: u32, bytes: u64, is_chained: bool) -> Result<Option<Self>> {
        if bytes == 0 && first == 0 {
            return Ok(None);
        }
        let (first, most) = (u64::from(first), bytes.div_ceil(layout.cluster.get().max(1)));
        let is_inside = layout.has(first)
            && most <= layout.clusters
            && (is_chained || layout.has(first.saturating_add(most.saturating_sub(1))));
        if !is_inside {
            return Err(Error::corrupt(format!(
                "{bytes} bytes from cluster {first} on lie outside the volume"
            )));
        }
        Ok((most > 0).then_some(Self { first, most, is_open: false, is_chained }))
    }

    /// A chain of which only its beginning is known, and how many clusters it has at most.
    pub(super) fn open(first: u64, most: u64) -> Self {
        Self { first, most: most.max(1), is_open: true, is_chained: true }
    }

    pub(super) fn runs(self) -> Runs {
        Runs { allocation: self, next: Some(self.first), left: self.most }
    }
}

/// The runs of neighbouring clusters of an allocation, in order.
pub(super) struct Runs {
    allocation: Allocation,
    next: Option<u64>,
    left: u64,
}

impl Runs {
    /// The next run; `None` after the last one, or when enough was looked at.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when the chain breaks off or is too long.
    pub(super) fn next(&mut self, table: &mut Table<'_>) -> Result<Option<Extent>> {
        let Some(first) = self.next.take() else { return Ok(None) };
        if !self.allocation.is_chained {
            return Ok(Some(table.layout.cluster_run(first, first.saturating_add(self.left))));
        }
        let mut end = first;
        loop {
            end = end.saturating_add(1);
            self.left = self.left.saturating_sub(1);
            if self.left == 0 && !self.allocation.is_open {
                break;
            }
            if table.is_spent() {
                return Ok(None);
            }
            let next = table.next(end.saturating_sub(1))?;
            match next {
                None if self.left > 0 && !self.allocation.is_open => {
                    return Err(Error::corrupt("a chain of clusters is shorter than its file"));
                }
                Some(_) if self.left == 0 => {
                    return Err(Error::corrupt("a chain of clusters has no end"));
                }
                Some(next) if next == end => {}
                other => {
                    self.next = other;
                    break;
                }
            }
        }
        Ok(Some(table.layout.cluster_run(first, end)))
    }
}
