//! The page that Prometheus reads, over plain HTTP: meant for this machine only, and off unless asked for.

use crate::limits::HEAD_BYTES_MAX;
use crate::machines;
use crate::server::Server;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

const CONNECTIONS_MAX: usize = 8;
const PATH: &str = "/metrics";

/// Serves the page until told to stop.
pub(crate) async fn serve(server: Server, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            _ = stop.changed() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let server = server.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| page(server.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(server.limits.head)
                .max_header_size(HEAD_BYTES_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // One page, and not for ever.
            let _late = timeout(server.limits.head + server.limits.stall, connection).await;
            drop(place);
        });
    }
}

async fn page(
    server: Server,
    request: Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    if request.method() != Method::GET || request.uri().path() != PATH {
        return Ok(plain(StatusCode::NOT_FOUND, format!("GET {PATH}\n")));
    }
    let repositories = Arc::clone(&server.repositories);
    Ok(match server.disk.call(move || machines::look(&repositories)).await {
        Ok(machines) => plain(StatusCode::OK, server.metrics.text(&machines, SystemTime::now())),
        Err(refusal) => {
            tracing::error!("looking for the machines: {}", refusal.reason());
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the share's disk failed\n".to_owned())
        }
    })
}

fn plain(status: StatusCode, text: String) -> Response<Full<bytes::Bytes>> {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
