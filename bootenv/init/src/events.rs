//! What the kernel tells about devices that come (uevents on a netlink socket, lib/kobject_uevent.c): disks are
//! protected at once, drivers are looked for, power buttons are listened to. The kernel makes a device's node before it
//! tells of it (`device_add` in drivers/base/core.c).

use crate::changes::Changes;
use crate::modules::Modules;
use crate::{log, power, protect};
use imager_units::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

/// The group in which the kernel speaks; udev speaks in another.
const KERNEL_GROUP: u32 = 1;
/// Room for what comes while we are busy.
const BUFFER_BYTES: usize = 8 << 20;

/// Listens from now on.
///
/// # Errors
/// `Io` when the kernel has no such socket.
pub(crate) fn listen(modules: Option<Modules>, changes: Changes) -> Result<()> {
    let say = || "listening to the kernel's device events".to_owned();
    let open = || -> nix::Result<OwnedFd> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // More than an ordinary user may have; without it there may be gaps, which are looked for.
        let _gaps_are_handled = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(socket)
    };
    let socket = open().map_err(std::io::Error::from).context(say)?;
    let spawned = thread::Builder::new().name("events".to_owned()).spawn(move || {
        follow(&socket, modules.as_ref(), &changes);
    });
    spawned.context(say).map(drop)
}

fn follow(socket: &OwnedFd, modules: Option<&Modules>, changes: &Changes) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(len) => handle(buffer.get(..len).unwrap_or_default(), modules),
            Err(Errno::ENOBUFS) => rescan(modules),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                log::failed(
                    &format!("listening to the kernel's device events: {errno}"),
                    "disks that are plugged in from now on are not write-protected",
                );
                return;
            }
        }
        changes.tell();
    }
}

/// Some events were lost: what they were about is looked for.
fn rescan(modules: Option<&Modules>) {
    protect_soon(protect::known().unwrap_or_default());
    power::watch_known();
    if let Some(modules) = modules {
        modules.look();
    }
}

fn handle(message: &[u8], modules: Option<&Modules>) {
    let fields: Vec<_> =
        message.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok()).collect();
    let value = |name: &str| fields.iter().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    match (value("ACTION"), value("SUBSYSTEM"), value("DEVNAME")) {
        (Some("add"), Some("block"), Some(name)) => protect_soon(vec![name.to_owned()]),
        // Whenever a mapping gets a table it takes the protection of that (`do_resume` in drivers/md/dm-ioctl.c).
        (Some("change"), Some("block"), Some(name)) if name.starts_with("dm-") => {
            protect::forget(name);
            protect_soon(vec![name.to_owned()]);
        }
        (Some("add"), Some("input"), Some(name)) => power::watch(name),
        _ => {}
    }
    if let (Some("add"), Some(alias), Some(modules)) = (value("ACTION"), value("MODALIAS"), modules) {
        modules.want(alias);
    }
}

/// Not waited for: no disk stands behind one that does not answer.
fn protect_soon(names: Vec<String>) {
    let spawned = thread::Builder::new().name("protect".to_owned()).spawn(move || protect::protect(&names));
    if let Err(error) = spawned {
        log::failed(&format!("write-protecting what came: {error}"), protect::NEXT);
    }
}
