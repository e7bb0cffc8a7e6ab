//! A share in an S3 bucket: every object of the repository is one of the bucket, below a prefix.
//!
//! Exclusive puts are conditional ones (`If-None-Match: *`). A service that does not know them answers as if there were
//! no condition and overwrites; so before the first put of a process it is tried whether the condition holds, below a
//! name that no listing shows. An object goes in one request, which the service stores whole or not at all; packs go in
//! `parts`. Nothing is tried again here.

mod parts;
mod settings;
#[cfg(test)]
mod tests;
mod wire;

pub use settings::{NoCredentials, S3Settings, S3Url};
pub use wire::Verdict;

use crate::rt::Waiter;
use crate::{Entry, Nobody, ObjectName, Put, Store, Watch, name};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent, Result};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig,
};
use parts::Upload;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use wire::Wire;

/// How often a put tries again when others create and delete the same name meanwhile.
const TRIES: usize = 16;
/// No object of a repository is larger.
const OBJECT_BYTES_MAX: u64 = 64 << 20;
/// A line slower than this is given up.
const SLOWEST_BYTES_PER_SECOND: u64 = 16 << 10;

/// A prefix in a bucket as a share.
pub struct S3Store {
    url: S3Url,
    client: AmazonS3,
    silence: Duration,
    rt: Waiter,
    /// A conditional put was seen to hold.
    exclusive: AtomicBool,
    /// What that is tried with.
    probe: Mutex<Probe>,
    /// The service was not seen to refuse parts.
    takes_parts: AtomicBool,
    /// What broke off and may be gone on with.
    uploads: Mutex<Vec<Upload>>,
}

/// An object that is put only to see whether it is overwritten.
struct Probe {
    number: u64,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// It was put, or may have been.
    Asked,
    /// Another put of its name was refused.
    Held,
    /// And did not change it.
    Kept,
    /// It was overwritten.
    Broken,
}

impl S3Store {
    /// The share at `url`. Does not connect yet. A service that says nothing for `silence` is given up.
    ///
    /// # Errors
    /// `Denied` without credentials or trusted roots, `Invalid` for an endpoint that is neither `https://` nor this
    /// machine, `Io` when TLS cannot be prepared.
    pub fn new(url: S3Url, settings: &S3Settings, silence: Duration) -> Result<Self> {
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_http_connector(Wire::new(settings.is_plain(), silence)?)
            .with_retry(once)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_disable_bulk_delete(true)
            .with_bucket_name(url.bucket())
            .with_region(&settings.region)
            .with_access_key_id(&settings.key_id)
            .with_secret_access_key(settings.secret.expose());
        if let Some(token) = &settings.token {
            builder = builder.with_token(token.expose());
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(settings.is_plain());
        }
        let client = builder
            .build()
            .map_err(|error| Error::with_source(ErrorKind::Invalid, format!("opening {url}"), error))?;
        let probe = Probe { number: RandomState::new().build_hasher().finish(), stage: Stage::New };
        let rt = Waiter::new(Arc::new(Nobody));
        Ok(Self {
            url,
            client,
            silence,
            rt,
            exclusive: AtomicBool::new(false),
            probe: Mutex::new(probe),
            takes_parts: AtomicBool::new(true),
            uploads: Mutex::default(),
        })
    }

    /// The same; when `watch` wants to stop, a request that hangs ends within a second, as `Cancelled`.
    #[must_use]
    pub fn with_watch(mut self, watch: Arc<dyn Watch>) -> Self {
        self.rt = Waiter::new(watch);
        self
    }

    fn path(&self, name: &str) -> Path {
        Path::from_iter(
            self.url.prefix().split('/').chain(name.split('/')).filter(|segment| !segment.is_empty()),
        )
    }

    /// Waits for what moves `len` bytes.
    fn wait<T>(
        &self,
        what: &str,
        len: u64,
        future: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let limit = self.silence.saturating_add(Duration::from_secs(len / SLOWEST_BYTES_PER_SECOND));
        let say = || format!("{what} in {}", self.url);
        // The timer has to be made inside the runtime.
        match self.rt.wait(async { tokio::time::timeout(limit, future).await })? {
            Ok(result) => result.map_err(|error| wire::error(say(), error)),
            Err(_) => Err(Error::new(ErrorKind::Io, format!("{}: no answer in time", say()))),
        }
    }

