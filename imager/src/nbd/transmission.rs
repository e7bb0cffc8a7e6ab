//! The second part of a connection: requests and their replies, one after the other.
//!
//! A reply is built a mebibyte at a time however much was asked for, so a client costs that much memory and no more.

use super::handshake::{ALLOCATION_ID, MOST_REQUEST_BYTES, Session};
use super::wire::{
    Errno, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, command, len_u32, read, send,
    state, violation,
};
use crate::view::Status;
use imager_disk::ReadAt;
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Extent};
use std::io::{self, Read, Write};

/// What is read and sent at once.
const PIECE: ByteLen = ByteLen::new(1 << 20);
/// A shorter hole is not worth a chunk of its own.
const WORTH_A_CHUNK: ByteLen = ByteLen::new(65_536);
/// How many extents a reply on what is allocated holds.
const MOST_EXTENTS: usize = 4096;
const MOST_MESSAGE_BYTES: usize = 1024;

struct Request {
    flags: u16,
    kind: u16,
    cookie: [u8; 8],
    offset: u64,
    len: u32,
}

impl Request {
    fn receive(from: &mut impl Read) -> io::Result<Self> {
        let magic: [u8; 4] = read(from)?;
        if magic != REQUEST_MAGIC.to_be_bytes() {
            return violation("no request where one should be");
        }
        let (flags, kind) = (u16::from_be_bytes(read(from)?), u16::from_be_bytes(read(from)?));
        let cookie = read(from)?;
        let (offset, len) = (u64::from_be_bytes(read(from)?), u32::from_be_bytes(read(from)?));
        Ok(Self { flags, kind, cookie, offset, len })
    }
}

/// Why a request is not fulfilled.
struct Refusal(Errno, String);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let errno = if error.kind() == ErrorKind::Invalid { Errno::Inval } else { Errno::Io };
        tracing::warn!("a client's request failed: {}", crate::verify::chain(&error));
        Self(errno, crate::verify::chain(&error))
    }
}

fn refuse<T>(errno: Errno, why: &str) -> Result<T, Refusal> {
    Err(Refusal(errno, why.to_owned()))
}

/// Serves a client's requests until it goes; `sent` is told how many bytes it was given.
///
/// # Errors
/// Those of the connection, and `InvalidData` when the client breaks the protocol.
pub(super) fn serve(
    stream: impl Read + Write,
    session: Session<'_, '_>,
    sent: &dyn Fn(ByteLen),
) -> io::Result<()> {
    let mut transmission = Transmission { stream, session, sent, buffer: Vec::new() };
    loop {
        let request = match Request::receive(&mut transmission.stream) {
            // Some clients just go.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            request => request?,
        };
        if request.kind == command::DISCONNECT {
            return Ok(());
        }
        transmission.answer(&request)?;
    }
}

struct Transmission<'s, 'e, 'r, S> {
    stream: S,
    session: Session<'e, 'r>,
    sent: &'s dyn Fn(ByteLen),
    buffer: Vec<u8>,
}

