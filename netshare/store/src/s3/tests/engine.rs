//! An S3 service small enough to be told how to misbehave. It does what the real ones do as far as a share needs it:
//! conditional puts, ranges, pages, parts, and their statuses. It does not check signatures.

mod uploads;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use uploads::{Gauge, Uploads};

/// How it misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// Overwrites whatever the condition says, as services do that do not know it.
    NoConditions,
    /// Answers 501 to a condition.
    RefusesConditions,
    /// Every request is answered with this status.
    Status(u16),
    /// Two of five requests are answered with 503.
    Busy,
    /// Says nothing.
    Silent,
    /// Sends half of each body and hangs up.
    HalfBodies,
    /// The first put of each name reports a conflict, as when others touch it at the same instant.
    Conflicts,
    /// Knows no parts.
    RefusesParts,
    /// Answers 501 to a condition where parts are made an object.
    RefusesConditionOfParts,
    /// Overwrites there, as Ceph 16 does.
    NoConditionOfParts,
    /// Begins to answer that parts are an object, then finds that it failed.
    ErrorsInside,
    /// Takes no part before this many are on their way.
    Together(usize),
    /// Says that it waited too long, and not how long that message is.
    TimesOut,
    /// Says nothing to parts.
    SilentParts,
    /// The request with this number, counted from here, goes wrong.
    At(usize, Wrong),
    /// Every part does.
    Parts(Wrong),
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Nothing is done.
    Busy,
    /// It is not allowed.
    Denied,
    /// It is done, and the answer does not come.
    Lost,
}

#[derive(Debug, Default)]
struct State {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    met: Mutex<std::collections::BTreeSet<String>>,
    fault: Mutex<Fault>,
    uploads: Mutex<Uploads>,
    gauge: Gauge,
    /// What somebody else puts under a name just before its parts are made an object.
    rival: Mutex<Option<Vec<u8>>>,
    log: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// A running service; ends when dropped.
pub(super) struct Engine {
    pub(super) address: SocketAddr,
    state: Arc<State>,
}

impl Engine {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { address, state }
    }

    pub(super) fn misbehave(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
        self.state.log.lock().unwrap().clear();
        self.state.gauge.most.store(0, Ordering::SeqCst);
    }

    /// What was asked since it was last told how to misbehave, in words.
    pub(super) fn log(&self) -> Vec<String> {
        self.state.log.lock().unwrap().clone()
    }

    pub(super) fn most_parts_at_once(&self) -> usize {
        self.state.gauge.most.load(Ordering::SeqCst)
    }

    /// Key and number of parts of every upload that is neither completed nor aborted.
    pub(super) fn uploads(&self) -> Vec<(String, usize)> {
        self.state.uploads.lock().unwrap().left()
    }

    /// Removes them, as a bucket's lifecycle rule does.
    pub(super) fn forget_uploads(&self) {
        self.state.uploads.lock().unwrap().clear();
    }

    pub(super) fn let_rival_put(&self, bytes: &[u8]) {
        *self.state.rival.lock().unwrap() = Some(bytes.to_vec());
    }

    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.state.objects.lock().unwrap().get(key).cloned()
    }

    pub(super) fn insert(&self, key: &str, bytes: &[u8]) {
        self.state.objects.lock().unwrap().insert(key.to_owned(), bytes.to_vec());
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.state.objects.lock().unwrap().keys().cloned().collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

struct Request {
    method: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    /// In a word what it asks for.
    fn what(&self) -> &'static str {
        let of_upload = self.query.contains_key("uploadId");
        match self.method.as_str() {
            "POST" if self.query.contains_key("uploads") => "begin",
            "POST" if of_upload => "complete",
            "PUT" if of_upload => "part",
            "DELETE" if of_upload => "abort",
            "PUT" => "put",
            "DELETE" => "delete",
            "HEAD" => "look",
            "GET" if self.key.is_empty() => "list",
            _ => "get",
        }
    }
}

fn serve(stream: &TcpStream, state: &State) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader, state) {
        let number = {
            let mut log = state.log.lock().unwrap();
            log.push(request.what().to_owned());
            log.len() - 1
        };
        let fault = *state.fault.lock().unwrap();
        if !respond(stream, state, &request, number, fault) {
            return;
        }
    }
}

