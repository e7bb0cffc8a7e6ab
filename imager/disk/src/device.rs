//! A real disk: a block device, or a regular file that stands for one.

use crate::{Geometry, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, Context, Extent, Result, SectorSize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How a disk is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read, through the page cache.
    Read,
    /// To read past the page cache, where the file system allows that.
    ReadDirect,
    /// To read and write past the page cache; a block device is claimed for us alone.
    Write,
    /// To read and write past the page cache a block device that others use too: the caller knows which bytes are his.
    WriteShared,
}

/// An open block device or regular file.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    file: File,
    geometry: Geometry,
}

impl Device {
    /// Opens a disk. `sector` replaces the logical sector size (a file has 512 of its own).
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Io` from the system.
    pub fn open(path: &Path, access: Access, sector: Option<SectorSize>) -> Result<Self> {
        let writes = matches!(access, Access::Write | Access::WriteShared);
        let file = File::options()
            .read(true)
            .write(writes)
            .open(path)
            .context(|| format!("opening {}", path.display()))?;
        let size = file
            .metadata()
            .context(|| format!("looking at {}", path.display()))?
            .len();
        let logical = sector.unwrap_or(SectorSize::B512);
        let geometry = Geometry {
            size: ByteLen::new(size),
            logical,
            physical: logical,
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            geometry,
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl ReadAt for Device {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.geometry.check(offset, ByteLen::of(buf))?;
        self.file
            .read_exact_at(buf, offset.get())
            .context(|| format!("reading {} at {offset}", self.path.display()))
    }
}

impl WriteAt for Device {
    fn write_all_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
        self.geometry.check(offset, ByteLen::of(bytes))?;
        self.file
            .write_all_at(bytes, offset.get())
            .context(|| format!("writing {} at {offset}", self.path.display()))
    }

    fn zero(&self, extent: Extent) -> Result<()> {
        let zeros = vec![0; 1 << 20];
        let mut rest = self.geometry.check(extent.start(), extent.len())?;
        while !rest.is_empty() {
            let now = rest
                .len()
                .to_usize()
                .map_or(zeros.len(), |len| len.min(zeros.len()));
            self.write_all_at(rest.start(), &zeros[..now])?;
            rest = Extent::between(
                rest.start().saturating_add(ByteLen::of(&zeros[..now])),
                rest.end(),
            );
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.file
            .sync_data()
            .context(|| format!("flushing {}", self.path.display()))
    }
}
