//! From mounting to the end of the mount.

use super::Access;
use super::folder::Folder;
use super::point::{Left, Point};
use super::tree::Tree;
use crate::monitor::Monitor;
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use imager_units::{Error, ErrorKind, Result};
use std::io;
use std::path::Path;
use std::time::Duration;

/// How often it is looked whether to stop.
const PULSE: Duration = Duration::from_millis(100);
/// Requests that are answered at the same time. Most of them wait for the share or unpack a frame.
const THREADS: usize = 8;
/// How far the kernel reads ahead of who reads in order, in KiB.
const READ_AHEAD: &str = "2048";

/// Mounts it.
pub(super) fn start(tree: Tree, at: &Path, access: Access) -> Result<BackgroundSession> {
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::FSName(format!("imager-{}", tree.id)),
        MountOption::Subtype("imager".to_owned()),
    ];
    if access == Access::All {
        config.acl = SessionACL::All;
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    let failed = |error| explain(at, error);
    let session = Session::new(Folder::new(tree), at, &config).map_err(failed)?;
    let session = session.spawn().map_err(failed)?;
    // Asks the mount itself, so it must be served by now.
    read_ahead(at);
    Ok(session)
}

/// Why the system does not mount it, and what would help.
fn explain(at: &Path, error: io::Error) -> Error {
    let text = error.to_string();
    let (kind, why) = match error.kind() {
        _ if !Path::new("/dev/fuse").exists() => {
            (ErrorKind::Unsupported, "this system has no FUSE (/dev/fuse); as root: modprobe fuse")
        }
        io::ErrorKind::NotFound => {
            (ErrorKind::Unsupported, "whoever is not root needs the program fusermount3 (package fuse3)")
        }
        _ if text.contains("user_allow_other") => {
            (ErrorKind::Denied, "--allow-other is root's, unless /etc/fuse.conf says user_allow_other")
        }
        io::ErrorKind::PermissionDenied => (ErrorKind::Denied, "the system does not permit it"),
        _ => (ErrorKind::Io, "the system refuses"),
    };
    Error::with_source(kind, format!("mounting at {}: {why}", at.display()), error)
}

/// Lets the kernel read ahead further than it does by itself, where it lets us; without, reading in order is slower.
fn read_ahead(at: &Path) {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = std::fs::metadata(at) else { return };
    let (major, minor) = (nix::sys::stat::major(found.dev()), nix::sys::stat::minor(found.dev()));
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(setting, READ_AHEAD) {
        tracing::debug!("the kernel's read-ahead stays as it is: {error}");
    }
}

/// Waits for the end, from here or from elsewhere.
pub(super) fn wait(session: BackgroundSession, point: &Point, monitor: &dyn Monitor) -> Result<()> {
    let mut left = None;
    while !session.guard.is_finished() {
        if monitor.cancelled() && left.is_none() {
            left = Some(point.leave()?);
            if left == Some(Left::Used) {
                let shown = point.path().display();
                monitor.notice(&format!(
                    "{shown} is unmounted, but somebody still uses what he opened there: it is served until he has \
                     done; interrupt again to end at once"
                ));
            }
        }
        std::thread::sleep(PULSE);
    }
    session.join().map_err(|error| Error::io("serving the mount", error))
}