/// Answers one request; whether the connection is kept.
fn respond(stream: &TcpStream, state: &State, request: &Request, number: usize, fault: Fault) -> bool {
    let wrong = match fault {
        Fault::At(nth, wrong) if nth == number => Some(wrong),
        Fault::Parts(wrong) if request.what() == "part" => Some(wrong),
        Fault::SilentParts if request.what() == "part" => {
            thread::sleep(Duration::from_secs(5));
            return false;
        }
        _ => None,
    };
    match (fault, wrong) {
        (Fault::Silent, _) => {
            thread::sleep(Duration::from_secs(5));
            return false;
        }
        (_, Some(Wrong::Lost)) => {
            act(request, state, fault);
            return false;
        }
        (_, Some(Wrong::Denied)) => answer(stream, 403, &[], b"", request),
        (_, Some(Wrong::Busy)) => answer(stream, 503, &[], b"SlowDown", request),
        (Fault::TimesOut, _) => {
            let body = b"<Error><Code>RequestTimeout</Code></Error>";
            let head = format!("HTTP/1.1 400 x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
            drop((&*stream).write_all(&[head.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()));
        }
        (Fault::Status(status), _) => {
            answer(stream, status, &[], b"<Error><Code>Told</Code></Error>", request)
        }
        (Fault::Busy, _) if number % 5 < 2 => answer(stream, 503, &[], b"SlowDown", request),
        _ => {
            let (status, headers, body) = act(request, state, fault);
            if fault == Fault::HalfBodies && body.len() > 1 {
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n", body.len());
                let head =
                    headers.iter().fold(head, |head, (name, value)| format!("{head}{name}: {value}\r\n"));
                let half = &body[..body.len() / 2];
                drop((&*stream).write_all(&[head.as_bytes(), b"\r\n", half].concat()));
                return false;
            }
            answer(stream, status, &headers, &body, request);
        }
    }
    true
}

fn read(reader: &mut BufReader<&TcpStream>, state: &State) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let len = headers.get("content-length").map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    let got = if target.contains("partNumber=") {
        let together = match *state.fault.lock().unwrap() {
            Fault::Together(parts) => parts,
            _ => 1,
        };
        state.gauge.during(together, || reader.read_exact(&mut body))
    } else {
        reader.read_exact(&mut body)
    };
    got.ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(name, value)| (name.to_owned(), decode(value))).collect();
    let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
    Some(Request { method, key: decode(key), query, headers, body })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits: Vec<u8> = rest.by_ref().take(2).collect();
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn plain(status: u16) -> Answer {
    (status, Vec::new(), Vec::new())
}

fn act(request: &Request, state: &State, fault: Fault) -> Answer {
    if let Some(answer) = uploads::act(request, state, fault) {
        return answer;
    }
    let mut objects = state.objects.lock().unwrap();
    match request.method.as_str() {
        "PUT" => {
            let condition = request.headers.get("if-none-match").is_some_and(|value| value == "*");
            if condition && fault == Fault::RefusesConditions {
                return plain(501);
            }
            if fault == Fault::Conflicts && state.met.lock().unwrap().insert(request.key.clone()) {
                return plain(409);
            }
            if condition && fault != Fault::NoConditions && objects.contains_key(&request.key) {
                return plain(412);
            }
            objects.insert(request.key.clone(), request.body.clone());
            (200, vec![("ETag", "\"x\"".to_owned())], Vec::new())
        }
        "DELETE" => {
            objects.remove(&request.key);
            plain(204)
        }
        "GET" if request.key.is_empty() => (200, Vec::new(), list(request, &objects).into_bytes()),
        _ => match objects.get(&request.key) {
            None => plain(404),
            Some(bytes) => get(request, bytes),
        },
    }
}

fn get(request: &Request, bytes: &[u8]) -> Answer {
    let mut headers =
        vec![("ETag", "\"x\"".to_owned()), ("Last-Modified", "Sat, 21 Nov 2026 03:15:00 GMT".to_owned())];
    let Some(range) = request.headers.get("range") else { return (200, headers, bytes.to_vec()) };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    if first >= bytes.len() {
        return (416, Vec::new(), Vec::new());
    }
    let last = last.min(bytes.len() - 1);
    headers.push(("Content-Range", format!("bytes {first}-{last}/{}", bytes.len())));
    (206, headers, bytes[first..=last].to_vec())
}

fn list(request: &Request, objects: &BTreeMap<String, Vec<u8>>) -> String {
    let prefix = request.query.get("prefix").map_or("", String::as_str);
    let after = request.query.get("continuation-token").map_or("", String::as_str);
    let mut found = objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after);
    let page: Vec<_> = found.by_ref().take(1000).collect();
    let mut text = "<?xml version=\"1.0\"?><ListBucketResult>".to_owned();
    for (key, bytes) in &page {
        text += &format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-11-21T03:15:00.000Z</LastModified>\
             <ETag>\"x\"</ETag></Contents>",
            bytes.len()
        );
    }
    if found.next().is_some() {
        text += &format!("<NextContinuationToken>{}</NextContinuationToken>", page.last().unwrap().0);
    }
    text + "</ListBucketResult>"
}

fn answer(mut stream: &TcpStream, status: u16, headers: &[(&str, String)], body: &[u8], request: &Request) {
    let mut head = format!("HTTP/1.1 {status} x\r\n");
    if status != 204 {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let body = if request.method == "HEAD" { &[] } else { body };
    drop(stream.write_all(&[head.as_bytes(), body].concat()));
}
