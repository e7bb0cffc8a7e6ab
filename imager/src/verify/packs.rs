//! Checking one pack from its first byte to its last.

use super::report::Fault;
use crate::monitor::{Monitor, Stage, check_cancelled, timed};
use crate::repository::{Repository, object};
use imager_image::frame::FrameKind;
use imager_image::node::Location;
use imager_image::pack::{self, PACK_MOST_BYTES, PACK_TRAILER_BYTES, PackKind, PackRef, Table};
use imager_image::{BlockId, Codec, Compression, names};
use imager_units::{ByteLen, Error, ErrorKind, Extent, Result};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Condvar, Mutex, PoisonError};

/// The packs in memory at once have at most so many bytes, or are one.
const MOST_HELD_BYTES: u64 = 64 << 20;

/// A pack and what is expected of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) pack: PackRef,
    pub(super) kind: PackKind,
}

/// What was found in a pack.
pub(super) struct Checked {
    pub(super) wanted: Wanted,
    /// What is wrong with it and how that shows.
    pub(super) fault: Option<(Fault, String)>,
    /// It was wrong when it was read first, and right the second time.
    pub(super) flickered: bool,
    /// It is wrong, and frames of it went elsewhere.
    pub(super) moved: bool,
    /// The blocks that are where they should be, by [`fingerprint`].
    pub(super) sound: Vec<u64>,
    pub(super) read: ByteLen,
}

impl Checked {
    fn nothing(wanted: Wanted) -> Self {
        let (sound, read) = (Vec::new(), ByteLen::ZERO);
        Self { wanted, fault: None, flickered: false, moved: false, sound, read }
    }
}

/// Stands for a block at its place.
pub(super) fn fingerprint(id: BlockId, location: &Location) -> u64 {
    let mut hasher = DefaultHasher::new();
    (id.0, location.pack.id.0, location.frame.offset, location.frame.len, location.at).hash(&mut hasher);
    hasher.finish()
}

/// Checks packs for one thread.
pub(super) struct Checker<'a, 'r> {
    repository: &'r Repository,
    codec: Codec<'r>,
    gate: &'a Gate,
    monitor: &'a dyn Monitor,
}

impl<'a, 'r> Checker<'a, 'r> {
    pub(super) fn new(repository: &'r Repository, gate: &'a Gate, monitor: &'a dyn Monitor) -> Result<Self> {
        Ok(Self { repository, codec: repository.codec(Compression::Fast)?, gate, monitor })
    }

    /// Reads the pack and checks every byte of it; what is wrong is read once more, since a wire or a memory that
    /// errs is no damage to the repository.
    ///
    /// # Errors
    /// `Cancelled`; `Io`, `Denied` from the share.
    pub(super) fn check(&mut self, wanted: Wanted) -> Result<Checked> {
        check_cancelled(self.monitor)?;
        let mut checked = self.once(wanted)?;
        if matches!(checked.fault, Some((Fault::Altered, _))) {
            let second = self.once(wanted)?;
            let (flickered, read) = (second.fault.is_none(), checked.read.saturating_add(second.read));
            checked = Checked { flickered, read, ..second };
        }
        checked.moved = checked.fault.is_some() && super::is_moved(self.repository, wanted.pack.id)?;
        Ok(checked)
    }

    fn once(&mut self, wanted: Wanted) -> Result<Checked> {
        let name = object(names::pack(wanted.pack.id))?;
        let len = u64::from(wanted.pack.len);
        let found = self.repository.store().len(&name)?;
        let mut checked = Checked::nothing(wanted);
        checked.fault = presence(wanted.pack, found.map(ByteLen::get));
        if checked.fault.is_some() {
            return Ok(checked);
        }
        let _pass = self.gate.enter(len);
        let fetch = || self.repository.store().get_range(&name, Extent::first(ByteLen::new(len)));
        match timed(self.monitor, Stage::Share, fetch) {
            Ok(bytes) => {
                checked.read = ByteLen::of(&bytes);
                timed(self.monitor, Stage::Compute, || self.bytes(&bytes, &mut checked));
            }
            Err(error) if super::walk::is_damage(&error) => {
                checked.fault = Some((Fault::of(&error), super::report::chain(&error)));
            }
            Err(error) => return Err(error),
        }
        Ok(checked)
    }