impl<S: Read + Write> Transmission<'_, '_, '_, S> {
    fn answer(&mut self, request: &Request) -> io::Result<()> {
        match request.kind {
            command::READ => match self.extent(request, command::FLAG_DF) {
                Ok(extent) if self.session.structured => self.read_chunks(request, extent),
                Ok(extent) => self.read_simple(request, extent),
                Err(refusal) => self.fail(request, &refusal),
            },
            command::BLOCK_STATUS => match self.status(request) {
                Ok(payload) => self.chunk(request, chunk::FLAG_DONE, chunk::BLOCK_STATUS, &payload),
                Err(refusal) => self.fail(request, &refusal),
            },
            command::WRITE => {
                // Its data comes whether we want it or not.
                if request.len > MOST_REQUEST_BYTES {
                    return violation("a write that is too long");
                }
                io::copy(&mut (&mut self.stream).take(request.len.into()), &mut io::sink())?;
                self.fail(request, &Refusal(Errno::Perm, "captures are not written to".to_owned()))
            }
            command::TRIM | command::WRITE_ZEROES => {
                self.fail(request, &Refusal(Errno::Perm, "captures are not written to".to_owned()))
            }
            _ => self
                .fail(request, &Refusal(Errno::Inval, "this server does not know this request".to_owned())),
        }
    }

    /// What a request asks for, if it may.
    fn extent(&self, request: &Request, flags: u16) -> Result<Extent, Refusal> {
        let flags = if self.session.structured { flags } else { 0 };
        if request.flags & !flags != 0 {
            return refuse(Errno::Inval, "flags that do not belong to this request");
        }
        let asked = Extent::new(ByteOffset::new(request.offset), ByteLen::new(request.len.into()));
        let whole = self.session.export.view.geometry().extent();
        match asked.filter(|asked| asked.end() <= whole.end()) {
            Some(asked) => Ok(asked),
            None => refuse(Errno::Inval, "beyond the end"),
        }
    }

    fn check_len(extent: Extent) -> Result<(), Refusal> {
        if extent.len().get() > u64::from(MOST_REQUEST_BYTES) {
            return refuse(Errno::Overflow, "more than is read at once");
        }
        Ok(())
    }

    /// The old kind of reply: what fails once it was begun can only end the connection.
    fn read_simple(&mut self, request: &Request, extent: Extent) -> io::Result<()> {
        if let Err(refusal) = Self::check_len(extent) {
            return self.fail(request, &refusal);
        }
        let mut header = [SIMPLE_REPLY_MAGIC.to_be_bytes(), [0; 4]].concat();
        header.extend(request.cookie);
        let mut at = extent.start();
        loop {
            let piece = Extent::between(at, at.saturating_add(PIECE).min(extent.end()));
            match self.load(&header, piece) {
                Ok(()) => self.flush(piece)?,
                Err(refusal) if at == extent.start() => return self.fail(request, &refusal),
                Err(Refusal(_, why)) => return Err(io::Error::other(why)),
            }
            header.clear();
            at = piece.end();
            if at >= extent.end() {
                return Ok(());
            }
        }
    }

    fn read_chunks(&mut self, request: &Request, extent: Extent) -> io::Result<()> {
        let mut rest = extent;
        let whole = request.flags & command::FLAG_DF != 0;
        if let Err(refusal) = Self::check_len(extent) {
            return self.fail(request, &refusal);
        }
        if whole && extent.len() > PIECE {
            return self
                .fail(request, &Refusal(Errno::Overflow, "more than is sent in one piece".to_owned()));
        }
        if extent.is_empty() {
            return self.chunk(request, chunk::FLAG_DONE, chunk::NONE, &[]);
        }
        while !rest.is_empty() {
            let next = if whole { Ok((rest, Piece::Data)) } else { self.piece(rest) };
            let sent = next.and_then(|(piece, kind)| self.stage(request, piece, kind, rest).map(|()| piece));
            match sent {
                Ok(piece) => {
                    self.flush(piece)?;
                    rest = Extent::between(piece.end(), rest.end());
                }
                Err(refusal) => return self.fail(request, &refusal),
            }
        }
        Ok(())
    }

    /// What comes next: a hole, or data up to the next hole that is worth a chunk.
    fn piece(&self, rest: Extent) -> Result<(Extent, Piece), Refusal> {
        let view = &self.session.export.view;
        let is_hole = |status| status != Status::Data;
        let runs = view.status(rest, 1)?;
        if let Some((run, status)) = runs.first()
            && is_hole(*status)
            && (run.len() >= WORTH_A_CHUNK || *run == rest)
        {
            return Ok((*run, Piece::Hole));
        }
        let piece = Extent::between(rest.start(), rest.start().saturating_add(PIECE).min(rest.end()));
        let runs = view.extents(piece)?;
        let hole = runs.iter().find(|(run, status)| is_hole(*status) && run.len() >= WORTH_A_CHUNK);
        let end = hole.map_or(piece.end(), |(run, _)| run.start());
        Ok((Extent::between(piece.start(), end), Piece::Data))
    }

    /// Prepares the chunk for `piece`, the last one if it ends where `rest` does.
    fn stage(&mut self, request: &Request, piece: Extent, kind: Piece, rest: Extent) -> Result<(), Refusal> {
        let flags = if piece.end() >= rest.end() { chunk::FLAG_DONE } else { 0 };
        let offset = piece.start().get().to_be_bytes();
        let len = piece.len().to_usize().unwrap_or(usize::MAX);
        match kind {
            Piece::Hole => {
                self.buffer.clear();
                let payload = [offset.as_slice(), &len_u32(len)].concat();
                self.buffer.extend(chunk_header(request, flags, chunk::OFFSET_HOLE, payload.len()));
                self.buffer.extend(payload);
                Ok(())
            }
            Piece::Data => {
                let mut header =
                    chunk_header(request, flags, chunk::OFFSET_DATA, len.saturating_add(offset.len()));
                header.extend(offset);
                self.load(&header, piece)
            }
        }
    }

    /// Puts `header` and the bytes of `piece` into the buffer.
    fn load(&mut self, header: &[u8], piece: Extent) -> Result<(), Refusal> {
        let len = piece.len().to_usize().unwrap_or(0);
        self.buffer.clear();
        self.buffer.extend_from_slice(header);
        self.buffer.resize(header.len() + len, 0);
        let place = self.buffer.get_mut(header.len()..).unwrap_or_default();
        Ok(self.session.export.view.read_exact_at(piece.start(), place)?)
    }

    fn flush(&mut self, piece: Extent) -> io::Result<()> {
        self.stream.write_all(&self.buffer)?;
        (self.sent)(piece.len());
        Ok(())
    }

    fn status(&self, request: &Request) -> Result<Vec<u8>, Refusal> {
        if !self.session.allocation {
            return refuse(Errno::Inval, "no context was chosen");
        }
        let extent = self.extent(request, command::FLAG_REQ_ONE)?;
        if extent.is_empty() {
            return refuse(Errno::Inval, "of no byte there is nothing to tell");
        }
        let one = request.flags & command::FLAG_REQ_ONE != 0;
        let runs = self.session.export.view.status(extent, if one { 1 } else { MOST_EXTENTS })?;
        let mut told: Vec<(u64, u32)> = Vec::new();
        for (run, status) in runs {
            let flags = match status {
                Status::Data => 0,
                Status::Zero | Status::Unused => state::HOLE | state::ZERO,
                Status::Unreadable => state::ZERO,
            };
            match told.last_mut() {
                Some((len, same)) if *same == flags => *len += run.len().get(),
                _ => told.push((run.len().get(), flags)),
            }
        }
        let mut payload = ALLOCATION_ID.to_be_bytes().to_vec();
        for (len, flags) in told {
            payload.extend(len_u32(usize::try_from(len).unwrap_or(usize::MAX)));
            payload.extend(flags.to_be_bytes());
        }
        Ok(payload)
    }

    fn chunk(&mut self, request: &Request, flags: u16, kind: u16, payload: &[u8]) -> io::Result<()> {
        send(&mut self.stream, &[&chunk_header(request, flags, kind, payload.len()), payload])
    }

    fn fail(&mut self, request: &Request, refusal: &Refusal) -> io::Result<()> {
        let Refusal(errno, why) = refusal;
        if !self.session.structured {
            let magic = SIMPLE_REPLY_MAGIC.to_be_bytes();
            return send(&mut self.stream, &[&magic, &errno.code().to_be_bytes(), &request.cookie]);
        }
        let mut end = why.len().min(MOST_MESSAGE_BYTES);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        let message = why.get(..end).unwrap_or_default().as_bytes();
        let len = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
        let payload = [errno.code().to_be_bytes().as_slice(), &len, message].concat();
        self.chunk(request, chunk::FLAG_DONE, chunk::ERROR, &payload)
    }
}

/// What a chunk of a read's reply holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Data,
    Hole,
}

fn chunk_header(request: &Request, flags: u16, kind: u16, len: usize) -> Vec<u8> {
    let mut header = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    header.extend(flags.to_be_bytes());
    header.extend(kind.to_be_bytes());
    header.extend(request.cookie);
    header.extend(len_u32(len));
    header
}
