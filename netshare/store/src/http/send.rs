//! A request on its way: its body in small pieces, so that no second copy of a pack is in memory, and its answer's head.

use super::failure::{broken, silent};
use futures_core::Stream;
use imager_units::{Error, Result};
use reqwest::{Body, RequestBuilder, Response};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

const PIECE_BYTES: usize = 128 << 10;
const PIECES: usize = 4;
/// What the system holds of a body when all of it was handed over is given one more silence to go out (70 KB/s where a
/// silence has 30 s); only then does the server begin to think.
const HELD_BYTES_MAX: u32 = 2 << 20;

/// Sends `request` with `body` and waits for the head of the answer, as long as something moves: no longer than
/// `silence` for each piece of the body, nor for the answer.
pub(super) async fn send(
    request: RequestBuilder,
    body: &[u8],
    silence: Duration,
    what: &dyn Fn() -> String,
) -> Result<Response> {
    let (sender, receiver) = channel(PIECES);
    let request = if body.is_empty() { request } else { request.body(Body::wrap_stream(Pieces(receiver))) };
    let mut answer = pin!(async { request.send().await.map_err(|error| broken(what(), error)) });
    let mut feed = pin!(feed(body, sender, silence));
    // An answer that comes before the body is gone ends the feeding: the server has seen enough.
    let fed = std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Fed::Answered(answer)),
        Poll::Pending => feed.as_mut().poll(cx).map(Fed::Gone),
    });
    match fed.await {
        Fed::Answered(answer) => answer,
        Fed::Gone(Err(Stalled)) => Err(silent(what(), silence)),
        Fed::Gone(Ok(())) => {
            let held = u32::try_from(body.len()).unwrap_or(u32::MAX).min(HELD_BYTES_MAX);
            let longest = silence + silence.mul_f64(f64::from(held) / f64::from(HELD_BYTES_MAX));
            timeout(longest, answer).await.unwrap_or_else(|_| Err(silent(what(), longest)))
        }
    }
}

enum Fed {
    Answered(Result<Response, Error>),
    Gone(Result<(), Stalled>),
}

struct Stalled;

async fn feed(body: &[u8], sender: Sender<Vec<u8>>, silence: Duration) -> Result<(), Stalled> {
    for piece in body.chunks(PIECE_BYTES) {
        match timeout(silence, sender.send(piece.to_vec())).await {
            Ok(Ok(())) => {}
            // Nobody takes them any more: the answer says why.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Stalled),
        }
    }
    Ok(())
}

/// The pieces as they come.
struct Pieces(Receiver<Vec<u8>>);

impl Stream for Pieces {
    type Item = Result<Vec<u8>, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|piece| piece.map(Ok))
    }
}
