//! What the kernel tells about devices that come (uevents on a netlink socket, lib/kobject_uevent.c): disks are
//! protected at once, drivers are looked for.

use crate::modules::Modules;
use crate::{log, protect};
use imager_units::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The group in which the kernel speaks; udev speaks in another.
const KERNEL_GROUP: u32 = 1;
/// Room for what comes while we are busy.
const BUFFER_BYTES: usize = 8 << 20;
/// When nothing came for so long, the kernel is done for now.
const QUIET: Duration = Duration::from_millis(400);

/// A device came or went.
pub(crate) struct Changed;

/// Listens from now on.
///
/// # Errors
/// `Io` when the kernel has no such socket.
pub(crate) fn listen(modules: Modules) -> Result<Receiver<Changed>> {
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
    let (sender, receiver) = channel();
    let spawned = thread::Builder::new().name("events".to_owned()).spawn(move || {
        follow(&socket, &modules, &sender);
    });
    spawned.context(say).map(|_| receiver)
}

/// Waits until the kernel is quiet, for at most `most`.
pub(crate) fn settle(events: &Receiver<Changed>, most: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < most && events.recv_timeout(QUIET).is_ok() {}
}

/// Waits until `is_there` says so, looking again whenever something changed; whether it did within `most`.
pub(crate) fn wait_for(events: &Receiver<Changed>, most: Duration, is_there: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if is_there() {
            return true;
        }
        let left = most.saturating_sub(begun.elapsed());
        // A link that comes up makes no event: look each second all the same.
        match events.recv_timeout(left.min(Duration::from_secs(1))) {
            Ok(Changed) => {}
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            Err(_) => return false,
        }
    }
}

fn follow(socket: &OwnedFd, modules: &Modules, changed: &Sender<Changed>) {
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
        if changed.send(Changed).is_err() {
            return;
        }
    }
}

/// Some events were lost: what they were about is looked for.
fn rescan(modules: &Modules) {
    for name in protect::known().unwrap_or_default() {
        protect_and_say(&name);
    }
    modules.look();
}

fn handle(message: &[u8], modules: &Modules) {
    let fields: Vec<_> =
        message.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok()).collect();
    let value = |name: &str| fields.iter().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    if value("ACTION") != Some("add") {
        return;
    }
    if let (Some("block"), Some(name)) = (value("SUBSYSTEM"), value("DEVNAME")) {
        protect_and_say(name);
    }
    if let Some(alias) = value("MODALIAS") {
        modules.want(alias);
    }
}

fn protect_and_say(name: &str) {
    if let Err(error) = protect::protect(name) {
        let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        log::failed(&format!("write-protecting {name}: {error}: {why}"), "unplug it if it matters");
    }
}
