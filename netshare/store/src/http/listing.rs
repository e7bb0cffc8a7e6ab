//! A listing line by line, believing nothing: no line is long, no name leads elsewhere or comes twice, and only the
//! last line says that it is whole.

use crate::{Entry, ObjectName, name};
use imager_units::{ByteLen, Error, ErrorKind, Result};
use serde::Deserialize;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

const LINE_BYTES_MAX: usize = 1 << 10;
/// More than this does not lie in one repository (64 TiB of packs and more), and each takes some memory to be told apart.
const ENTRIES_MAX: u64 = 4 << 20;

#[derive(Deserialize)]
struct Line {
    name: Option<String>,
    len: Option<u64>,
    received: Option<String>,
    #[serde(default)]
    end: bool,
    count: Option<u64>,
}

/// A listing that is being read.
pub(super) struct Listing<'l> {
    folder: &'l str,
    /// Of a line whose end has not come.
    partial: Vec<u8>,
    seen: HashSet<u64, RandomState>,
    /// Keys that the server cannot know, so it cannot make two names look the same.
    keys: RandomState,
    count: u64,
    is_whole: bool,
}

impl<'l> Listing<'l> {
    pub(super) fn new(folder: &'l str) -> Result<Self> {
        name::check_folder(folder)?;
        let (partial, seen, keys) = (Vec::new(), HashSet::default(), RandomState::new());
        Ok(Self { folder, partial, seen, keys, count: 0, is_whole: false })
    }

    /// Takes what came, and hands on the entries that are whole.
    pub(super) fn take(&mut self, piece: &[u8], each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut lines = piece.split_inclusive(|byte| *byte == b'\n');
        lines.try_for_each(|part| match part.strip_suffix(b"\n") {
            Some(end) if self.partial.is_empty() => self.line(end, each),
            Some(end) => {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(end);
                self.line(&line, each)
            }
            None if self.partial.len() + part.len() > LINE_BYTES_MAX => Err(hostile("a line does not end")),
            None => {
                self.partial.extend_from_slice(part);
                Ok(())
            }
        })
    }

    /// Whether it was all.
    pub(super) fn finish(self) -> Result<()> {
        if self.is_whole && self.partial.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Io, "the listing was cut off"))
    }

    fn line(&mut self, line: &[u8], each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        if line.len() > LINE_BYTES_MAX {
            return Err(hostile("a line is too long"));
        }
        if self.is_whole {
            return Err(hostile("something comes behind its last line"));
        }
        match serde_json::from_slice(line) {
            Ok(Line { end: true, count: Some(count), .. }) if count == self.count => {
                self.is_whole = true;
                Ok(())
            }
            Ok(Line { name: Some(name), len: Some(len), received, end: false, .. }) => {
                let entry = self.entry(name, len, received.as_deref())?;
                each(entry)
            }
            _ => Err(hostile("a line is no entry")),
        }
    }

    fn entry(&mut self, name: String, len: u64, received: Option<&str>) -> Result<Entry> {
        let name = ObjectName::new(name).map_err(|_| hostile("a name is not of the grammar"))?;
        if !name.is_below(self.folder) {
            return Err(hostile("a name lies elsewhere"));
        }
        if !self.seen.insert(self.keys.hash_one(name.as_str())) {
            return Err(hostile("a name comes twice"));
        }
        self.count += 1;
        if self.count > ENTRIES_MAX {
            return Err(hostile("it does not end"));
        }
        let received = received.map(|time| time.parse::<jiff::Timestamp>().map(SystemTime::from));
        let received = received.transpose().map_err(|_| hostile("a time is none"))?;
        Ok(Entry { name, len: ByteLen::new(len), received })
    }
}

fn hostile(why: &'static str) -> Error {
    Error::corrupt(format!("the server's listing is wrong: {why}"))
}

#[cfg(test)]
mod tests;
