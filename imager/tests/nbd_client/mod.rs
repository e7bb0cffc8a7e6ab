//! A network block device's client that keeps to the protocol as far as a test wants.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed"
)]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A client that knows the protocol and keeps to it as far as a test wants.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    cookie: u64,
}

const STRUCTURED: u32 = 8;
pub(crate) const PERM: u32 = 1;
pub(crate) const IO: u32 = 5;
pub(crate) const INVAL: u32 = 22;
pub(crate) const OVERFLOW: u32 = 75;

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, cookie: 0 }
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes())
    }

    pub(crate) fn greet(mut self, flags: u32) -> Self {
        assert_eq!(&self.bytes::<16>(), b"NBDMAGICIHAVEOPT");
        assert_eq!(self.u16(), 3);
        self.stream.write_all(&flags.to_be_bytes()).unwrap();
        self
    }

    pub(crate) fn option(&mut self, option: u32, data: &[u8]) {
        let header = [option.to_be_bytes(), (data.len() as u32).to_be_bytes()].concat();
        self.stream.write_all(&[b"IHAVEOPT", header.as_slice(), data].concat()).unwrap();
    }

    /// A reply to an option: its kind and data.
    pub(crate) fn reply(&mut self, option: u32) -> (u32, Vec<u8>) {
        assert_eq!(self.u64(), 0x3e889045565a9);
        assert_eq!(self.u32(), option);
        let kind = self.u32();
        let mut data = vec![0; self.u32() as usize];
        self.stream.read_exact(&mut data).unwrap();
        (kind, data)
    }

    /// An option with one reply.
    pub(crate) fn ask(&mut self, option: u32, data: &[u8]) -> u32 {
        self.option(option, data);
        self.reply(option).0
    }

    /// The old way in; the size of the export.
    pub(crate) fn simple(socket: &Path, name: &str) -> (Self, u64) {
        let mut client = Self::connect(socket).greet(3);
        client.option(1, name.as_bytes());
        let size = client.u64();
        assert_eq!(client.u16(), 1 | 2 | 1 << 8);
        (client, size)
    }

    /// The new way in, with chunks and allocation.
    pub(crate) fn structured(socket: &Path, name: &str) -> Self {
        let mut client = Self::connect(socket).greet(3);
        assert_eq!(client.ask(STRUCTURED, &[]), 1);
        let named = [&(name.len() as u32).to_be_bytes(), name.as_bytes()].concat();
        let context = b"base:allocation";
        let query =
            [&named, &1_u32.to_be_bytes()[..], &(context.len() as u32).to_be_bytes(), context].concat();
        client.option(10, &query);
        assert_eq!(client.reply(10), (4, [&1_u32.to_be_bytes(), context.as_slice()].concat()));
        assert_eq!(client.reply(10).0, 1);
        client.option(7, &[&named, &[0, 0][..]].concat());
        while client.reply(7).0 != 1 {}
        client
    }

    pub(crate) fn request(&mut self, kind: u16, flags: u16, offset: u64, len: u32) {
        self.cookie += 1;
        let parts = [
            &0x2560_9513_u32.to_be_bytes()[..],
            &flags.to_be_bytes(),
            &kind.to_be_bytes(),
            &self.cookie.to_be_bytes(),
            &offset.to_be_bytes(),
            &len.to_be_bytes(),
        ];
        self.stream.write_all(&parts.concat()).unwrap();
    }

    /// The error of a simple reply.
    pub(crate) fn simple_reply(&mut self) -> u32 {
        assert_eq!(self.u32(), 0x6744_6698);
        let error = self.u32();
        assert_eq!(self.u64(), self.cookie);
        error
    }

    pub(crate) fn read_simple(&mut self, offset: u64, len: u32) -> Result<Vec<u8>, u32> {
        self.request(0, 0, offset, len);
        match self.simple_reply() {
            0 => {
                let mut data = vec![0; len as usize];
                self.stream.read_exact(&mut data).unwrap();
                Ok(data)
            }
            error => Err(error),
        }
    }

    /// The chunks of a structured reply: kind and payload.
    pub(crate) fn chunks(&mut self) -> Vec<(u16, Vec<u8>)> {
        let mut chunks = Vec::new();
        loop {
            assert_eq!(self.u32(), 0x668e_33ef);
            let (flags, kind) = (self.u16(), self.u16());
            assert_eq!(self.u64(), self.cookie);
            let mut payload = vec![0; self.u32() as usize];
            self.stream.read_exact(&mut payload).unwrap();
            chunks.push((kind, payload));
            if flags & 1 != 0 {
                return chunks;
            }
        }
    }

    /// The error that a request ends with, in chunks.
    pub(crate) fn error(&mut self) -> u32 {
        let chunks = self.chunks();
        let (kind, payload) = chunks.last().unwrap();
        assert_eq!(*kind, 0x8001, "{chunks:?}");
        let len = u16::from_be_bytes([payload[4], payload[5]]);
        assert_eq!(payload.len(), 6 + usize::from(len));
        u32::from_be_bytes(payload[..4].try_into().unwrap())
    }

    /// Whether the server has ended the connection.
    pub(crate) fn is_ended(&mut self) -> bool {
        match io::copy(&mut self.stream, &mut io::sink()) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}
