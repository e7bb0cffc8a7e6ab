//! A share on our own server, over HTTPS.
//!
//! Nothing of ours leaves before the server's certificate is accepted (`tls`). Requests go out and answers come back
//! as long as something moves (`send`, `receive`), and no answer is believed beyond what it proves: lengths are exact,
//! bodies bounded, listings whole (`listing`), redirects refused. What fails is told apart (`failure`): what may pass
//! is `Io`, what will not is `Denied` with a [`Refusal`] as its cause. Nothing is tried again here.

mod failure;
mod listing;
mod receive;
mod refusal;
mod send;
mod tls;
mod token;
mod url;
mod webhook;

pub use refusal::Refusal;
pub(crate) use tls::config as tls_config;
pub use token::Token;
pub use url::{Fingerprint, HttpsUrl};
pub use webhook::post_json;

use crate::rt::Waiter;
use crate::{Entry, Nobody, ObjectName, Put, Store, Watch};
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use listing::Listing;
use receive::{BODY_BYTES_MAX, Pace};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, HeaderName, HeaderValue, RANGE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use std::sync::Arc;
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(10);
/// Shorter than any server keeps a connection, so that none is used while it is being closed.
const IDLE: Duration = Duration::from_secs(15);
/// On every answer of our server. A portal's page is no answer, whatever its status.
const PROTOCOL: HeaderName = HeaderName::from_static("halfhour-share");
const DIGEST: HeaderName = HeaderName::from_static("halfhour-blake3");

/// How long a server may say nothing, unless told otherwise.
pub const SILENCE: Duration = Duration::from_secs(30);

/// A repository on a server.
#[derive(Debug)]
pub struct HttpStore {
    url: HttpsUrl,
    client: Client,
    token: Token,
    silence: Duration,
    rt: Waiter,
}

impl HttpStore {
    /// The repository at `url`, for whoever holds `token`. Does not connect yet. A server that says nothing for
    /// `silence` is given up.
    ///
    /// # Errors
    /// `Denied` when no server could be trusted, `Io` when TLS cannot be prepared.
    pub fn new(url: HttpsUrl, token: Token, silence: Duration) -> Result<Self> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls::config(url.fingerprint())?)
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT.min(silence))
            .pool_idle_timeout(IDLE)
            // What the network does not deliver is lost to the silence too, however much the system holds.
            .tcp_user_timeout(silence)
            .build()
            .map_err(|error| Error::with_source(ErrorKind::Io, "preparing HTTPS", error))?;
        Ok(Self { url, client, token, silence, rt: Waiter::new(Arc::new(Nobody)) })
    }

    /// The same; when `watch` wants to stop, a request that hangs ends within a second, as `Cancelled`.
    #[must_use]
    pub fn with_watch(self, watch: Arc<dyn Watch>) -> Self {
        Self { rt: Waiter::new(watch), ..self }
    }

    /// Makes the repository's folder on the server, unless it is there. Only an admin's token may.
    ///
    /// # Errors
    /// `Denied`; `Io`, `OutOfSpace` from the server.
    pub fn create(&self) -> Result<()> {
        let what = || format!("making {}", self.url);
        let answer = self.ask(self.request(Method::PUT, ""), &[], &what)?;
        match answer.status().as_u16() {
            200 | 201 => Ok(()),
            _ => Err(self.refused(what(), answer)?),
        }
    }

    /// The machine that the token is for; `None` when it is for more than one.
    ///
    /// # Errors
    /// `NotFound` without such a repository; `Denied`, `Io` from the server.
    pub fn machine(&self) -> Result<Option<String>> {
        #[derive(serde::Deserialize)]
        struct Scope {
            machine: Option<String>,
        }
        let what = || format!("asking {} what the token is for", self.url);
        let answer = self.ask(self.request(Method::GET, ""), &[], &what)?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(what(), answer)?);
        }
        let body = self.rt.wait(receive::beginning(answer, self.silence))?;
        let scope = serde_json::from_slice::<Scope>(&body)
            .map_err(|error| failure::strange(what(), format!("no answer to that: {error}")))?;
        Ok(scope.machine)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let bearer = HeaderValue::try_from(format!("Bearer {}", self.token.secret()));
        // A token is printable, so this is always a value.
        let mut bearer = bearer.unwrap_or_else(|_| HeaderValue::from_static(""));
        bearer.set_sensitive(true);
        request.header(AUTHORIZATION, bearer)
    }

    fn object(&self, method: Method, name: &ObjectName) -> RequestBuilder {
        self.request(method, &format!("/objects/{name}"))
    }

    fn ask(&self, request: RequestBuilder, body: &[u8], what: &dyn Fn() -> String) -> Result<Response> {
        let answer = self.rt.wait(send::send(request, body, self.silence, what))??;
        let is_ours = answer.headers().get(PROTOCOL).is_some_and(|version| version == "1");
        if !is_ours && !answer.status().is_redirection() {
            let status = answer.status();
            let why =
                format!("no share server answers there (a portal or proxy in between?), but with {status}");
            return Err(failure::strange(what(), why));
        }
        Ok(answer)
    }

    /// What an answer means that is not the one hoped for.
    fn refused(&self, what: String, answer: Response) -> Result<Error> {
        let status = answer.status();
        let body = self.rt.wait(receive::beginning(answer, self.silence))?;
        Ok(failure::refused(what, status, &body, self.token.secret()))
    }

    fn body(&self, answer: Response, len: usize, what: &dyn Fn() -> String) -> Result<Vec<u8>> {
        match length(&answer) {
            Some(told) if told == len as u64 => {
                self.rt.wait(receive::exactly(answer, len, self.silence, what))?
            }
            told => {
                let told = told.map_or("no length".to_owned(), |told| format!("{told} bytes"));
                Err(failure::strange(what(), format!("the server announces {told} instead of {len} bytes")))
            }
        }
    }

    /// A range that no request can ask for: an empty one, or one longer than any object.
    fn unaskable(&self, name: &ObjectName, part: Extent, what: &dyn Fn() -> String) -> Result<Vec<u8>> {
        match self.len(name)? {
            None => Err(Error::new(ErrorKind::NotFound, what())),
            Some(len) if part.end().get() > len.get() => Err(too_short(what())),
            Some(_) if part.len() == ByteLen::ZERO => Ok(Vec::new()),
            Some(_) => Err(failure::strange(what(), "the server has an object that is too large")),
        }
    }
}

