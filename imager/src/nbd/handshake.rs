//! The first part of a connection: which export, and which of the protocol's newer ways (fixed newstyle).

use super::Export;
use super::wire::{
    NBD_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, handshake, info, len_u32, option, read_u32, read_u64, reply,
    send, transmission, violation,
};
use imager_disk::ReadAt;
use std::io::{self, Read, Write};

/// What a client may send with an option: a name and some queries, 4096 bytes each at most by the protocol.
const MOST_OPTION_BYTES: u32 = 65_536;
/// Whoever has not chosen after so many options does not want to.
const MOST_OPTIONS: usize = 1024;
/// The one thing there is to know of an export but its bytes.
const ALLOCATION: &str = "base:allocation";
/// Its number in this server's replies.
pub(super) const ALLOCATION_ID: u32 = 1;
/// The longest request that is answered; clients are told.
pub(super) const MOST_REQUEST_BYTES: u32 = 32 << 20;
/// What a block is stored as, so the best size to ask for.
const PREFERRED_BYTES: u32 = 65_536;

/// What was agreed on.
#[derive(Clone, Copy)]
pub(super) struct Session<'e, 'r> {
    pub(super) export: &'e Export<'r>,
    /// Replies come in chunks.
    pub(super) structured: bool,
    /// The client may ask what is allocated.
    pub(super) allocation: bool,
}

/// Agrees on an export; `None` when the client goes as it should.
///
/// # Errors
/// Those of the connection, and `InvalidData` when the client breaks the protocol: both end the connection.
pub(super) fn negotiate<'e, 'r>(
    stream: impl Read + Write,
    exports: &'e [Export<'r>],
) -> io::Result<Option<Session<'e, 'r>>> {
    let mut handshake = Handshake { stream, exports, no_zeroes: false, structured: false, context: None };
    handshake.greet()?;
    for _ in 0..MOST_OPTIONS {
        match handshake.option()? {
            Next::Option => {}
            Next::Serve(session) => return Ok(Some(session)),
            Next::End => return Ok(None),
        }
    }
    violation("too many options")
}

struct Handshake<'e, 'r, S> {
    stream: S,
    exports: &'e [Export<'r>],
    no_zeroes: bool,
    structured: bool,
    /// The export of which the client wants to know what is allocated.
    context: Option<&'e str>,
}

enum Next<'e, 'r> {
    Option,
    Serve(Session<'e, 'r>),
    End,
}

impl<'e, 'r, S: Read + Write> Handshake<'e, 'r, S> {
    fn greet(&mut self) -> io::Result<()> {
        let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
        let parts: [&[u8]; 3] = [&NBD_MAGIC.to_be_bytes(), &OPTION_MAGIC.to_be_bytes(), &flags.to_be_bytes()];
        send(&mut self.stream, &parts)?;
        let theirs = read_u32(&mut self.stream)?;
        if theirs & !u32::from(flags) != 0 {
            return violation("flags that were not offered");
        }
        self.no_zeroes = theirs & u32::from(handshake::NO_ZEROES) != 0;
        Ok(())
    }

