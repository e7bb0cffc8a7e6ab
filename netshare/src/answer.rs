//! Answers: bodies that are counted, and refusals with the status and kind that the protocol gives them.

use crate::record::Record;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use imager_units::{Error, ErrorKind};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// What a client is asked to wait, in seconds, before it tries again.
const RETRY_SECONDS: &str = "2";

const MESSAGE_CHARS_MAX: usize = 300;

/// An answer before it is counted.
pub(crate) type Answer = Response<Payload>;

/// The bytes of an answer: there already, or coming.
#[derive(Debug)]
pub(crate) struct Payload {
    source: Source,
    /// How many there will be, where that is known.
    len: Option<u64>,
}

#[derive(Debug)]
enum Source {
    Whole(Option<Bytes>),
    /// Ends when nobody can send any more and everything sent was taken.
    Coming(mpsc::Receiver<io::Result<Bytes>>),
}

impl Payload {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let len = u64::try_from(bytes.len()).ok();
        Self { source: Source::Whole(Some(bytes)), len }
    }

    pub(crate) fn coming(pieces: mpsc::Receiver<io::Result<Bytes>>, len: Option<u64>) -> Self {
        Self { source: Source::Coming(pieces), len }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match &mut self.source {
            Source::Whole(bytes) => Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(Ok)),
            Source::Coming(pieces) => pieces.poll_recv(cx),
        }
    }
}

/// An answer without a body.
pub(crate) fn bare(status: StatusCode) -> Answer {
    let mut answer = Response::new(Payload::whole(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// An answer of one type with a body.
pub(crate) fn with_body(status: StatusCode, kind: &'static str, payload: Payload) -> Answer {
    let mut answer = Response::new(payload);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A body that tells its record what went out; the record ends with it.
#[derive(Debug)]
pub(crate) struct CountedBody {
    payload: Payload,
    record: Record,
}

impl CountedBody {
    pub(crate) fn new(payload: Payload, mut record: Record) -> Self {
        if payload.len == Some(0) {
            record.completed();
        }
        Self { payload, record }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let polled = ready!(this.payload.poll_piece(cx));
        match &polled {
            Some(Ok(piece)) => {
                this.record.sent(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                if this.payload.len == Some(this.record.bytes_out()) {
                    this.record.completed();
                }
            }
            Some(Err(error)) => this.record.failed(&error.to_string()),
            // Whoever was to send the rest is gone: the answer must not look whole.
            None if this.payload.len.is_some_and(|len| len > this.record.bytes_out()) => {
                return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
            }
            None => this.record.completed(),
        }
        Poll::Ready(polled.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.payload.len.is_some_and(|len| len <= self.record.bytes_out())
    }

    fn size_hint(&self) -> SizeHint {
        match self.payload.len {
            Some(len) => SizeHint::with_exact(len.saturating_sub(self.record.bytes_out())),
            None => SizeHint::default(),
        }
    }
}

/// A request that is not done.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// For the log; what the disk says is nothing for clients.
    cause: Option<Box<Error>>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), cause: None, header: None }
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.header = Some(Box::new((name, value)));
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        // It may repeat what the client sent.
        let message: String = message.into().chars().take(MESSAGE_CHARS_MAX).collect();
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// The same for no token, an unknown one and a revoked one.
    pub(crate) fn unknown_token() -> Self {
        let mut refusal = Self::new(StatusCode::UNAUTHORIZED, "denied", "the token is missing or not valid");
        refusal.set(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        refusal
    }

    pub(crate) fn out_of_scope(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "denied", message)
    }

    pub(crate) fn unknown_method(allowed: &'static str) -> Self {
        let mut refusal =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid", "the method is not known here");
        refusal.set(ALLOW, HeaderValue::from_static(allowed));
        refusal
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "io", "the body came too slowly")
    }

    pub(crate) fn no_length() -> Self {
        Self::new(StatusCode::LENGTH_REQUIRED, "invalid", "a put needs Content-Length, not chunks")
    }

    pub(crate) fn too_large(most: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid", format!("an object has {most} bytes at most"))
    }

    pub(crate) fn past_the_end(len: u64) -> Self {
        let mut refusal = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "corrupt",
            format!("the object has {len} bytes, more are wanted"),
        );
        if let Ok(range) = HeaderValue::from_str(&format!("bytes */{len}")) {
            refusal.set(CONTENT_RANGE, range);
        }
        refusal
    }

    pub(crate) fn other_bytes() -> Self {
        let message = "the body is not what its digest says";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "corrupt", message)
    }

    pub(crate) fn cut_off() -> Self {
        Self::malformed("the body was cut off")
    }

    /// One client does too much at once.
    pub(crate) fn too_many(message: &'static str) -> Self {
        Self::busy(StatusCode::TOO_MANY_REQUESTS, message)
    }

    /// All of them do.
    pub(crate) fn overloaded() -> Self {
        Self::busy(StatusCode::SERVICE_UNAVAILABLE, "too many requests are under way")
    }

    pub(crate) fn stopping() -> Self {
        Self::busy(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping")
    }

    fn busy(status: StatusCode, message: &'static str) -> Self {
        let mut refusal = Self::new(status, "busy", message);
        refusal.set(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
        refusal
    }

    /// What goes into the log.
    pub(crate) fn reason(&self) -> String {
        let mut reason = self.message.clone();
        let mut next: Option<&dyn std::error::Error> = self.cause.as_deref().map(|error| error as _);
        while let Some(error) = next {
            reason.push_str(": ");
            reason.push_str(&error.to_string());
            next = error.source();
        }
        reason
    }

    pub(crate) fn into_answer(self) -> Answer {
        let document = serde_json::json!({ "error": { "kind": self.kind, "message": self.message } });
        let payload = Payload::whole(document.to_string());
        let mut answer = with_body(self.status, "application/json", payload);
        if let Some((name, value)) = self.header.map(|header| *header) {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

/// What the share answered. A disk that refuses or fails is the server's trouble, not the client's.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, kind, message) = match error.kind() {
            ErrorKind::NotFound => {
                (StatusCode::NOT_FOUND, "not_found", "there is no such object or repository")
            }
            ErrorKind::Exists => (StatusCode::CONFLICT, "exists", "the name holds other bytes"),
            ErrorKind::OutOfSpace => {
                (StatusCode::INSUFFICIENT_STORAGE, "out_of_space", "the share has no room left")
            }
            ErrorKind::Invalid => {
                return Self::malformed(error.to_string());
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "io", "the share's disk failed; its log says more"),
        };
        Self { cause: Some(Box::new(error)), ..Self::new(status, kind, message) }
    }
}

/// The length of an answer that is told without its bytes.
pub(crate) fn tell_len(answer: &mut Answer, len: u64) {
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
}