/// Reads a listing that comes in `pieces`.
///
/// # Errors
/// As [`Store::list`].
#[cfg(feature = "fuzz")]
pub fn read_listing<'p>(
    folder: &str,
    pieces: impl IntoIterator<Item = &'p [u8]>,
    each: &mut dyn FnMut(Entry) -> Result<()>,
) -> Result<()> {
    let mut listing = Listing::new(folder)?;
    pieces.into_iter().try_for_each(|piece| listing.take(piece, each))?;
    listing.finish()
}

fn length(answer: &Response) -> Option<u64> {
    answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_short(what: String) -> Error {
    Error::with_source(ErrorKind::Corrupt, what, "the object ends before that")
}

impl Store for HttpStore {
    fn location(&self) -> String {
        self.url.to_string()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        let what = || format!("storing {name} at {}", self.url);
        if bytes.len() > BODY_BYTES_MAX {
            let why = format!("{} bytes are more than a share takes", bytes.len());
            return Err(Error::with_source(ErrorKind::Invalid, what(), why));
        }
        let digest = blake3::hash(bytes).to_hex();
        let request = self.object(Method::PUT, name).header(DIGEST, digest.as_str());
        let answer = self.ask(request.header(CONTENT_LENGTH, bytes.len()), bytes, &what)?;
        match answer.status() {
            StatusCode::CREATED => Ok(Put::Created),
            StatusCode::OK => Ok(Put::Present),
            // What we send is well-formed, so if it was not when it came, it did not come whole.
            StatusCode::BAD_REQUEST => {
                Err(failure::strange(what(), "the object did not come whole to the server"))
            }
            _ => Err(self.refused(what(), answer)?),
        }
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        let what = || format!("reading {name} at {}", self.url);
        let answer = self.ask(self.object(Method::GET, name), &[], &what)?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(what(), answer)?);
        }
        match length(&answer).and_then(|len| usize::try_from(len).ok()) {
            Some(len) if len <= BODY_BYTES_MAX => self.body(answer, len, &what),
            Some(len) => Err(failure::strange(what(), format!("the server wants to send {len} bytes"))),
            None => Err(failure::strange(what(), "the server does not say how long it is")),
        }
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        let what = || format!("reading {part} of {name} at {}", self.url);
        let len = match part.len().to_usize() {
            Some(len) if (1..=BODY_BYTES_MAX).contains(&len) => len,
            _ => return self.unaskable(name, part, &what),
        };
        let (first, last) = (part.start().get(), part.end().get() - 1);
        let request = self.object(Method::GET, name).header(RANGE, format!("bytes={first}-{last}"));
        let answer = self.ask(request, &[], &what)?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
                if !range.is_some_and(|range| range.starts_with(&format!("bytes {first}-{last}/"))) {
                    return Err(failure::strange(what(), "the server sends another part"));
                }
                self.body(answer, len, &what)
            }
            StatusCode::OK => Err(failure::strange(what(), "the server sends the whole instead of a part")),
            StatusCode::RANGE_NOT_SATISFIABLE => Err(too_short(what())),
            _ => Err(self.refused(what(), answer)?),
        }
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        let what = || format!("looking at {name} at {}", self.url);
        let answer = self.ask(self.object(Method::HEAD, name), &[], &what)?;
        match answer.status() {
            StatusCode::OK => match length(&answer) {
                Some(len) => Ok(Some(ByteLen::new(len))),
                None => Err(failure::strange(what(), "the server does not say how long it is")),
            },
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refused(what(), answer)?),
        }
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut listing = Listing::new(folder)?;
        let what = || format!("listing {folder:?} at {}", self.url);
        let path = if folder.is_empty() { "/list".to_owned() } else { format!("/list/{folder}") };
        let mut answer = self.ask(self.request(Method::GET, &path), &[], &what)?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(what(), answer)?);
        }
        let mut pace = Pace::new(self.silence);
        // `each` may itself ask the share for something, so it is called while nothing is waited for.
        while let Some(piece) = self.rt.wait(pace.next(&mut answer, &what))?? {
            pace.aside(|| listing.take(&piece, each))?;
        }
        listing.finish().map_err(|error| error.within(what()))
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let what = || format!("deleting {name} at {}", self.url);
        let answer = self.ask(self.object(Method::DELETE, name), &[], &what)?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(self.refused(what(), answer)?),
        }
    }
}
