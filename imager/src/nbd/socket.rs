//! Where clients come in: a Unix socket, or TCP on this machine only, since the protocol knows no password.

use imager_units::{Context, Error, ErrorKind, Result};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How long to wait for a client before looking whether to stop.
const PATIENCE_MS: i64 = 200;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// A TCP port of a loopback address; port 0 takes any that is free.
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = Error;

    /// `unix:PATH`, a path with a `/` in it, or `IP:PORT`.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.contains('/').then_some(text)) {
            return Ok(Self::Unix(path.into()));
        }
        let text = text.replacen("localhost:", "127.0.0.1:", 1);
        text.parse().map(Self::Tcp).map_err(|e| {
            let what = format!("{text:?} is no address such as 127.0.0.1:10809 or /run/imager.sock");
            Error::with_source(ErrorKind::Invalid, what, e)
        })
    }
}

enum Socket {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener, SocketAddr),
}

/// A socket that clients connect to. That of a path goes with it.
pub struct Listener(Socket);

impl Listener {
    /// Begins to listen.
    ///
    /// # Errors
    /// `Exists` when there is something at the path already; `Denied` for an address that others can reach, or by the
    /// system; `Io`.
    pub fn bind(address: &Address) -> Result<Self> {
        let socket = match address {
            Address::Unix(path) => bind_unix(path)?,
            Address::Tcp(address) => bind_tcp(*address)?,
        };
        let wait = TimeVal::milliseconds(PATIENCE_MS);
        let fd = match &socket {
            Socket::Unix(listener, _) => listener.as_fd(),
            Socket::Tcp(listener, _) => listener.as_fd(),
        };
        setsockopt(&fd, sockopt::ReceiveTimeout, &wait)
            .map_err(|errno| Error::io("preparing the socket", errno.into()))?;
        Ok(Self(socket))
    }

    /// What a client is given to connect to export `name`.
    pub fn uri(&self, name: &str) -> String {
        match &self.0 {
            Socket::Unix(_, path) => format!("nbd+unix:///{name}?socket={}", path.display()),
            Socket::Tcp(_, address) => format!("nbd://{address}/{name}"),
        }
    }

    /// The next client; `None` when none came for a moment.
    pub(super) fn accept(&self) -> Result<Option<Stream>> {
        let accepted = match &self.0 {
            Socket::Unix(listener, _) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            Socket::Tcp(listener, _) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
        };
        match accepted {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if is_passing(&error) => Ok(None),
            Err(error) => Err(Error::io("waiting for clients", error)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.0 {
            // Whoever took it away has done this for us.
            let _ = fs::remove_file(path);
        }
    }
}

/// Nobody came, or somebody left before he was let in.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted | ConnectionAborted | ConnectionReset)
}

fn bind_unix(path: &PathBuf) -> Result<Socket> {
    let say = || format!("listening at {}", path.display());
    let path = std::path::absolute(path).context(say)?;
    if fs::symlink_metadata(&path).is_ok() {
        return Err(Error::new(ErrorKind::Exists, format!("{} is there already", path.display())));
    }
    let listener = UnixListener::bind(&path).context(say)?;
    // The image holds whatever the disk held.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).context(say)?;
    Ok(Socket::Unix(listener, path))
}

fn bind_tcp(address: SocketAddr) -> Result<Socket> {
    if !address.ip().is_loopback() {
        let what = format!("{address} can be reached by others, and a client is not asked who it is");
        return Err(Error::new(ErrorKind::Denied, what));
    }
    let say = || format!("listening at {address}");
    let listener = TcpListener::bind(address).context(say)?;
    let address = listener.local_addr().context(say)?;
    Ok(Socket::Tcp(listener, address))
}

/// A client's connection.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    /// Answers are sent at once; whoever is silent for `patience` is no client.
    pub(super) fn prepare(&self, patience: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(patience),
            Self::Tcp(stream) => stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(patience)),
        }
    }

    /// Ends the connection, whoever waits for it.
    pub(super) fn hang_up(&self) {
        // One that ended by itself is what we want.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).read(buf),
            Stream::Tcp(stream) => (&*stream).read(buf),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => (&*stream).write(buf),
            Stream::Tcp(stream) => (&*stream).write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Listener};
    use imager_units::ErrorKind;

    #[test]
    fn addresses_are_read_and_those_that_others_reach_are_refused() {
        let read = |text: &str| text.parse::<Address>();
        assert_eq!(read("/run/x.sock").unwrap(), Address::Unix("/run/x.sock".into()));
        assert_eq!(read("unix:x.sock").unwrap(), Address::Unix("x.sock".into()));
        assert!(read("x.sock").is_err());
        for refused in ["0.0.0.0:0", "[::]:0", "192.0.2.1:10809"] {
            let error = Listener::bind(&read(refused).unwrap()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Denied);
        }
        let listener = Listener::bind(&read("localhost:0").unwrap()).unwrap();
        assert!(listener.uri("disk1").starts_with("nbd://127.0.0.1:") && !listener.uri("").contains(":0/"));
        assert!(listener.accept().unwrap().is_none());
    }
}
