//! Objects in parts, as services do it: nothing is to be seen before the completion, which checks what it is told.

use super::{Answer, Fault, Request, State, plain};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const PART_BYTES_MIN: usize = 5 << 20;

/// Parts by number.
type Parts = BTreeMap<usize, Vec<u8>>;

#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// Key and parts by id.
    open: BTreeMap<String, (String, Parts)>,
    begun: usize,
}

impl Uploads {
    /// Key and number of parts of what is neither completed nor aborted.
    pub(super) fn left(&self) -> Vec<(String, usize)> {
        self.open.values().map(|(key, parts)| (key.clone(), parts.len())).collect()
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
}

/// How many parts are on their way, and how many were at most.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    now: AtomicUsize,
    pub(super) most: AtomicUsize,
}

impl Gauge {
    /// Takes a part, after as many as `together` were on their way at once.
    pub(super) fn during<T>(&self, together: usize, take: impl FnOnce() -> T) -> T {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        while self.most.load(Ordering::SeqCst) < together {
            thread::sleep(Duration::from_millis(1));
        }
        let taken = take();
        self.now.fetch_sub(1, Ordering::SeqCst);
        taken
    }
}

/// What a request about an upload does; nothing if it is about none.
pub(super) fn act(request: &Request, state: &State, fault: Fault) -> Option<Answer> {
    let mut uploads = state.uploads.lock().unwrap();
    if request.query.contains_key("uploads") {
        if fault == Fault::RefusesParts {
            return Some(plain(501));
        }
        uploads.begun += 1;
        let id = format!("upload-{}", uploads.begun);
        uploads.open.insert(id.clone(), (request.key.clone(), Parts::new()));
        let body = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        return Some((200, Vec::new(), body.into_bytes()));
    }
    let id = request.query.get("uploadId")?;
    let Some((key, parts)) = uploads.open.get_mut(id) else {
        return Some((404, Vec::new(), b"<Error><Code>NoSuchUpload</Code></Error>".to_vec()));
    };
    assert_eq!(*key, request.key, "an upload is of one object");
    Some(match request.method.as_str() {
        "PUT" => {
            let number = request.query["partNumber"].parse().unwrap();
            parts.insert(number, request.body.clone());
            (200, vec![("ETag", etag(&request.body))], Vec::new())
        }
        "DELETE" => {
            uploads.open.remove(id);
            plain(204)
        }
        _ => {
            let answer = complete(request, parts, state, fault);
            if answer.0 == 200 && !answer.2.starts_with(b"<Error>") {
                uploads.open.remove(id);
            }
            answer
        }
    })
}

fn complete(request: &Request, parts: &Parts, state: &State, fault: Fault) -> Answer {
    let mut objects = state.objects.lock().unwrap();
    if let Some(bytes) = state.rival.lock().unwrap().take() {
        objects.insert(request.key.clone(), bytes);
    }
    let condition = request.headers.get("if-none-match").is_some_and(|value| value == "*");
    assert!(condition, "a completion without a condition");
    match fault {
        Fault::RefusesConditionOfParts => return plain(501),
        Fault::ErrorsInside => {
            return (200, Vec::new(), b"<Error><Code>InternalError</Code></Error>".to_vec());
        }
        Fault::NoConditionOfParts => {}
        _ if objects.contains_key(&request.key) => return plain(412),
        _ => {}
    }
    let listed: String = parts
        .iter()
        .map(|(n, part)| format!("<Part><ETag>{}</ETag><PartNumber>{n}</PartNumber></Part>", etag(part)))
        .collect();
    let body = String::from_utf8(request.body.clone()).unwrap().replace("&quot;", "\"");
    assert_eq!(body, format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"));
    let sizes: Vec<usize> = parts.values().map(Vec::len).collect();
    assert!(
        sizes[..sizes.len() - 1].iter().all(|len| *len >= PART_BYTES_MIN && *len == sizes[0]),
        "{sizes:?}"
    );
    objects.insert(request.key.clone(), parts.values().flatten().copied().collect());
    let body = "<CompleteMultipartUploadResult><ETag>\"x\"</ETag></CompleteMultipartUploadResult>";
    (200, Vec::new(), body.as_bytes().to_vec())
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(bytes).to_hex()[..32])
}
