//! A connection from its TLS handshake to its end, each step with a time limit.

use crate::limits::HEAD_BYTES_MAX;
use crate::paced::Paced;
use crate::server::Server;
use crate::service::{self, Ending};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

type Socket = TlsStream<Paced<TcpStream>>;

const HEADERS_MAX: usize = 32;
/// How much of a body is read from the socket at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Serves one client until either side ends it, or the server stops.
pub(crate) async fn serve(server: Server, stream: TcpStream, peer: SocketAddr, stop: watch::Receiver<bool>) {
    // Small answers must not wait for more of them.
    drop(stream.set_nodelay(true));
    let limits = &server.limits;
    let paced = Paced::new(stream, limits.stall, limits.least_bytes);
    let handshake = TlsAcceptor::from(Arc::clone(&server.tls)).accept(paced);
    let socket = match timeout(limits.handshake, handshake).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return server.turn_away(peer, "handshake", &error.to_string()),
        Err(_) => return server.turn_away(peer, "handshake_timeout", "the handshake took too long"),
    };
    let ending = Arc::new(Ending::default());
    let Some(socket) = requests(&server, socket, peer, &ending, stop).await else { return };
    close(socket, server.limits.linger, ending.unread.load(Ordering::Relaxed)).await;
}

/// Answers requests; the socket, if it is still good for a goodbye.
async fn requests(
    server: &Server,
    socket: Socket,
    peer: SocketAddr,
    ending: &Arc<Ending>,
    mut stop: watch::Receiver<bool>,
) -> Option<Socket> {
    let service = service_fn(|request| {
        let answer = service::answer(server.clone(), peer, Arc::clone(ending), request);
        Box::pin(async { Ok::<_, Infallible>(answer.await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.limits.head)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    let mut stopping = *stop.borrow();
    if stopping {
        Pin::new(&mut connection).graceful_shutdown();
    }
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            _ = stop.changed(), if !stopping => {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    // An idle connection that is closed after its requests is no refusal.
    let is_idle = |error: &hyper::Error| error.is_timeout() && ending.answered.load(Ordering::Relaxed);
    if let Some(error) = ended.as_ref().err().filter(|error| !is_idle(error)) {
        let why = if error.is_parse() {
            "malformed"
        } else if error.is_timeout() {
            "slow"
        } else {
            "cut_off"
        };
        server.turn_away(peer, why, &chain(error));
    }
    let answered = ended.as_ref().map_or_else(hyper::Error::is_parse, |()| true);
    answered.then(|| connection.into_parts().io.into_inner())
}

/// Says goodbye. Who closes a socket with bytes unread makes the system throw the answer away, so what a refused client
/// still sends is read for a while.
async fn close(mut socket: Socket, linger: std::time::Duration, unread: bool) {
    let goodbye = async {
        drop(socket.shutdown().await);
        let mut waste = vec![0; 16 << 10];
        while unread && matches!(socket.get_mut().0.read(&mut waste).await, Ok(1..)) {}
    };
    // Who does not go in time is left.
    let _late = timeout(linger, goodbye).await;
}

fn chain(error: &hyper::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
