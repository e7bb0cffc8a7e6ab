//! The files that machines boot from over the network, in the clear: firmware knows neither our certificate nor a token.
//!
//! One folder, read-only; what lies in it is public. Nothing here looks at a repository.

use crate::answer::{Answer, CountedBody, Refusal};
use crate::download;
use crate::limits::HEAD_BYTES_MAX;
use crate::paced::Paced;
use crate::record::Record;
use crate::server::Server;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use imager_units::{Context, Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use std::convert::Infallible;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// A rack that starts at once.
const CONNECTIONS_MAX: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The folder and the socket for it.
#[derive(Debug)]
pub struct Boot {
    folder: File,
    listener: TcpListener,
}

impl Boot {
    /// Serves the files below `folder`.
    ///
    /// # Errors
    /// `NotFound` when it is not there, `Invalid` when it is no folder; `Denied`, `Io`.
    pub fn new(folder: &Path, listener: TcpListener) -> Result<Self> {
        let handle = File::open(folder).context(|| format!("opening {}", folder.display()))?;
        let kind = handle.metadata().context(|| format!("looking at {}", folder.display()))?;
        if !kind.is_dir() {
            return Err(Error::new(ErrorKind::Invalid, format!("{} is no folder", folder.display())));
        }
        Ok(Self { folder: handle, listener })
    }

    /// Serves until told to stop; what is under way then is cut off, and asked for again by who boots.
    pub(crate) async fn serve(self, server: Server, mut stop: watch::Receiver<bool>) -> Result<()> {
        let listener = crate::server::asynchronous(self.listener)?;
        let (folder, places) = (Arc::new(self.folder), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        loop {
            let accepted = tokio::select! {
                _ = stop.changed() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                server.turn_away(peer, "boot_connections", "too many machines boot at once");
                continue;
            };
            let (server, folder) = (server.clone(), Arc::clone(&folder));
            tokio::spawn(async move {
                let limits = &server.limits;
                let service =
                    service_fn(|request| answer(server.clone(), Arc::clone(&folder), peer, request));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(limits.head)
                    .max_header_size(HEAD_BYTES_MAX)
                    .serve_connection(
                        TokioIo::new(Paced::new(stream, limits.stall, limits.least_bytes)),
                        service,
                    );
                // Why a machine went away in the middle is its own business.
                drop(connection.await);
                drop(place);
            });
        }
    }
}

async fn answer(
    server: Server,
    folder: Arc<File>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> std::result::Result<Response<CountedBody>, Infallible> {
    let mut record = Record::begin(&server.metrics, peer, request.method());
    let answer = match file(&server, &folder, &request, &mut record).await {
        Ok(answer) => answer,
        Err(refusal) => {
            record.failed(&refusal.reason());
            refusal.into_answer()
        }
    };
    record.answered(answer.status());
    Ok(answer.map(|payload| CountedBody::new(payload, record)))
}

async fn file(
    server: &Server,
    folder: &Arc<File>,
    request: &Request<Incoming>,
    record: &mut Record,
) -> std::result::Result<Answer, Refusal> {
    let is_head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => return Err(Refusal::unknown_method("GET, HEAD")),
    };
    let name = request.uri().path().trim_start_matches('/').to_owned();
    record.about(None, &format!("boot/{name}"));
    check(&name)?;
    let folder = Arc::clone(folder);
    let (file, len) = server.disk.call(move || open(&folder, &name)).await?;
    if is_head {
        return Ok(download::length(len));
    }
    download::send_file(server, file, len, request.headers()).await
}

/// Names are plain: what needs an escape, or begins with a dot, is not handed out.
fn check(name: &str) -> std::result::Result<(), Refusal> {
    let plain = |part: &str| {
        let letters = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
        !part.is_empty() && !part.starts_with('.') && letters
    };
    if name.split('/').all(plain) {
        return Ok(());
    }
    Err(Refusal::from(Error::new(ErrorKind::NotFound, "no such file")))
}

/// A regular file below the folder, whatever links lie there.
fn open(folder: &File, name: &str) -> Result<(File, u64)> {
    let absent = || Error::new(ErrorKind::NotFound, "no such file");
    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let how =
        OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).mode(Mode::empty());
    let file = match openat2(folder, name, how.resolve(beneath)) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => return Err(absent()),
        Err(errno) => return Err(std::io::Error::from(errno)).context(|| "opening a boot file".to_owned()),
    };
    let found = file.metadata().context(|| "looking at a boot file".to_owned())?;
    if found.is_file() { Ok((file, found.len())) } else { Err(absent()) }
}

#[cfg(test)]
mod tests {
    use super::{check, open};
    use std::fs::File;

    #[test]
    fn only_plain_files_below_the_folder_are_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("grub")).expect("a folder");
        std::fs::write(at("grub/grub.cfg"), b"menu").expect("a file");
        std::os::unix::fs::symlink("/etc/passwd", at("link")).expect("a link");
        std::os::unix::fs::symlink("/etc", at("folder")).expect("a link");
        let handle = File::open(folder.path()).expect("the folder");
        assert_eq!(open(&handle, "grub/grub.cfg").expect("it is there").1, 4);
        for name in ["link", "folder/passwd", "grub", "absent", "grub/grub.cfg/x", "/etc/passwd", "../x"] {
            open(&handle, name).expect_err(name);
        }
        for name in ["", "..", "../x", "a//b", "/a", ".netshare/tokens", "a/.b", "a%2fb", "a\\b", "a b"] {
            assert!(check(name).is_err(), "{name:?}");
        }
        assert!(check("grub/x86_64-efi/mod_1.2+b.lst").is_ok());
    }
}
