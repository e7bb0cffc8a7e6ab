//! An S3 service small enough to be told how to misbehave. It does what the real ones do as far as a share needs it:
//! conditional puts, ranges, pages, and their statuses. It does not check signatures.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

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
}

#[derive(Debug, Default)]
struct State {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    met: Mutex<std::collections::BTreeSet<String>>,
    fault: Mutex<Fault>,
    requests: AtomicUsize,
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

fn serve(stream: &TcpStream, state: &State) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let number = state.requests.fetch_add(1, Ordering::SeqCst);
        let fault = *state.fault.lock().unwrap();
        match fault {
            Fault::Silent => {
                thread::sleep(Duration::from_secs(5));
                return;
            }
            Fault::Status(status) => {
                answer(stream, status, &[], b"<Error><Code>Told</Code></Error>", &request)
            }
            Fault::Busy if number % 5 < 2 => answer(stream, 503, &[], b"SlowDown", &request),
            _ => {
                let (status, headers, body) = act(&request, state, fault);
                if fault == Fault::HalfBodies && body.len() > 1 {
                    let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n", body.len());
                    let head =
                        headers.iter().fold(head, |head, (name, value)| format!("{head}{name}: {value}\r\n"));
                    let half = &body[..body.len() / 2];
                    drop((&*stream).write_all(&[head.as_bytes(), b"\r\n", half].concat()));
                    return;
                }
                answer(stream, status, &headers, &body, &request);
            }
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
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
    reader.read_exact(&mut body).ok()?;
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

fn act(request: &Request, state: &State, fault: Fault) -> Answer {
    let mut objects = state.objects.lock().unwrap();
    let plain = |status| (status, Vec::new(), Vec::new());
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
