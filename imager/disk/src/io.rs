//! The seam between whatever holds bytes and whoever reads or writes them.

use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, ExtentSet, Result, SectorSize};

/// The shape of a disk or volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Its size; not necessarily a multiple of anything.
    pub size: ByteLen,
    /// The smallest unit it addresses, and in which partition tables count.
    pub logical: SectorSize,
    /// The smallest unit it writes without reading first; at least `logical`.
    pub physical: SectorSize,
}

impl Geometry {
    /// The whole of it.
    pub const fn extent(&self) -> Extent {
        Extent::first(self.size)
    }

    /// Checks that an operation on `len` bytes at `offset` stays inside.
    ///
    /// # Errors
    /// `Invalid` when it does not.
    pub fn check(&self, offset: ByteOffset, len: ByteLen) -> Result<Extent> {
        Extent::new(offset, len).filter(|asked| self.extent().contains(*asked)).ok_or_else(|| {
            let what = format!("{len} at {offset} lie outside a disk of {} bytes", self.size.get());
            Error::new(ErrorKind::Invalid, what)
        })
    }
}

/// Something that is read at byte offsets, by any number of threads at once.
pub trait ReadAt: Send + Sync {
    /// Size and sectors; constant for as long as it is open.
    fn geometry(&self) -> Geometry;

    /// Fills `buf` from `offset`. No alignment is asked of the caller.
    ///
    /// # Errors
    /// `Io` when the device fails, `Invalid` when the range leaves it; `buf` is then undefined.
    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()>;

    /// The parts of `within` that may hold anything but zeros, as far as that is known without reading
    /// (`SEEK_DATA` on a sparse file). Whoever does not know says all of it.
    ///
    /// # Errors
    /// `Io` when the device fails.
    fn data(&self, within: Extent) -> Result<ExtentSet> {
        Ok(ExtentSet::from(within.intersection(self.geometry().extent())))
    }
}

/// Something that is also written.
pub trait WriteAt: ReadAt {
    /// Writes all of `bytes` at `offset`. No alignment is asked of the caller.
    ///
    /// # Errors
    /// `Io`, `OutOfSpace` or `Denied` from the device, `Invalid` when the range leaves it; some of it may be written.
    fn write_all_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()>;

    /// Makes `extent` read as zeros, by whatever means is quickest.
    ///
    /// # Errors
    /// As `write_all_at`.
    fn zero(&self, extent: Extent) -> Result<()>;

    /// Returns once everything written is durable.
    ///
    /// # Errors
    /// `Io` when the device fails: then nothing since the last flush may be relied on.
    fn flush(&self) -> Result<()>;
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<T: ReadAt + ?Sized> ReadAt for $pointer {
            fn geometry(&self) -> Geometry {
                (**self).geometry()
            }

            fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
                (**self).read_exact_at(offset, buf)
            }

            fn data(&self, within: Extent) -> Result<ExtentSet> {
                (**self).data(within)
            }
        }

        impl<T: WriteAt + ?Sized> WriteAt for $pointer {
            fn write_all_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<()> {
                (**self).write_all_at(offset, bytes)
            }

            fn zero(&self, extent: Extent) -> Result<()> {
                (**self).zero(extent)
            }

            fn flush(&self) -> Result<()> {
                (**self).flush()
            }
        }
    )*};
}

// A borrowed, shared or boxed disk is a disk.
forward!(&T, std::sync::Arc<T>, Box<T>);
