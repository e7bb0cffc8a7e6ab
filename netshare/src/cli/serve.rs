//! `netshare serve`.

use super::args::{self, Tls};
use super::failure::{Failure, no_socket};
use crate::certificate::host_name;
use crate::{Boot, Identity, Limits, Server, Sockets};
use imager_units::{Context, Error, ErrorKind};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const THREADS_MAX: usize = 4;
/// The repository that the printed URL names; any other is as good.
const REPOSITORY: &str = "default";
const INTERRUPTED: u8 = 130;
/// How long calls to the disk may take once everything else has ended.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// Serves until a signal says to stop.
pub(crate) fn run(options: &args::Serve) -> Result<ExitCode, Failure> {
    super::check_folder(&options.dir)?;
    let limits = Limits::default();
    let identity = match &options.tls {
        Tls::SelfSigned => Identity::self_signed(&options.dir)?,
        Tls::Files { certificate, key } => Identity::from_files(certificate, key)?,
    };
    let blocking_threads = limits.blocking_threads();
    let server = Server::new(&options.dir, &identity, limits)?;
    let sockets = sockets(options)?;
    let address = sockets.share.first().map(TcpListener::local_addr).transpose();
    let address = address.context(|| "asking for the address".to_owned())?;
    if let Some(any) = address.filter(|it| it.ip().is_unspecified()) {
        tracing::info!("listening on {any}: in the URL, any name or address of this machine will do");
    }
    let url =
        address.map(|it| format!("https://{}/{REPOSITORY}#{}\n", authority(it), identity.fingerprint()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(blocking_threads)
        .enable_all()
        .build()
        .context(|| "starting the threads".to_owned())?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let result = runtime.block_on(serve(server, sockets, url.as_deref(), Arc::clone(&interrupted)));
    runtime.shutdown_timeout(DISK_PATIENCE);
    result?;
    let code = if interrupted.load(Ordering::Relaxed) { INTERRUPTED } else { 0 };
    Ok(ExitCode::from(code))
}

async fn serve(
    server: Server,
    sockets: Sockets,
    url: Option<&str>,
    interrupted: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let say = || "waiting for signals".to_owned();
    let mut terminate = signal(SignalKind::terminate()).context(say)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(say)?;
    if let Some(url) = url {
        // Not before signals are heeded. Whoever does not read it can still use the server.
        drop(std::io::stdout().lock().write_all(url.as_bytes()).and_then(|()| std::io::stdout().flush()));
    }
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => interrupted.store(true, Ordering::Relaxed),
        }
    };
    Ok(server.run(sockets, stop).await?)
}

fn sockets(options: &args::Serve) -> Result<Sockets, Failure> {
    let bind = |address: SocketAddr| TcpListener::bind(address).map_err(|error| no_socket(address, error));
    let mut share = Vec::new();
    if options.listen.is_none() {
        let mut passed = listenfd::ListenFd::from_env();
        for number in 0..passed.len() {
            let socket = passed.take_tcp_listener(number).context(|| {
                format!("taking socket {number} from systemd; each has to be a TCP socket that listens")
            })?;
            share.extend(socket);
        }
    }
    if share.is_empty() {
        let default = args::LISTEN.parse().map_err(|error| {
            Error::with_source(ErrorKind::Invalid, args::LISTEN, std::io::Error::other(format!("{error}")))
        });
        share.push(bind(options.listen.map_or(default, Ok)?)?);
    }
    let boot = options.boot.as_deref().map(|folder| -> Result<_, Failure> {
        let listener = bind(options.boot_listen)?;
        let address = listener.local_addr().context(|| "asking for the address".to_owned())?;
        let boot = Boot::new(folder, listener)?;
        tracing::info!("machines boot from http://{}/", authority(address));
        Ok(boot)
    });
    Ok(Sockets { share, metrics: options.metrics.map(bind).transpose()?, boot: boot.transpose()? })
}

/// What a client writes to get there.
fn authority(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    format!("{}:{}", host_name().unwrap_or_else(|| "localhost".to_owned()), address.port())
}
