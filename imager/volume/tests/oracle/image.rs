//! An image file as a volume, and a junk-filled copy of its mapped bytes.

use imager_disk::{Geometry, ReadAt};
use imager_units::{ByteLen, ByteOffset, Context, ExtentSet, Result, SectorSize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub(crate) struct Image {
    file: File,
    size: ByteLen,
}

impl Image {
    pub(crate) fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let size = ByteLen::new(file.metadata().unwrap().len());
        Self { file, size }
    }

    pub(crate) fn size(&self) -> ByteLen {
        self.size
    }

    /// Writes a file of the same size that holds junk, and this image's bytes in `extents`.
    pub(crate) fn restore(&self, extents: &ExtentSet, target: &Path) {
        let file = File::create(target).unwrap();
        let junk: Vec<u8> =
            (0..1_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2] | 1).collect();
        let mut at = 0;
        while at < self.size.get() {
            let len = junk.len().min(usize::try_from(self.size.get() - at).unwrap());
            file.write_all_at(&junk[..len], at).unwrap();
            at += len as u64;
        }
        let mut bytes = Vec::new();
        for extent in extents.iter() {
            bytes.resize(extent.len().to_usize().unwrap(), 0);
            self.file.read_exact_at(&mut bytes, extent.start().get()).unwrap();
            file.write_all_at(&bytes, extent.start().get()).unwrap();
        }
    }
}

impl ReadAt for Image {
    fn geometry(&self) -> Geometry {
        Geometry { size: self.size, logical: SectorSize::B512, physical: SectorSize::B512 }
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.geometry().check(offset, ByteLen::of(buf))?;
        self.file.read_exact_at(buf, offset.get()).context(|| format!("reading at {offset}"))
    }
}
