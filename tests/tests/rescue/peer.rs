//! Somebody on the other side of a network card: QEMU hands over every Ethernet frame as a datagram, and this answers
//! questions for one address (ARP, RFC 826; echo, RFC 792), in whatever VLAN they come, noting that.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const ADDRESS: [u8; 4] = [192, 0, 2, 1];
const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const VLAN: [u8; 2] = [0x81, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IP: [u8; 2] = [0x08, 0x00];

/// The other side. It ends when dropped.
pub(crate) struct Peer {
    netdev: String,
    echoes: Arc<AtomicU32>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Answers in this VLAN only; in none, where none is named.
    pub(crate) fn new(vlan: Option<u16>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = socket.local_addr().expect("an address").port();
        // QEMU's own port: one that was free a moment ago.
        let other =
            UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
        let place = |end: &str, port| format!("{end}.type=inet,{end}.host=127.0.0.1,{end}.port={port}");
        let netdev = format!("dgram,{},{}", place("local", other), place("remote", port));
        let (echoes, ended) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let (count, is_over) = (Arc::clone(&echoes), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !is_over.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                let Some((answer, is_echo)) = answer(&buffer[..len], vlan) else { continue };
                count.fetch_add(u32::from(is_echo), Ordering::Relaxed);
                drop(socket.send_to(&answer, from));
            }
        });
        Self { netdev, echoes, ended, thread: Some(thread) }
    }

    /// QEMU's `-netdev` for it, but for the name.
    pub(crate) fn netdev(&self) -> &str {
        &self.netdev
    }

    /// How many echoes it sent.
    pub(crate) fn echoes(&self) -> u32 {
        self.echoes.load(Ordering::Relaxed)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The answer to a frame, if it asks us; whether it is an echo.
fn answer(frame: &[u8], vlan: Option<u16>) -> Option<(Vec<u8>, bool)> {
    let (tag, rest) = match frame.get(12..)? {
        [a, b, c, d, rest @ ..] if [*a, *b] == VLAN => (Some(u16::from_be_bytes([*c, *d]) & 0xfff), rest),
        rest => (None, rest),
    };
    if tag != vlan {
        return None;
    }
    let (kind, packet) = rest.split_first_chunk::<2>()?;
    let mut to = frame.get(6..12)?.to_vec();
    to.extend(HARDWARE);
    to.extend(frame.get(12..frame.len() - packet.len())?);
    if *kind == ARP && packet.get(6..8)? == [0, 1] && packet.get(24..28)? == ADDRESS {
        to.extend([0, 1, 8, 0, 6, 4, 0, 2]);
        to.extend(HARDWARE);
        to.extend(ADDRESS);
        to.extend(packet.get(8..18)?);
        return Some((to, false));
    }
    if *kind == IP && packet.get(9) == Some(&1) && packet.get(16..20)? == ADDRESS {
        let mut packet = packet.to_vec();
        let ours: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
        // Exchanging addresses leaves the header's sum as it is; an echo's differs from its request's in the type.
        packet.splice(12..20, ADDRESS.into_iter().chain(ours));
        if *packet.get(20)? != 8 {
            return None;
        }
        packet[20] = 0;
        let sum = u16::from_be_bytes([packet[22], packet[23]]);
        let (sum, carry) = sum.overflowing_add(0x0800);
        packet.splice(22..24, (sum + u16::from(carry)).to_be_bytes());
        to.extend(packet);
        return Some((to, true));
    }
    None
}
