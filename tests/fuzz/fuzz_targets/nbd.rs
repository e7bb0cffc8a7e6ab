//! A client of the network block device that says anything: what it is told are well-formed replies to what it asked,
//! and every byte in them is the disk's.
//!
//! The first byte is the client's flags. Then messages: a byte below 128 chooses an option, the next tells the length of
//! its data; one above chooses a request, and flags, offset (three bytes) and length (three bytes) follow; 255 sends the
//! rest as it is.

#![no_main]

mod repository;

use imager::nbd::{self, Export};
use imager_image::manifest::Kind;
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::sync::LazyLock;

const KIB: usize = 1 << 10;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
const READ: u16 = 0;
/// More of them only take longer.
const MOST_REQUESTS: usize = 8;
/// Nothing that the server says but content is longer.
const MOST_TALK_BYTES: usize = 64 * KIB;

static DISK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let parts = [repository::noise(1, 100 * KIB), vec![0; 200 * KIB], repository::noise(2, 50 * KIB + 512)];
    parts.concat()
});

thread_local! {
    static EXPORTS: RefCell<Vec<Export<'static>>> = RefCell::new({
        let opened = Box::leak(Box::new(repository::open(&repository::create())));
        let manifest = repository::take(opened, &DISK, Kind::Full);
        nbd::exports(opened, &manifest).expect("it was just captured")
    });
}

/// What a client sends, and what it asks for by that.
struct Script {
    sent: Vec<u8>,
    requests: Vec<Request>,
    /// It ends in bytes of which nobody knows what they ask for.
    is_wild: bool,
}

struct Request {
    kind: u16,
    offset: usize,
    len: usize,
}

impl Script {
    fn read(data: &[u8]) -> Option<Self> {
        let (flags, mut rest) = data.split_first()?;
        let mut script =
            Self { sent: u32::from(*flags).to_be_bytes().to_vec(), requests: Vec::new(), is_wild: false };
        while let Some((tag, behind)) = rest.split_first() {
            rest = match tag {
                255 => {
                    script.sent.extend(behind);
                    script.is_wild = true;
                    break;
                }
                128.. => script.request(u16::from(tag & 15), behind)?,
                _ => script.option(u32::from(tag & 15), behind)?,
            };
        }
        Some(script)
    }

    fn option<'d>(&mut self, number: u32, rest: &'d [u8]) -> Option<&'d [u8]> {
        let (len, rest) = rest.split_first()?;
        let (data, rest) = rest.split_at_checked(usize::from(*len)).unwrap_or((rest, &[]));
        self.sent.extend(OPTION_MAGIC.to_be_bytes());
        self.sent.extend(number.to_be_bytes());
        self.sent.extend(u32::from(*len).to_be_bytes());
        self.sent.extend(data);
        Some(rest)
    }

    fn request<'d>(&mut self, kind: u16, rest: &'d [u8]) -> Option<&'d [u8]> {
        let ([flags, a, b, c, d, e, f], rest) = rest.split_first_chunk()?;
        if self.requests.len() == MOST_REQUESTS {
            return None;
        }
        let (offset, len) = (u32::from_be_bytes([0, *a, *b, *c]), u32::from_be_bytes([0, *d, *e, *f]));
        self.sent.extend(REQUEST_MAGIC.to_be_bytes());
        self.sent.extend(u16::from(*flags).to_be_bytes());
        self.sent.extend(kind.to_be_bytes());
        self.sent.extend((self.requests.len() as u64).to_be_bytes());
        self.sent.extend(u64::from(offset).to_be_bytes());
        self.sent.extend(len.to_be_bytes());
        self.requests.push(Request { kind, offset: offset as usize, len: len as usize });
        Some(rest)
    }
}

/// Both ends of the connection, as the server sees them.
struct Wire<'s> {
    sent: &'s [u8],
    said: Vec<u8>,
}

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.sent.read(buf)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.said.extend(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(script) = Script::read(data) else { return };
    let mut wire = Wire { sent: &script.sent, said: Vec::new() };
    let _ = EXPORTS.with_borrow(|exports| nbd::converse(&mut wire, exports));
    if !script.is_wild {
        Replies { rest: &wire.said, requests: &script.requests }.check();
    }
});

