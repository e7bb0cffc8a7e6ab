//! A captured disk or volume as something to read at any place, by any number of threads: what a network block
//! device, an export and a mount are made of.
//!
//! A disk is its remainder with its volumes laid over it, so it is complete with tables and boot code. Parts that do not
//! count read as zeros, and so do those that could not be read when they were captured; [`DiskView::status`] tells them
//! apart. Every block read is checked against its id; memory is bounded, 32 MiB a view however large the disk.

mod cache;
mod content;
mod layout;
mod maps;

use crate::map::{Piece, block_extent};
use crate::repository::Repository;
use content::Contents;
use imager_disk::{Geometry, ReadAt};
use imager_image::manifest::{Disk, Manifest, Map, Volume};
use imager_image::node::{Child, Content, Entry};
use imager_image::{BLOCK_BYTES, MaskUnit};
use imager_units::{ByteLen, ByteOffset, Context, Error, ErrorKind, Extent, ExtentSet, Result, SectorSize};
use layout::Part;
use maps::Maps;
use std::sync::Arc;

/// What a run of bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It counts and holds something.
    Data,
    /// It counts and is zero.
    Zero,
    /// It does not count, or is not in the capture; reads as zeros.
    Unused,
    /// It counts but could not be read when it was captured; reads as zeros.
    Unreadable,
}

struct Shared<'r> {
    maps: Maps<'r>,
    contents: Contents<'r>,
}

/// One capture, open to be read anywhere.
pub struct CaptureView<'r> {
    manifest: Manifest,
    shared: Arc<Shared<'r>>,
    /// The number of each volume's map, in the manifest's order.
    volumes: Vec<Option<usize>>,
}

/// A disk or volume of a capture.
#[derive(Clone)]
pub struct DiskView<'r> {
    shared: Arc<Shared<'r>>,
    geometry: Geometry,
    parts: Vec<Part>,
    lost: Lost,
}

/// How what could not be read when it was captured reads now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    Zeros,
    Error,
}

impl<'r> CaptureView<'r> {
    /// Opens a capture; reads nothing yet.
    pub fn new(repository: &'r Repository, manifest: Manifest) -> Self {
        let mut maps: Vec<Map> = manifest.disks.iter().map(|disk| disk.remainder.clone()).collect();
        let mut volumes = Vec::new();
        for volume in &manifest.volumes {
            volumes.push(volume.map.as_ref().map(|_| maps.len()));
            maps.extend(volume.map.clone());
        }
        let shared = Shared { maps: Maps::new(repository, maps), contents: Contents::new(repository) };
        Self { manifest, shared: Arc::new(shared), volumes }
    }

    /// What the capture says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Disk `number`, complete.
    ///
    /// # Errors
    /// `NotFound` when the capture has none of that number; `Corrupt`, `Unsupported` when it makes no sense.
    pub fn disk(&self, number: u32) -> Result<DiskView<'r>> {
        let known = || self.manifest.disks.iter().map(|disk| disk.number.to_string()).collect::<Vec<_>>();
        let at = self.manifest.disks.iter().position(|disk| disk.number == number);
        let found = at.and_then(|at| Some((at, self.manifest.disks.get(at)?)));
        let (at, disk) = found.ok_or_else(|| {
            let what = format!("the capture has no disk {number}; its disks are {}", known().join(", "));
            Error::new(ErrorKind::NotFound, what)
        })?;
        let size = ByteLen::new(disk.size_bytes);
        let parts = layout::of_disk(&self.manifest, number, size, at, &self.volumes);
        Ok(DiskView {
            shared: Arc::clone(&self.shared),
            geometry: geometry(disk, size)?,
            parts,
            lost: Lost::Zeros,
        })
    }

    /// The volume that is called `key`.
    ///
    /// # Errors
    /// `NotFound` when the capture has none of that key or nothing of it; `Corrupt`, `Unsupported` when it makes no
    /// sense.
    pub fn volume(&self, key: &str) -> Result<DiskView<'r>> {
        let at = self.manifest.volumes.iter().position(|volume| volume.key == key);
        let found = at.and_then(|at| Some((self.manifest.volumes.get(at)?, *self.volumes.get(at)?)));
        let (volume, map) = found.ok_or_else(|| {
            let keys: Vec<_> = self.manifest.volumes.iter().map(|volume| volume.key.as_str()).collect();
            let what = format!("the capture has no volume {key:?}; its volumes are {}", keys.join(", "));
            Error::new(ErrorKind::NotFound, what)
        })?;
        if map.is_none() {
            let what = format!("volume {key} is not in the capture");
            return Err(Error::new(ErrorKind::NotFound, what));
        }
        let size = ByteLen::new(volume.size_bytes);
        let parts = vec![Part { extent: Extent::first(size), map, at: ByteOffset::ZERO }];
        Ok(DiskView {
            shared: Arc::clone(&self.shared),
            geometry: self.geometry(volume, size)?,
            parts,
            lost: Lost::Zeros,
        })
    }

    fn geometry(&self, volume: &Volume, size: ByteLen) -> Result<Geometry> {
        let disk = self.manifest.disks.iter().find(|disk| disk.number == volume.disk);
        let disk = disk.ok_or_else(|| Error::corrupt(format!("volume {} is on no disk", volume.key)))?;
        geometry(disk, size)
    }
}