    fn option(&mut self) -> io::Result<Next<'e, 'r>> {
        if read_u64(&mut self.stream)? != OPTION_MAGIC {
            return violation("no option where one should be");
        }
        let (option, len) = (read_u32(&mut self.stream)?, read_u32(&mut self.stream)?);
        if len > MOST_OPTION_BYTES {
            return violation("an option that is too long");
        }
        let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
        self.stream.read_exact(&mut data)?;
        match option {
            option::EXPORT_NAME => self.export_name(&data),
            option::ABORT => self.reply(option, reply::ACK, &[]).map(|()| Next::End),
            option::LIST => self.list(&data),
            option::INFO | option::GO => self.info(option, &data),
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                self.done(option)
            }
            option::STRUCTURED_REPLY => self.refuse(option, reply::ERR_INVALID, "this option has no data"),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.contexts(option, &data),
            _ => self.refuse(option, reply::ERR_UNSUPPORTED, "this server does not know this option"),
        }
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let (magic, option) = (OPTION_REPLY_MAGIC.to_be_bytes(), option.to_be_bytes());
        send(&mut self.stream, &[&magic, &option, &kind.to_be_bytes(), &len_u32(data.len()), data])
    }

    fn done(&mut self, option: u32) -> io::Result<Next<'e, 'r>> {
        self.reply(option, reply::ACK, &[]).map(|()| Next::Option)
    }

    fn refuse(&mut self, option: u32, kind: u32, why: &str) -> io::Result<Next<'e, 'r>> {
        self.reply(option, kind, why.as_bytes()).map(|()| Next::Option)
    }

    /// The export of that name; the empty one is the first.
    fn find(&self, name: &[u8]) -> Option<&'e Export<'r>> {
        if name.is_empty() {
            self.exports.first()
        } else {
            self.exports.iter().find(|e| e.name.as_bytes() == name)
        }
    }

    fn session(&self, export: &'e Export<'r>) -> Session<'e, 'r> {
        let allocation = self.structured && self.context == Some(export.name.as_str());
        Session { export, structured: self.structured, allocation }
    }

    /// Size and what may be done with it, as both ways to choose an export tell it.
    fn described(&self, export: &Export<'_>) -> Vec<u8> {
        let fragments = if self.structured { transmission::SEND_DF } else { 0 };
        let flags =
            transmission::HAS_FLAGS | transmission::READ_ONLY | transmission::CAN_MULTI_CONN | fragments;
        let size = export.view.geometry().size.get().to_be_bytes();
        [size.as_slice(), &flags.to_be_bytes()].concat()
    }

    /// The old way to choose: there is no way to say that there is no such export.
    fn export_name(&mut self, name: &[u8]) -> io::Result<Next<'e, 'r>> {
        let Some(export) = self.find(name) else { return violation("an export that is not there") };
        let zeroes: &[u8] = if self.no_zeroes { &[] } else { &[0; 124] };
        let described = self.described(export);
        send(&mut self.stream, &[&described, zeroes])?;
        Ok(Next::Serve(self.session(export)))
    }

    fn list(&mut self, data: &[u8]) -> io::Result<Next<'e, 'r>> {
        if !data.is_empty() {
            return self.refuse(option::LIST, reply::ERR_INVALID, "this option has no data");
        }
        for export in self.exports {
            let name = export.name.as_bytes();
            let data = [&len_u32(name.len()), name, export.description.as_bytes()].concat();
            self.reply(option::LIST, reply::SERVER, &data)?;
        }
        self.done(option::LIST)
    }

    fn info(&mut self, option: u32, data: &[u8]) -> io::Result<Next<'e, 'r>> {
        let Some((name, wanted)) = info_request(data) else {
            return self.refuse(option, reply::ERR_INVALID, "lengths that contradict each other");
        };
        let Some(export) = self.find(name) else {
            return self.refuse(option, reply::ERR_UNKNOWN, "there is no export of this name");
        };
        let mut told = vec![(info::EXPORT, self.described(export))];
        let sizes = [1, PREFERRED_BYTES, MOST_REQUEST_BYTES].map(u32::to_be_bytes).concat();
        told.push((info::BLOCK_SIZE, sizes));
        if wanted.contains(&info::NAME) {
            told.push((info::NAME, export.name.as_bytes().to_vec()));
        }
        if wanted.contains(&info::DESCRIPTION) {
            told.push((info::DESCRIPTION, export.description.as_bytes().to_vec()));
        }
        for (kind, data) in told {
            self.reply(option, reply::INFO, &[kind.to_be_bytes().as_slice(), &data].concat())?;
        }
        self.done(option)?;
        Ok(if option == option::GO { Next::Serve(self.session(export)) } else { Next::Option })
    }

    fn contexts(&mut self, option: u32, data: &[u8]) -> io::Result<Next<'e, 'r>> {
        let set = option == option::SET_META_CONTEXT;
        if set {
            self.context = None;
        }
        if !self.structured {
            return self.refuse(option, reply::ERR_INVALID, "this takes structured replies");
        }
        let Some((name, queries)) = context_request(data) else {
            return self.refuse(option, reply::ERR_INVALID, "lengths that contradict each other");
        };
        let Some(export) = self.find(name) else {
            return self.refuse(option, reply::ERR_UNKNOWN, "there is no export of this name");
        };
        let asked = |query: &&[u8]| *query == ALLOCATION.as_bytes() || (!set && *query == b"base:");
        if queries.iter().any(asked) || (!set && queries.is_empty()) {
            let id = if set { ALLOCATION_ID } else { 0 };
            self.reply(option, reply::META_CONTEXT, &[&id.to_be_bytes(), ALLOCATION.as_bytes()].concat())?;
            if set {
                self.context = Some(&export.name);
            }
        }
        self.done(option)
    }
}

/// A name with its length before it, and what follows.
fn named(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
}

/// The name of the export, and what is asked about it.
fn info_request(data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let (name, rest) = named(data)?;
    let (count, kinds) = rest.split_first_chunk()?;
    let sound = kinds.len() == usize::from(u16::from_be_bytes(*count)) * 2;
    let kinds = kinds.chunks_exact(2).filter_map(|kind| Some(u16::from_be_bytes(kind.try_into().ok()?)));
    sound.then(|| (name, kinds.collect()))
}

/// The name of the export, and the queries.
fn context_request(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (name, rest) = named(data)?;
    let (count, mut rest) = rest.split_first_chunk()?;
    let mut queries = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (query, behind) = named(rest)?;
        queries.push(query);
        rest = behind;
    }
    rest.is_empty().then_some((name, queries))
}

#[cfg(test)]
mod tests {
    use super::{context_request, info_request};
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn hostile_requests_are_refused_or_read(data in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some((name, kinds)) = info_request(&data) {
                assert_eq!(4 + name.len() + 2 + kinds.len() * 2, data.len());
            }
            if let Some((name, queries)) = context_request(&data) {
                let queries: usize = queries.iter().map(|query| 4 + query.len()).sum();
                assert_eq!(8 + name.len() + queries, data.len());
            }
        }
    }
}