/// What the server said.
struct Replies<'s> {
    rest: &'s [u8],
    requests: &'s [Request],
}

impl<'s> Replies<'s> {
    fn take(&mut self, len: usize) -> &'s [u8] {
        let (head, rest) = self.rest.split_at_checked(len).expect("replies are whole");
        self.rest = rest;
        head
    }

    fn number(&mut self, bytes: usize) -> u64 {
        self.take(bytes).iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }

    fn len(&mut self) -> usize {
        usize::try_from(self.number(4)).expect("64 bits")
    }

    fn is_next(&self, magic: &[u8]) -> bool {
        self.rest.starts_with(magic)
    }

    fn check(mut self) {
        assert_eq!(self.take(16), b"NBDMAGICIHAVEOPT");
        self.take(2);
        while self.is_next(&OPTION_REPLY_MAGIC.to_be_bytes()) {
            self.take(16);
            let len = self.len();
            assert!(len <= MOST_TALK_BYTES);
            self.take(len);
        }
        // An export that was chosen the old way: its size, flags, and zeros for who wants them.
        if self.is_next(&(DISK.len() as u64).to_be_bytes()) {
            self.take(10);
            if self.is_next(&[0; 124]) {
                self.take(124);
            }
        }
        let mut answered = None;
        while !self.rest.is_empty() {
            let number = match u32::try_from(self.number(4)).expect("four bytes") {
                SIMPLE_REPLY_MAGIC => self.simple(),
                STRUCTURED_REPLY_MAGIC => self.structured(),
                magic => panic!("{magic:x} begins no reply"),
            };
            assert!(answered < Some(number), "request {number} was answered twice or out of order");
            answered = Some(number);
        }
    }

    fn request(&mut self) -> (u64, &'s Request) {
        let cookie = self.number(8);
        (cookie, &self.requests[usize::try_from(cookie).expect("64 bits")])
    }

    fn simple(&mut self) -> u64 {
        let errno = self.number(4);
        let (number, request) = self.request();
        if errno == 0 {
            assert_eq!(request.kind, READ);
            let told = self.take(request.len);
            assert_eq!(told, content(request.offset, request.len));
        }
        number
    }

    /// All chunks of one reply.
    fn structured(&mut self) -> u64 {
        let mut told = 0;
        loop {
            let (flags, kind) = (self.number(2), self.number(2));
            let (number, request) = self.request();
            let len = self.len();
            let (start, end) = (request.offset, request.offset + request.len);
            match kind {
                // Nothing more, data, a hole.
                0 => assert_eq!(len, 0),
                1 => {
                    let at = usize::try_from(self.number(8)).expect("64 bits");
                    assert!(at == start + told && at + len - 8 <= end && request.kind == READ);
                    assert!(self.take(len - 8) == content(at, len - 8), "other bytes than the disk's");
                    told += len - 8;
                }
                2 => {
                    let (at, hole) = (usize::try_from(self.number(8)).expect("64 bits"), self.len());
                    assert!(len == 12 && at == start + told && at + hole <= end && request.kind == READ);
                    assert!(content(at, hole).iter().all(|byte| *byte == 0), "a hole where something is");
                    told += hole;
                }
                5 => self.status(len, start, end),
                _ => {
                    assert!(kind == 0x8001 && flags == 1 && len <= MOST_TALK_BYTES);
                    self.take(len);
                    return number;
                }
            }
            if flags == 1 {
                assert!(request.kind != READ || told == request.len, "less than was asked for");
                return number;
            }
            assert_eq!(self.number(4), u64::from(STRUCTURED_REPLY_MAGIC), "a reply without an end");
        }
    }

    fn status(&mut self, len: usize, mut at: usize, end: usize) {
        assert_eq!(self.number(4), 1, "another context than was chosen");
        assert!(len > 4 && len % 8 == 4);
        for _ in 0..len / 8 {
            let (run, flags) = (self.len(), self.number(4));
            assert!(run > 0 && flags < 4);
            let is_zero = || content(at, run).iter().all(|byte| *byte == 0);
            assert!(at + run <= end && (flags & 2 == 0 || is_zero()));
            at += run;
        }
    }
}

fn content(at: usize, len: usize) -> &'static [u8] {
    DISK.get(at..at + len).expect("it lies on the disk")
}
