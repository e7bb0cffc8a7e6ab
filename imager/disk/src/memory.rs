//! A disk in memory.
//!
//! Only pages that were ever written take room, so a disk of 16 TiB costs what is on it. Pages are shared between a
//! disk and its clones until one of them writes: a clone is a snapshot.

use crate::{Geometry, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, Extent, ExtentSet, Result, SectorSize};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const PAGE_BYTES: ByteLen = ByteLen::new(65_536);

/// The pages that were written, by the offset at which they start.
type Pages = BTreeMap<ByteOffset, Arc<Vec<u8>>>;

/// A sparse disk in memory; cloning it takes a snapshot.
#[derive(Debug)]
pub struct MemoryDisk {
    geometry: Geometry,
    pages: RwLock<Pages>,
}

impl MemoryDisk {
    /// A disk of zeros. `size` need not be a multiple of anything.
    pub fn new(size: ByteLen, sector: SectorSize) -> Self {
        let geometry = Geometry { size, logical: sector, physical: sector };
        Self { geometry, pages: RwLock::default() }
    }

    /// A disk that holds `bytes`.
    pub fn from_bytes(bytes: &[u8], sector: SectorSize) -> Self {
        let mut pages = Pages::new();
        let mut at = ByteOffset::ZERO;
        for chunk in bytes.chunks(page_bytes()) {
            if chunk.iter().any(|&byte| byte != 0) {
                let mut page = chunk.to_vec();
                page.resize(page_bytes(), 0);
                pages.insert(at, Arc::new(page));
            }
            at = at.saturating_add(PAGE_BYTES);
        }
        let size = ByteLen::of(bytes);
        Self { geometry: Geometry { size, logical: sector, physical: sector }, pages: RwLock::new(pages) }
    }

    /// Every byte of the disk; for disks small enough.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.geometry.size.to_usize().unwrap_or(usize::MAX)];
        copy_out(&self.read(), ByteOffset::ZERO, &mut bytes);
        bytes
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for MemoryDisk {
    fn clone(&self) -> Self {
        Self { geometry: self.geometry, pages: RwLock::new(self.read().clone()) }
    }
}

impl ReadAt for MemoryDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.geometry.check(offset, ByteLen::of(buf))?;
        copy_out(&self.read(), offset, buf);
        Ok(())
    }

    fn data(&self, within: Extent) -> Result<ExtentSet> {
        let within = within.intersection(self.geometry.extent());
        let pages = self.read();
        let present = pages.range(within.start().align_down(PAGE_BYTES)..within.end().max(within.start()));
        Ok(present
            .map(|(&at, _)| Extent::between(at, at.saturating_add(PAGE_BYTES)).intersection(within))
            .collect())
    }
}

