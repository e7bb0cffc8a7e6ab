//! What lies between a client and its server, and what goes wrong there: a TCP proxy on loopback that hands bytes on
//! until one fault is due.

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// What goes wrong on the connection that carries the fatal byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both ends are told that the connection is broken.
    Reset,
    /// Both ends are told that the other has nothing more to say, in the middle of it.
    Truncate,
    /// Only this direction ends; the other goes on.
    HalfClose,
    /// Nothing more comes, and nobody is told.
    Stall,
    /// From here on every piece takes this long.
    Delay(Duration),
    /// Nothing goes wrong here; [`Proxy::has_fired`] tells whoever waits for the byte.
    Signal,
}

/// A proxy before one server. It ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    /// Bytes handed on, in both directions.
    bytes: AtomicU64,
    fault: Mutex<Option<(u64, Fault)>>,
    fired: AtomicBool,
    ended: AtomicBool,
    connections: Mutex<Vec<Weak<Connection>>>,
}

/// Two sockets, whose only owners are the two threads between them.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// It ends without a goodbye.
    broken: AtomicBool,
    /// It was forgotten: what stalls need not stall any longer.
    forgotten: AtomicBool,
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

impl Proxy {
    /// A proxy that changes nothing yet.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            server,
            bytes: AtomicU64::new(0),
            fault: Mutex::new(None),
            fired: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let inside = Arc::clone(&shared);
        let thread = std::thread::spawn(move || accept(&listener, &inside));
        Self { address, shared, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes handed on since a fault was last ordered or healed.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// One fault, when that many more bytes were handed on. The connections of before are forgotten.
    pub fn order(&self, after: u64, fault: Fault) {
        self.heal();
        *lock(&self.shared.fault) = Some((after, fault));
    }

    /// No fault any more.
    pub fn heal(&self) {
        *lock(&self.shared.fault) = None;
        self.shared.forget();
        self.shared.bytes.store(0, Ordering::SeqCst);
        self.shared.fired.store(false, Ordering::SeqCst);
    }

    /// Whether the fault has happened.
    pub fn has_fired(&self) -> bool {
        self.shared.fired.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn forget(&self) {
        for connection in lock(&self.connections).drain(..).filter_map(|connection| connection.upgrade()) {
            connection.forgotten.store(true, Ordering::SeqCst);
            connection.end(Shutdown::Both);
        }
    }

    /// How many of `len` bytes are handed on before a fault, and the fault.
    fn pass(&self, len: usize) -> (usize, Option<Fault>) {
        let before = self.bytes.fetch_add(len as u64, Ordering::SeqCst);
        let mut fault = lock(&self.fault);
        match *fault {
            Some((at, due)) if at < before + len as u64 => {
                *fault = None;
                let whole = usize::try_from(at.saturating_sub(before)).map_or(len, |whole| whole.min(len));
                (whole, Some(due))
            }
            _ => (len, None),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut pumps = Vec::new();
    for client in listener.incoming().map_while(Result::ok) {
        if shared.ended.load(Ordering::SeqCst) {
            break;
        }
        // A server that is down is down for its clients too.
        let Ok(server) = TcpStream::connect(shared.server) else { continue };
        for socket in [&client, &server] {
            drop(socket.set_nodelay(true));
        }
        let (broken, forgotten) = (AtomicBool::new(false), AtomicBool::new(false));
        let connection = Arc::new(Connection { client, server, broken, forgotten });
        lock(&shared.connections).push(Arc::downgrade(&connection));
        for way in [Way::Up, Way::Down] {
            let (connection, shared) = (Arc::clone(&connection), Arc::clone(shared));
            pumps.push(std::thread::spawn(move || connection.pump(way, &shared)));
        }
    }
    shared.forget();
    pumps.into_iter().for_each(|pump| drop(pump.join()));
}

impl Connection {
    /// Hands on what comes, until it ends or the fault is due.
    fn pump(&self, way: Way, shared: &Shared) {
        let (mut from, mut to) = match way {
            Way::Up => (&self.client, &self.server),
            Way::Down => (&self.server, &self.client),
        };
        let mut buffer = vec![0; 64 << 10];
        let mut delay = Duration::ZERO;
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            std::thread::sleep(delay);
            let (whole, fault) = shared.pass(len);
            if to.write_all(&buffer[..whole]).is_err() {
                break;
            }
            shared.fired.fetch_or(fault.is_some(), Ordering::SeqCst);
            match fault {
                None | Some(Fault::Signal) => {}
                Some(Fault::Delay(time)) => delay = time,
                Some(Fault::Stall) => self.stall(),
                Some(Fault::HalfClose) => break,
                Some(Fault::Truncate) => return self.end(Shutdown::Both),
                Some(Fault::Reset) => return self.reset(),
            }
            if to.write_all(&buffer[whole..len]).is_err() {
                break;
            }
        }
        if !self.broken.load(Ordering::SeqCst) {
            drop(to.shutdown(Shutdown::Write));
        }
    }

    fn stall(&self) {
        while !self.forgotten.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(&self, how: Shutdown) {
        drop(self.client.shutdown(how));
        drop(self.server.shutdown(how));
    }

    /// Whoever closes a socket that lingers for no time says that it is broken. It is closed when both threads are
    /// gone, and ending the reading lets them go without a word to the other ends.
    fn reset(&self) {
        self.broken.store(true, Ordering::SeqCst);
        for socket in [&self.client, &self.server] {
            let _closed = setsockopt(socket, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
        }
        self.end(Shutdown::Read);
    }
}
