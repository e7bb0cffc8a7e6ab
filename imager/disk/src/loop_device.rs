//! Loop devices: a file, or a part of one, as a block device.
//!
//! One lives no longer than whoever holds it open, this process or a mount: the kernel clears it by itself, also when the
//! process is killed.

use crate::sys;
use imager_units::{Context, Error, ErrorKind, Extent, Result, SectorSize};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a free one is looked for that somebody else takes meanwhile.
const TRIES: usize = 32;
const PAUSE: Duration = Duration::from_millis(20);
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Whether a loop device can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// It cannot.
    No,
    /// It can.
    Yes,
}

/// A loop device.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    /// Locked, so that udev does not look at what is in it, and give names to it (systemd.io/BLOCK_DEVICE_LOCKING).
    _device: Flock<File>,
}

impl LoopDevice {
    /// Makes one of a part of a file or block device.
    ///
    /// # Errors
    /// `Denied` without the right to, `Unsupported` from a kernel without loop devices, `Io`.
    pub fn new(file: &File, part: Extent, sector: SectorSize, writing: Writing) -> Result<Self> {
        let say = || "making a loop device".to_owned();
        let control = Path::new("/dev/loop-control");
        let control = File::options().read(true).write(true).open(control).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::Unsupported,
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Io,
            };
            Error::with_source(kind, "opening /dev/loop-control", error)
        })?;
        let flags = LO_FLAGS_AUTOCLEAR | if writing == Writing::No { LO_FLAGS_READ_ONLY } else { 0 };
        let mut config = sys::LoopConfig::default();
        config.fd =
            u32::try_from(file.as_raw_fd()).map_err(|_| Error::new(ErrorKind::Invalid, "a closed file"))?;
        (config.block_size, config.flags) = (sector.get(), flags);
        (config.offset, config.size_limit) = (part.start().get(), part.len().get());
        for _ in 0..TRIES {
            let number = sys::free_loop(&control).map_err(std::io::Error::from).context(say)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let opened =
                File::options().read(true).write(writing == Writing::Yes).open(&path).context(say)?;
            let Ok(device) = Flock::lock(opened, FlockArg::LockExclusiveNonblock) else {
                std::thread::sleep(PAUSE);
                continue;
            };
            match sys::configure_loop(&device, &config) {
                Ok(()) => return Ok(Self { path, _device: device }),
                Err(Errno::EBUSY) => {}
                Err(error) => return Err(std::io::Error::from(error)).context(say),
            }
        }
        Err(Error::new(ErrorKind::Io, "no loop device is free"))
    }

    /// Its node.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