impl WriteAt for MemoryDisk {
    fn write_all_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        let extent = self.geometry.check(offset, ByteLen::of(bytes))?;
        let mut pages = self.write();
        let mut rest = bytes;
        for (page, at, len) in pieces(extent) {
            let (now, later) = rest.split_at(len);
            rest = later;
            let page = pages.entry(page).or_insert_with(|| Arc::new(vec![0; page_bytes()]));
            Arc::make_mut(page)[at..][..len].copy_from_slice(now);
        }
        Ok(())
    }

    fn zero(&self, extent: Extent) -> Result<()> {
        self.geometry.check(extent.start(), extent.len())?;
        let mut pages = self.write();
        let touched: Vec<_> = pages
            .range(extent.start().align_down(PAGE_BYTES)..extent.end().max(extent.start()))
            .map(|(&page, _)| page)
            .collect();
        for page in touched {
            let whole = Extent::between(page, page.saturating_add(PAGE_BYTES));
            if extent.contains(whole) {
                pages.remove(&page);
            } else if let Some(bytes) = pages.get_mut(&page) {
                for (_, at, len) in pieces(extent.intersection(whole)) {
                    Arc::make_mut(bytes)[at..][..len].fill(0);
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

fn copy_out(pages: &Pages, offset: ByteOffset, buf: &mut [u8]) {
    let mut rest = buf;
    for (page, at, len) in pieces(Extent::between(offset, offset.saturating_add(ByteLen::of(rest)))) {
        let (now, later) = rest.split_at_mut(len);
        rest = later;
        match pages.get(&page) {
            Some(page) => now.copy_from_slice(&page[at..][..len]),
            None => now.fill(0),
        }
    }
}

/// `extent` cut at pages: where the page starts, where in it the piece starts, how long it is.
fn pieces(extent: Extent) -> impl Iterator<Item = (ByteOffset, usize, usize)> {
    let mut from = extent.start();
    std::iter::from_fn(move || {
        let page = from.align_down(PAGE_BYTES);
        let end = page.saturating_add(PAGE_BYTES).min(extent.end());
        let (at, len) = (from.saturating_since(page).to_usize()?, end.saturating_since(from).to_usize()?);
        from = end;
        (len > 0).then_some((page, at, len))
    })
}

fn page_bytes() -> usize {
    PAGE_BYTES.to_usize().expect("64 KiB fit into every usize")
}

#[cfg(test)]
mod tests {
    use super::MemoryDisk;
    use crate::{ReadAt, WriteAt};
    use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};
    use proptest::prelude::{any, proptest};

    fn extent(start: u64, len: u64) -> Extent {
        Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
    }

    proptest! {
        #[test]
        fn behaves_like_a_vector(ops in proptest::collection::vec((0..200_000_u64, 0..80_000_u64, any::<u8>()), 0..20)) {
            let size = 210_001;
            let disk = MemoryDisk::new(ByteLen::new(size), SectorSize::B512);
            let mut model = vec![0; 210_001];
            for (start, len, byte) in ops {
                let len = len.min(size - start);
                let part = &mut model[usize::try_from(start).unwrap()..][..usize::try_from(len).unwrap()];
                part.fill(byte);
                if byte < 128 {
                    part.fill(0);
                    disk.zero(extent(start, len)).unwrap();
                } else {
                    disk.write_all_at(ByteOffset::new(start), part).unwrap();
                }
                let mut back = vec![1; part.len()];
                disk.read_exact_at(ByteOffset::new(start), &mut back).unwrap();
                assert_eq!(back, part);
            }
            assert_eq!(disk.to_vec(), model);
            let copy = MemoryDisk::from_bytes(&model, SectorSize::B512);
            assert_eq!(copy.to_vec(), model);
            let data = copy.data(extent(1, size)).unwrap();
            for (at, _) in model.iter().enumerate().skip(1).filter(|&(_, &byte)| byte != 0) {
                assert!(data.contains(extent(at as u64, 1)));
            }
        }
    }

    #[test]
    fn sixteen_tebibytes_cost_what_is_on_them() {
        let disk = MemoryDisk::new(ByteLen::new(16 << 40), SectorSize::B4096);
        disk.write_all_at(ByteOffset::new((16 << 40) - 3), b"end").unwrap();
        let data = disk.data(disk.geometry().extent()).unwrap();
        assert_eq!((data.count(), data.total()), (1, ByteLen::new(65_536)));
        disk.zero(disk.geometry().extent()).unwrap();
        assert!(disk.data(disk.geometry().extent()).unwrap().is_empty());
    }

    #[test]
    fn a_clone_is_a_snapshot() {
        let disk = MemoryDisk::from_bytes(b"before", SectorSize::B512);
        let snapshot = disk.clone();
        disk.write_all_at(ByteOffset::ZERO, b"behind").unwrap();
        assert_eq!(
            (snapshot.to_vec().as_slice(), disk.to_vec().as_slice()),
            (&b"before"[..], &b"behind"[..])
        );
    }

    #[test]
    fn leaving_the_disk_is_invalid() {
        let disk = MemoryDisk::new(ByteLen::new(1000), SectorSize::B512);
        for (start, len) in [(999, 2), (1001, 1), (u64::MAX, 1)] {
            let mut buf = vec![0; len];
            let kinds = [
                disk.read_exact_at(ByteOffset::new(start), &mut buf).unwrap_err().kind(),
                disk.write_all_at(ByteOffset::new(start), &buf).unwrap_err().kind(),
            ];
            assert_eq!(kinds, [ErrorKind::Invalid; 2], "{start} {len}");
        }
    }
}