    fn bytes(&mut self, bytes: &[u8], checked: &mut Checked) {
        let Wanted { pack, kind } = checked.wanted;
        let mut faults = Vec::new();
        if blake3::hash(bytes).as_bytes() != &pack.id.0 {
            faults.push(Error::corrupt("its bytes are not those it is named after"));
        }
        if !matches!(pack::kind_of(bytes), Ok(found) if found == kind) {
            faults.push(Error::corrupt("its header is not that of such a pack"));
        }
        match self.table(bytes, checked.wanted) {
            Ok(table) => self.frames(bytes, &table, checked, &mut faults),
            Err(error) => faults.push(error.within("its table")),
        }
        if let Some(first) = faults.first() {
            let more = faults.len().saturating_sub(1);
            let and = if more == 0 { String::new() } else { format!(" (and {more} more faults)") };
            let unsupported = faults.iter().all(|fault| fault.kind() == ErrorKind::Unsupported);
            let fault = if unsupported { Fault::Unsupported } else { Fault::Altered };
            checked.fault = Some((fault, format!("{}{and}", super::report::chain(first))));
        }
    }

    fn table(&mut self, bytes: &[u8], wanted: Wanted) -> Result<Table> {
        let outside = || Error::corrupt("it is outside the pack");
        let trailer = bytes.len().checked_sub(PACK_TRAILER_BYTES).and_then(|at| bytes.get(at..));
        let span = pack::table_span(wanted.pack.len, trailer.ok_or_else(outside)?)?;
        let sealed = part(bytes, span.extent()).ok_or_else(outside)?;
        let table = Table::decode(wanted.kind, &self.codec.open(FrameKind::Table, sealed)?)?;
        let end = table.frames.last().map(|frame| frame.span.extent().end());
        match end {
            Some(end) if end != span.extent().start() => Err(Error::corrupt("it does not list all frames")),
            _ => Ok(table),
        }
    }

    fn frames(&mut self, bytes: &[u8], table: &Table, checked: &mut Checked, faults: &mut Vec<Error>) {
        let Wanted { pack, kind } = checked.wanted;
        let keys = self.repository.keys();
        for frame in &table.frames {
            let at = frame.span.extent();
            let sealed = part(bytes, at).unwrap_or_default();
            let raw = match self.codec.open(kind.frames(), sealed) {
                Ok(raw) => raw,
                Err(error) => {
                    faults.push(error.within(format!("the frame at {at}")));
                    continue;
                }
            };
            let mut from = 0_usize;
            for item in &frame.items {
                let len = usize::try_from(item.len).unwrap_or(usize::MAX);
                let content = raw.get(from..).and_then(|rest| rest.get(..len)).unwrap_or_default();
                let same = match kind {
                    PackKind::Data => keys.block_id(content).0 == item.id,
                    PackKind::Map => keys.node_id(content).0 == item.id,
                };
                let location =
                    Location { pack, frame: frame.span, at: u32::try_from(from).unwrap_or(u32::MAX) };
                match (same, kind) {
                    (true, PackKind::Data) => checked.sound.push(fingerprint(BlockId(item.id), &location)),
                    (true, PackKind::Map) => {}
                    (false, _) => {
                        faults.push(Error::corrupt(format!(
                            "what the frame at {at} holds is not what the table says"
                        )));
                    }
                }
                from = from.saturating_add(len);
            }
            if from != raw.len() {
                faults.push(Error::corrupt(format!("the frame at {at} holds more than the table says")));
            }
        }
    }
}

/// What is wrong with a pack of which `found` bytes are on the share, before it is read.
pub(super) fn presence(pack: PackRef, found: Option<u64>) -> Option<(Fault, String)> {
    match found {
        None => Some((Fault::Missing, "it is not there".to_owned())),
        Some(len) if len != u64::from(pack.len) || len > PACK_MOST_BYTES as u64 => {
            Some((Fault::WrongLength, format!("it has {len} bytes and should have {}", pack.len)))
        }
        Some(_) => None,
    }
}

fn part(bytes: &[u8], extent: Extent) -> Option<&[u8]> {
    let from = usize::try_from(extent.start().get()).ok()?;
    bytes.get(from..)?.get(..extent.len().to_usize()?)
}

/// Lets so many bytes of packs into memory at once.
#[derive(Default)]
pub(super) struct Gate {
    held: Mutex<u64>,
    left: Condvar,
}

/// Leave to hold so many bytes.
struct Pass<'g>(&'g Gate, u64);

impl Gate {
    fn enter(&self, bytes: u64) -> Pass<'_> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while *held > 0 && held.saturating_add(bytes) > MOST_HELD_BYTES {
            held = self.left.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        *held = held.saturating_add(bytes);
        Pass(self, bytes)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = held.saturating_sub(self.1);
        self.0.left.notify_all();
    }
}