fn geometry(disk: &Disk, size: ByteLen) -> Result<Geometry> {
    let logical = SectorSize::new(disk.logical_sector_bytes)?;
    let physical = SectorSize::new(disk.physical_sector_bytes).unwrap_or(logical).max(logical);
    Ok(Geometry { size, logical, physical })
}

/// A run of the view that is all the same, or lies in one block of a map.
struct Stretch {
    /// Which bytes of the view.
    extent: Extent,
    what: What,
}

enum What {
    Uniform(Status),
    Block(Block),
}

/// A block of a map as a stretch sees it.
struct Block {
    entry: Entry,
    unit: MaskUnit,
    /// Where in the block the stretch starts.
    from: usize,
    /// The length of the whole block.
    len: usize,
}

/// Whether to look further.
enum Go {
    On,
    Stop,
}

impl DiskView<'_> {
    /// The same, but reading what could not be read when it was captured fails.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { lost: Lost::Error, ..self }
    }

    /// What the bytes of `within` are: runs in order without gaps, neighbours different, at most `most` of them (so
    /// they may end before `within` does). Reads maps only.
    ///
    /// # Errors
    /// `Invalid` when `within` leaves the disk; `Corrupt`, `NotFound`, `Io` when a map cannot be read.
    pub fn status(&self, within: Extent, most: usize) -> Result<Vec<(Extent, Status)>> {
        let mut runs: Vec<(Extent, Status)> = Vec::new();
        self.walk(within, &mut |stretch| {
            for (extent, status) in stretch.runs() {
                let full = runs.len() >= most.max(1);
                match runs.last_mut() {
                    Some((last, same)) if *same == status => {
                        *last = Extent::between(last.start(), extent.end());
                    }
                    _ if full => return Ok(Go::Stop),
                    _ => runs.push((extent, status)),
                }
            }
            Ok(Go::On)
        })?;
        Ok(runs)
    }

    /// Everything of `within` by what it is; [`DiskView::status`] without a limit.
    ///
    /// # Errors
    /// As there.
    pub fn extents(&self, within: Extent) -> Result<Vec<(Extent, Status)>> {
        self.status(within, usize::MAX)
    }

    /// The stretches of `within` in order.
    fn walk(&self, within: Extent, each: &mut dyn FnMut(Stretch) -> Result<Go>) -> Result<()> {
        let within = self.geometry.check(within.start(), within.len())?;
        let from = self.parts.partition_point(|part| part.extent.end() <= within.start());
        for part in self.parts.iter().skip(from) {
            let mut rest = part.extent.intersection(within);
            if rest.is_empty() {
                break;
            }
            while !rest.is_empty() {
                let stretch = self.stretch(part, rest)?;
                rest = Extent::between(stretch.extent.end(), rest.end());
                if let Go::Stop = each(stretch)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The stretch at the start of `rest`, which lies in `part`.
    fn stretch(&self, part: &Part, rest: Extent) -> Result<Stretch> {
        let unused = || Ok(Stretch { extent: rest, what: What::Uniform(Status::Unused) });
        let Some(number) = part.map else { return unused() };
        let map = self.shared.maps.get(number)?;
        let size = ByteLen::new(map.size_bytes);
        let at = part.at.saturating_add(rest.start().saturating_since(part.extent.start()));
        if at >= Extent::first(size).end() {
            return unused();
        }
        let until = |end: ByteOffset| {
            Extent::between(rest.start(), rest.start().saturating_add(end.saturating_since(at)))
                .intersection(rest)
        };
        let index = at.get() / BLOCK_BYTES as u64;
        let (piece, first) = self.shared.maps.piece(number, index)?;
        match piece {
            Piece::Run(child, count) => {
                let last = first.saturating_add(count).saturating_sub(1);
                let status = if child == Child::Zero { Status::Zero } else { Status::Unused };
                Ok(Stretch { extent: until(block_extent(last, size).end()), what: What::Uniform(status) })
            }
            Piece::Leaf(entries) => {
                let within = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
                let entry = *entries.get(within).ok_or_else(|| Error::corrupt("a leaf that is too short"))?;
                let extent = block_extent(index, size);
                let from = at.saturating_since(extent.start()).to_usize().unwrap_or(usize::MAX);
                let len = extent.len().to_usize().unwrap_or(0);
                let block = Block { entry, unit: map.mask_unit()?, from, len };
                Ok(Stretch { extent: until(extent.end()), what: What::Block(block) })
            }
        }
    }
}

impl Stretch {
    /// What it is, run by run.
    fn runs(&self) -> Vec<(Extent, Status)> {
        let block = match &self.what {
            What::Uniform(status) => return vec![(self.extent, *status)],
            What::Block(block) => block,
        };
        let counts = match block.entry.content {
            Content::Data(..) => Status::Data,
            Content::Zero => Status::Zero,
            Content::Unused | Content::Unreadable => Status::Unused,
        };
        let runs =
            |mask: imager_image::Mask, status| mask.runs(block.unit, block.len).map(move |run| (run, status));
        let lost = runs(block.entry.unreadable, Status::Unreadable);
        let mut known: Vec<_> = runs(block.entry.mask, counts).chain(lost).collect();
        known.sort_by_key(|(run, _)| run.start);
        known.push((block.len..block.len, Status::Unused));
        let mut found = Vec::new();
        let mut at = 0;
        for (run, status) in known {
            found.push((self.part(block, at, run.start), Status::Unused));
            found.push((self.part(block, run.start, run.end), status));
            at = run.end;
        }
        found.retain(|(extent, _)| !extent.is_empty());
        found
    }

    /// Whether any of it could not be read when it was captured.
    fn is_lost(&self) -> bool {
        match &self.what {
            What::Block(block) if block.entry.unreadable != imager_image::Mask::NONE => {
                self.runs().iter().any(|(_, status)| *status == Status::Unreadable)
            }
            _ => false,
        }
    }

    /// The bytes `from..to` of the block as they lie in the view, cut to the stretch.
    fn part(&self, block: &Block, from: usize, to: usize) -> Extent {
        let place = |n: usize| {
            let behind = ByteLen::new(n.saturating_sub(block.from) as u64);
            self.extent.start().saturating_add(behind).min(self.extent.end())
        };
        Extent::between(place(from), place(to))
    }
}

impl ReadAt for DiskView<'_> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let asked = self.geometry.check(offset, ByteLen::of(buf))?;
        self.walk(asked, &mut |stretch| {
            let from = stretch.extent.start().saturating_since(offset).to_usize().unwrap_or(usize::MAX);
            let len = stretch.extent.len().to_usize().unwrap_or(usize::MAX);
            let place = buf.get_mut(from..).and_then(|rest| rest.get_mut(..len)).unwrap_or_default();
            if self.lost == Lost::Error && stretch.is_lost() {
                let what = format!("{} could not be read when it was captured", stretch.extent);
                return Err(Error::new(ErrorKind::Io, what));
            }
            match stretch.what {
                What::Block(Block {
                    entry: Entry { content: Content::Data(id, at), .. }, from, len, ..
                }) => {
                    let say = || format!("reading {} of the captured disk", stretch.extent);
                    // Outside the mask a stored block is zero.
                    self.shared.contents.read(id, &at, len, from, place).context(say)?;
                }
                _ => place.fill(0),
            }
            Ok(Go::On)
        })
    }

    fn data(&self, within: Extent) -> Result<ExtentSet> {
        let within = within.intersection(self.geometry.extent());
        let runs = self.extents(within)?;
        Ok(runs.into_iter().filter(|(_, status)| *status == Status::Data).map(|(extent, _)| extent).collect())
    }
}
