//! SSH, for somebody whose public key the settings name. Nobody else gets in: there are no passwords.

use crate::{log, program};
use imager_units::{Context, Error, ErrorKind, Result};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const SERVER: &str = "/usr/sbin/dropbear";
const PID_FILE: &str = "/run/dropbear.pid";

/// Lets somebody with the key in.
///
/// # Errors
/// `NotFound` without a server; `Io` when it does not start.
pub(crate) fn open(key: &str) -> Result<()> {
    let say = || "letting SSH in".to_owned();
    if !Path::new(SERVER).exists() {
        return Err(Error::new(ErrorKind::NotFound, "this medium has no SSH server"));
    }
    // One that a manager before this one started goes on.
    if Path::new(PID_FILE).exists() {
        return Ok(());
    }
    for folder in ["/root/.ssh", "/etc/dropbear"] {
        fs::create_dir_all(folder).context(say)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700)).context(say)?;
    }
    fs::write("/root/.ssh/authorized_keys", format!("{key}\n")).context(say)?;
    // Host keys are made when the first one comes.
    program::run(SERVER, &["-R", "-s", "-P", PID_FILE])?;
    log::say("SSH lets root in, by the key of the settings");
    Ok(())
}