    fn create(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from(bytes.to_vec());
        let put = self.client.put_opts(path, payload, options);
        self.wait(&format!("storing {path}"), bytes.len() as u64, put).map(drop)
    }

    /// Tries whether a name is ever given twice. A try that failed midway goes on where it was.
    fn check_exclusive(&self) -> Result<()> {
        if self.exclusive.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(&format!(".probe-{:016x}", probe.number));
        if probe.stage == Stage::New {
            probe.stage = Stage::Asked;
            match self.create(&path, b"first") {
                Err(error) if error.kind() == ErrorKind::Unsupported => return Err(self.not_exclusive()),
                created => created?,
            }
        }
        if probe.stage == Stage::Asked {
            // Also where the answer to the first was lost: then this one is the first or the second.
            match self.create(&path, b"second") {
                Err(error) if error.kind() == ErrorKind::Exists => probe.stage = Stage::Held,
                Err(error) => return Err(error),
                Ok(()) => match self.create(&path, b"third") {
                    Err(error) if error.kind() == ErrorKind::Exists => probe.stage = Stage::Held,
                    Err(error) => return Err(error),
                    Ok(()) => probe.stage = Stage::Broken,
                },
            }
        }
        if probe.stage == Stage::Held {
            let (kept, _) = self.fetch("reading a probe", &path, GetOptions::default())?;
            probe.stage = if kept == b"first" || kept == b"second" { Stage::Kept } else { Stage::Broken };
        }
        match self.wait("removing a probe", 0, self.client.delete(&path)) {
            Err(error) if error.kind() == ErrorKind::Io => return Err(error),
            // Whoever may not delete leaves it; no listing shows it.
            Err(error) => tracing::info!("{path} stays behind: {error}"),
            Ok(()) => {}
        }
        if probe.stage == Stage::Broken {
            probe.stage = Stage::New;
            return Err(self.not_exclusive());
        }
        self.exclusive.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn not_exclusive(&self) -> Error {
        let what = format!(
            "the service of {} does not honour conditional puts (If-None-Match: *): two machines that capture at \
             once, or a capture and a prune, could overwrite each other's objects unseen; nothing is stored there",
            self.url
        );
        Error::unsupported(what)
    }

    /// The bytes, and the length of the whole object.
    fn fetch(&self, what: &str, path: &Path, options: GetOptions) -> Result<(Vec<u8>, u64)> {
        let result: GetResult = self.wait(what, 0, self.client.get_opts(path, options))?;
        let (len, whole) = (result.range.end.saturating_sub(result.range.start), result.meta.size);
        if len > OBJECT_BYTES_MAX {
            return Err(Error::corrupt(format!(
                "{path} in {} has {len} bytes: it is none of ours",
                self.url
            )));
        }
        let bytes = self.wait(what, len, result.bytes())?;
        if bytes.len() as u64 != len {
            let what = format!("{path} in {}: {} of {len} bytes came", self.url, bytes.len());
            return Err(Error::new(ErrorKind::Io, what));
        }
        Ok((bytes.into(), whole))
    }

    fn head(&self, name: &ObjectName) -> Result<Option<ObjectMeta>> {
        let path = self.path(name.as_str());
        match self.wait(&format!("looking at {name}"), 0, self.client.head(&path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Whether the object is there with just these bytes; not when it is not there.
    fn is_present(&self, name: &ObjectName, bytes: &[u8]) -> Result<bool> {
        self.head(name)?.map_or(Ok(false), |there| self.is_same(name, bytes, &there))
    }

    /// Whether what is there has just these bytes; not when it is not there any more.
    fn is_same(&self, name: &ObjectName, bytes: &[u8], there: &ObjectMeta) -> Result<bool> {
        let is_same = there.size == bytes.len() as u64
            && match self.get(name) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                found => found? == bytes,
            };
        if is_same {
            return Ok(true);
        }
        Err(Error::new(ErrorKind::Exists, format!("{name} is in {} with other content", self.url)))
    }

    /// A key such as `a//b` is no path to the library, which then fails the whole page.
    fn odd_key(&self, error: Error) -> Error {
        let is_answer = std::error::Error::source(&error).is_some_and(|cause| cause.is::<Verdict>());
        if is_answer || error.kind() != ErrorKind::Invalid {
            return error;
        }
        let what =
            format!("below {} lies a key that cannot be listed: remove it, or use another prefix", self.url);
        Error::with_source(ErrorKind::Unsupported, what, error)
    }

    fn entry(&self, meta: &ObjectMeta) -> Option<Entry> {
        let key = meta.location.as_ref();
        let prefix = self.url.prefix();
        let name = if prefix.is_empty() { key } else { key.strip_prefix(prefix)?.strip_prefix('/')? };
        let seconds = u64::try_from(meta.last_modified.timestamp()).ok()?;
        Some(Entry {
            name: ObjectName::new(name).ok()?,
            len: ByteLen::new(meta.size),
            received: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
        })
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client holds the credentials.
        f.debug_struct("S3Store").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Store for S3Store {
    fn location(&self) -> String {
        self.url.to_string()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.check_exclusive()?;
        if self.takes_parts.load(Ordering::SeqCst)
            && parts::is_for_parts(name, bytes)
            && let Some(put) = self.put_in_parts(name, bytes)?
        {
            return Ok(put);
        }
        for _ in 0..TRIES {
            match self.create(&self.path(name.as_str()), bytes) {
                Err(error) if error.kind() == ErrorKind::Exists => {
                    if self.is_present(name, bytes)? {
                        return Ok(Put::Present);
                    }
                }
                created => return created.map(|()| Put::Created),
            }
        }
        let what = format!("{name} in {} is created and deleted by others again and again", self.url);
        Err(Error::new(ErrorKind::Io, what))
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        let what = format!("reading {name}");
        self.fetch(&what, &self.path(name.as_str()), GetOptions::default()).map(|(bytes, _)| bytes)
    }

    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        let short =
            |len: u64| Error::corrupt(format!("{name} in {} has {len} bytes, {part} are wanted", self.url));
        if part.len() == ByteLen::ZERO {
            let meta = self
                .head(name)?
                .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{name} is not in {}", self.url)))?;
            return if part.start() > ByteOffset::new(meta.size) {
                Err(short(meta.size))
            } else {
                Ok(Vec::new())
            };
        }
        let range = GetRange::Bounded(part.start().get()..part.end().get());
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let (bytes, whole) =
            self.fetch(&format!("reading {part} of {name}"), &self.path(name.as_str()), options)?;
        if ByteLen::of(&bytes) == part.len() { Ok(bytes) } else { Err(short(whole)) }
    }

    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        Ok(self.head(name)?.map(|meta| ByteLen::new(meta.size)))
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        name::check_folder(folder)?;
        let mut prefix = self.path(folder).to_string();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let prefix = Some(prefix.as_str()).filter(|prefix| !prefix.is_empty());
        let mut options = PaginatedListOptions::default();
        loop {
            let page = self.client.list_paginated(prefix, options.clone());
            let page =
                self.wait(&format!("listing {folder:?}"), 0, page).map_err(|error| self.odd_key(error))?;
            let entries = page.result.objects.iter().filter_map(|meta| self.entry(meta));
            // Some tools put an empty object in the place of a folder, whose key ends in a slash.
            entries.filter(|entry| entry.name.is_below(folder)).try_for_each(&mut *each)?;
            match page.page_token {
                Some(token) if options.page_token.as_ref() != Some(&token) => {
                    options.page_token = Some(token)
                }
                Some(_) => {
                    let what = format!("the service of {} lists the same page again and again", self.url);
                    return Err(Error::new(ErrorKind::Io, what));
                }
                None => return Ok(()),
            }
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        match self.wait(&format!("deleting {name}"), 0, self.client.delete(&self.path(name.as_str()))) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            deleted => deleted,
        }
    }
}
