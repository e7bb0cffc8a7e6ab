//! The HTTP beneath: trust, time limits, and what each status of the service means to us.

use crate::http::tls_config;
use imager_units::{Error, ErrorKind, Result};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use reqwest::header::{HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Method, redirect};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(15);
/// Longer words about a failure are not read.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Connects with our own trust and limits, whatever object_store would do.
#[derive(Clone, Debug)]
pub(super) struct Wire(Client);

impl Wire {
    /// TLS with the system's roots, or none at all where `plain`: then the service is on this machine.
    pub(super) fn new(plain: bool, silence: Duration) -> Result<Self> {
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls_config(None)?)
            .https_only(!plain)
            .http1_only()
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT.min(silence))
            .pool_idle_timeout(IDLE)
            .tcp_user_timeout(silence);
        if plain {
            builder = builder.no_proxy();
        }
        let client =
            builder.build().map_err(|error| Error::with_source(ErrorKind::Io, "preparing HTTPS", error))?;
        Ok(Self(client))
    }
}

impl HttpConnector for Wire {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// An answer of the service that asking again does not change.
#[derive(Clone, Debug)]
pub struct Verdict {
    status: u16,
    kind: ErrorKind,
    /// What the service says of it, as far as it is fit to be shown.
    code: String,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the service answered with status {}", self.status)?;
        if self.code.is_empty() { Ok(()) } else { write!(f, " ({})", self.code) }
    }
}

impl std::error::Error for Verdict {}

// Written out as async_trait would: one method is no reason for another dependency.
impl HttpService for Wire {
    fn call<'s, 'f>(&'s self, mut request: HttpRequest) -> Answer<'f>
    where
        's: 'f,
        Self: 'f,
    {
        if is_completion(&request) {
            request.headers_mut().insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        Box::pin(async move {
            let response = self.0.call(request).await?;
            let status = response.status().as_u16();
            if status < 300 || kind_of(status, "").is_none() {
                return Ok(response);
            }
            let code = code(response).await;
            match kind_of(status, &code) {
                Some(kind) => Err(HttpError::new(HttpErrorKind::Unknown, Verdict { status, kind, code })),
                None => Err(HttpError::new(HttpErrorKind::Unknown, io::Error::other(code))),
            }
        })
    }
}

type Answer<'f> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>;

/// Whether it makes an object of the parts of an upload. The library has no way to ask for that under a condition, and
/// adds one to its own requests only after they were signed, as here: services want `x-amz-` headers signed, and no others.
fn is_completion(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method() == Method::POST && query.split('&').any(|pair| pair.starts_with("uploadId="))
}

/// The service's word for what went wrong, such as `NoSuchBucket`.
async fn code(response: HttpResponse) -> String {
    let body = start(response).await;
    let text = String::from_utf8_lossy(&body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map_or("", |(code, _)| code);
    if code.len() <= 60 && code.bytes().all(|b| b.is_ascii_alphanumeric()) {
        code.to_owned()
    } else {
        String::new()
    }
}

/// What is said about a failure, or its beginning. Some services do not say how long it will be.
async fn start(response: HttpResponse) -> Vec<u8> {
    let mut stream = response.into_body().bytes_stream();
    let mut start = Vec::new();
    while start.len() < ANSWER_BYTES_MAX
        && let Some(Ok(bytes)) = poll_fn(|context| stream.as_mut().poll_next(context)).await
    {
        start.extend_from_slice(&bytes);
    }
    start
}

/// What a status is to us, where it is final; nothing where asking again may help.
fn kind_of(status: u16, code: &str) -> Option<ErrorKind> {
    match (status, code) {
        (_, "RequestTimeout" | "SlowDown") | (408 | 425 | 429, _) => None,
        (_, "ExpiredToken" | "InvalidToken") => Some(ErrorKind::Denied),
        (_, "QuotaExceeded") | (507, _) => Some(ErrorKind::OutOfSpace),
        (404, _) => Some(ErrorKind::NotFound),
        (409 | 412, _) => Some(ErrorKind::Exists),
        (416, _) => Some(ErrorKind::Corrupt),
        (501, _) => Some(ErrorKind::Unsupported),
        (300..=399 | 401 | 403, _) => Some(ErrorKind::Denied),
        (400..=499, _) => Some(ErrorKind::Invalid),
        _ => None,
    }
}

/// An error of the service or on the way to it, as ours.
pub(super) fn error(what: String, error: object_store::Error) -> Error {
    match (verdict(&error), &error) {
        (Some(verdict), _) => Error::with_source(verdict.kind, what, verdict),
        (None, object_store::Error::InvalidPath { .. }) => {
            Error::with_source(ErrorKind::Invalid, what, error)
        }
        (None, _) => Error::with_source(ErrorKind::Io, what, error),
    }
}

fn verdict(error: &object_store::Error) -> Option<Verdict> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Verdict>() {
            return Some(found.clone());
        }
        next = error.source();
    }
    None
}
