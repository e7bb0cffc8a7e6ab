//! The server: what all connections share, and the loop that takes them in.

use crate::disk::Disk;
use crate::limits::{Counts, Limits, peer_of};
use crate::metrics::Metrics;
use crate::repositories::Repositories;
use crate::tokens::Tokens;
use crate::{Boot, Identity, connection, scrape};
use imager_units::{Context, Result};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long the server waits when the system has no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server of one share; clones are the same one.
#[derive(Clone, Debug)]
pub struct Server(Arc<Shared>);

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    pub(crate) repositories: Arc<Repositories>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) disk: Disk,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) per_token: Counts<String>,
    pub(crate) listings: Counts<String>,
    connections: Arc<Semaphore>,
    per_peer: Counts<IpAddr>,
}

impl Deref for Server {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The sockets that a server listens on.
#[derive(Debug)]
pub struct Sockets {
    /// For clients, over TLS.
    pub share: Vec<TcpListener>,
    /// For Prometheus, in the clear.
    pub metrics: Option<TcpListener>,
    /// For machines that boot, in the clear.
    pub boot: Option<Boot>,
}

impl Server {
    /// A server of the share at `share`.
    ///
    /// # Errors
    /// `NotFound` when the folder is not there, `Invalid` when it is none; `Denied`, `Io` from the system.
    pub fn new(share: &Path, identity: &Identity, limits: Limits) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            repositories: Arc::new(Repositories::below(share)?),
            tokens: Arc::new(Tokens::of(share)),
            tls: identity.tls(),
            disk: Disk::new(limits.disk_calls),
            metrics: Arc::default(),
            requests: Arc::new(Semaphore::new(limits.requests)),
            per_token: Counts::new(limits.requests_per_token),
            listings: Counts::new(limits.listings_per_token),
            connections: Arc::new(Semaphore::new(limits.connections)),
            per_peer: Counts::new(limits.connections_per_peer),
            limits,
        })))
    }

    /// Serves until `stop` is over, then lets requests under way finish for a bounded time.
    ///
    /// # Errors
    /// `Io` when a socket cannot be used.
    pub async fn run(self, sockets: Sockets, stop: impl Future<Output = ()>) -> Result<()> {
        let (tell, told) = watch::channel(false);
        tokio::task::spawn_blocking({
            let repositories = Arc::clone(&self.repositories);
            move || repositories.sweep()
        });
        let mut loops = JoinSet::new();
        for listener in sockets.share {
            loops.spawn(self.clone().accept(asynchronous(listener)?, told.clone()));
        }
        if let Some(listener) = sockets.metrics {
            loops.spawn(scrape::serve(self.clone(), asynchronous(listener)?, told.clone()));
        }
        if let Some(boot) = sockets.boot {
            let (server, told) = (self.clone(), told.clone());
            loops.spawn(async move {
                if let Err(error) = boot.serve(server, told).await {
                    tracing::error!("serving boot files: {error}");
                }
            });
        }
        stop.await;
        tracing::info!("stopping");
        tell.send_replace(true);
        let ended =
            tokio::time::timeout(self.limits.shutdown, async { while loops.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tracing::warn!("requests under way were cut off");
        }
        Ok(())
    }

    /// Takes connections in until told to stop, then waits for those under way.
    async fn accept(self, listener: tokio::net::TcpListener, mut stop: watch::Receiver<bool>) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.admit(&mut clients, stream, peer, stop.clone()),
                    Err(error) => {
                        tracing::warn!("no connection can be taken in: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = clients.join_next() => {}
            }
        }
        drop(listener);
        while clients.join_next().await.is_some() {}
    }

    fn admit(
        &self,
        clients: &mut JoinSet<()>,
        stream: TcpStream,
        peer: SocketAddr,
        stop: watch::Receiver<bool>,
    ) {
        let Ok(place) = Arc::clone(&self.connections).try_acquire_owned() else {
            return self.turn_away(peer, "connections", "too many connections");
        };
        let Some(counted) = self.per_peer.enter(peer_of(peer.ip())) else {
            return self.turn_away(peer, "connections_per_peer", "too many connections from there");
        };
        let server = self.clone();
        clients.spawn(async move {
            server.metrics.connected();
            connection::serve(server.clone(), stream, peer, stop).await;
            server.metrics.disconnected();
            drop((place, counted));
        });
    }

    pub(crate) fn turn_away(&self, peer: SocketAddr, why: &'static str, reason: &str) {
        self.metrics.refuse(why);
        tracing::info!(target: "access", %peer, end = why, problem = reason);
    }
}

/// Hands a socket over to the runtime.
pub(crate) fn asynchronous(listener: TcpListener) -> Result<tokio::net::TcpListener> {
    let say = || "listening".to_owned();
    listener.set_nonblocking(true).context(say)?;
    tokio::net::TcpListener::from_std(listener).context(say)
}
