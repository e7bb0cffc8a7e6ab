//! Where things are, on this system or on one below a folder; and who runs.

use imager_units::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The places of a system.
pub(super) struct Place {
    root: PathBuf,
}

/// Whoever holds this runs, and nobody else.
pub(super) struct Turn(Flock<File>);

impl Place {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The system's root, where it is another than ours.
    pub(super) fn other_root(&self) -> Option<&Path> {
        (self.root != Path::new("/")).then_some(self.root.as_path())
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.at("/etc/halfhour/schedule.toml")
    }

    /// Where a unit of ours goes.
    pub(super) fn unit(&self, name: &str) -> PathBuf {
        self.at("/etc/systemd/system").join(name)
    }

    /// Whether a package brings a unit.
    pub(super) fn has_packaged(&self, name: &str) -> bool {
        ["/usr/lib/systemd/system", "/lib/systemd/system"].iter().any(|at| self.at(at).join(name).exists())
    }

    /// The folder of what this machine remembers.
    pub(super) fn state(&self) -> PathBuf {
        let given = std::env::var_os("IMAGER_STATE_DIR").filter(|folder| !folder.is_empty());
        given.map_or_else(|| self.at("/var/lib/halfhour"), PathBuf::from)
    }

    pub(super) fn last(&self) -> PathBuf {
        self.state().join("last.json")
    }

    /// In memory: a system whose disk is full or read-only is captured all the same.
    pub(super) fn lock(&self) -> PathBuf {
        let given = std::env::var_os("IMAGER_STATE_DIR").filter(|folder| !folder.is_empty());
        given.map_or_else(|| self.at("/run/halfhour"), PathBuf::from).join("schedule.lock")
    }

    /// Takes the turn; `None` while somebody has it.
    pub(super) fn take_turn(&self) -> Result<Option<Turn>> {
        let file = self.lock();
        let say = || format!("locking {}", file.display());
        std::fs::create_dir_all(file.parent().unwrap_or(&file)).context(say)?;
        let opened = File::options().create(true).truncate(false).write(true).mode(0o600).open(&file);
        match Flock::lock(opened.context(say)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Turn(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(std::io::Error::from(errno)).context(say),
        }
    }
}

impl Turn {
    /// The same turn, for a process of ours that may outlive us.
    pub(super) fn shared(&self) -> Result<File> {
        self.0.try_clone().context(|| "sharing the lock".to_owned())
    }
}
