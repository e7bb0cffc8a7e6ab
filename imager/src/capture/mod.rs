//! Capturing: disks → tables → volumes → used maps → blocks → frames → packs → share.
//!
//! The order on the share is what makes it safe to die anywhere: the lease, then packs of blocks, then packs of map
//! nodes, then the sparse index, and the manifest last; its presence is the commit.

pub mod blocks;
pub mod dedup;
pub(crate) mod packer;
mod record;
mod streams;
pub mod worker;

pub use record::{is_clean, number_disks};

use crate::captures;
use crate::clock;
use crate::map::{MapBuilder, MapReader};
use crate::monitor::{Monitor, check_cancelled};
use crate::pipeline::{Width, ordered};
use crate::repository::{Repository, object};
use crate::survey::Survey;
use blocks::Blocks;
use dedup::Dedup;
use imager_image::manifest::{Consistency, Cost, Header, Kind, Manifest, Map, Problem, Schedule};
use imager_image::{CaptureId, Compression, names};
use imager_units::{ByteLen, Context, Error, ErrorKind, ExtentSet, Result};
use packer::Packer;
use std::sync::Mutex;
use std::time::Instant;
use streams::Stream;
use worker::{Output, Worker};

/// How many map nodes may wait for packs to be closed; then packs are closed before they are full. Only a large and
/// almost empty volume comes to that.
const MOST_WAITING: usize = 1024;

/// What to do with data volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataMode {
    /// Image what they use.
    #[default]
    Used,
    /// Leave them out.
    None,
}

/// How to capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose capture it is.
    pub machine: String,
    /// Which kind; by default incremental where there is something to compare with.
    pub kind: Option<Kind>,
    /// What to do with data volumes.
    pub data: DataMode,
    /// How hard to compress.
    pub compression: Compression,
    /// How far the source is one instant.
    pub consistency: Consistency,
    /// The hardware the source belongs to, where that is known.
    pub hardware_uuid: Option<String>,
    /// Take the machine's name over although it belongs to other hardware.
    pub rebind: bool,
    /// The schedule it is made under.
    pub schedule: Option<Schedule>,
}

/// A capture under way: its header and what it is compared with.
struct Draft {
    header: Header,
    parent: Option<Manifest>,
    started: Instant,
}

/// Captures what `survey` saw and publishes it.
///
/// # Errors
/// `Io`, `OutOfSpace`, `Denied` from source or share; `Cancelled`; `Exists` when the capture was revoked meanwhile.
/// Nothing is published then.
pub fn run(
    repository: &Repository,
    survey: &Survey,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Manifest> {
    let draft = begin(repository, options)?;
    let written = write_packs(repository, survey, options, &draft, monitor);
    // Nothing of this capture will ever be published, so nobody has to wait for it. Whoever may not delete leaves the
    // lease; so does whoever was killed.
    let manifest = written.inspect_err(|_| {
        let ended = object(names::lease(draft.header.id)).and_then(|lease| repository.store().delete(&lease));
        ended.unwrap_or_else(|error| tracing::info!("the lease of {} stays: {error}", draft.header.id));
    })?;
    publish(repository, &manifest, &mut repository.codec(Compression::Small)?)?;
    Ok(manifest)
}

/// Everything but the commit.
fn write_packs(
    repository: &Repository,
    survey: &Survey,
    options: &Options,
    draft: &Draft,
    monitor: &dyn Monitor,
) -> Result<Manifest> {
    let streams = streams::plan(survey, options, draft.parent.as_ref())?;
    let total: ByteLen = streams.iter().map(|stream| stream.used.total()).sum();
    monitor.phase("capture", Some(total));
    let dedup = Mutex::new(Dedup::load(repository)?);
    let (queue, packs) = packer::queue();
    let packer = Packer::new(repository, &dedup, queue)?;
    let written = std::thread::scope(|scope| {
        let sender = std::thread::Builder::new()
            .name("share".to_owned())
            .spawn_scoped(scope, move || packer::send(repository, draft.header.id, &packs, monitor))
            .map_err(|e| Error::io("starting a thread", e))?;
        let written = write(repository, &streams, packer, &dedup, options, monitor);
        let sent =
            sender.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the sending thread panicked")));
        sent.and(written)
    })?;
    check_cancelled(monitor)?;
    Ok(record::manifest(survey, options, draft, &streams, written))
}

/// Draws the id, decides the place in the machine's history, and puts the lease.
fn begin(repository: &Repository, options: &Options) -> Result<Draft> {
    names::check_machine(&options.machine)?;
    let differential = options.kind == Some(Kind::Differential);
    let wanted = |header: &Header| !differential || header.kind == Kind::Full;
    let history = captures::history(repository, &options.machine, &wanted)?;
    let (headers, damaged) = (&history.headers, &history.damaged);
    // A damaged manifest that is newer has taken a number that nobody can read; it is not taken twice. Names sort by time.
    let newest = headers.last().map(captures::name_of).unwrap_or_default();
    let lost = damaged.iter().filter(|damaged| **damaged > newest).count() as u64;
    let taken = headers.last().map_or(0, |newest| newest.sequence).saturating_add(lost);
    let parent = captures::newest_readable(repository, &history, wanted)?;
    check_binding(options, parent.as_ref())?;
    let kind = match options.kind {
        Some(kind) if parent.is_some() => kind,
        None if parent.is_some() => Kind::Incremental,
        _ => Kind::Full,
    };
    let header = Header {
        machine: options.machine.clone(),
        time: clock::now_rfc3339(),
        kind,
        id: CaptureId::random()?,
        sequence: taken.saturating_add(1),
        previous: headers.last().map(|newest| newest.id),
        revoked: false,
    };
    let lease = serde_json::json!({ "manifest": captures::name_of(&header), "machine": header.machine });
    repository.store().put(&object(names::lease(header.id))?, lease.to_string().as_bytes())?;
    let parent = parent.filter(|_| kind != Kind::Full);
    Ok(Draft { header, parent, started: Instant::now() })
}

/// A machine's name belongs to the hardware of its first capture, so two servers never mix their histories.
fn check_binding(options: &Options, known: Option<&Manifest>) -> Result<()> {
    let theirs = known.and_then(|manifest| manifest.system.hardware_uuid.as_ref());
    match (theirs, &options.hardware_uuid) {
        (Some(theirs), Some(ours)) if theirs != ours && !options.rebind => {
            let what = format!(
                "{:?} is the name of other hardware ({theirs}, this is {ours}): choose another --machine, or say \
                 --rebind if this machine replaces it",
                options.machine
            );
            Err(Error::new(ErrorKind::Denied, what))
        }
        _ => Ok(()),
    }
}

/// A disk of which so much in a row cannot be read is gone, not damaged: a capture of nothing must not become the newest.
const GONE_BYTES: ByteLen = ByteLen::new(256 << 20);

/// How many places that could not be read a manifest lists for a volume: it must stay readable on the worst of disks.
const MOST_LISTED: usize = 4096;

/// What became of one stream.
pub(crate) struct Written {
    pub(crate) map: Map,
    pub(crate) cost: Cost,
    pub(crate) problems: Vec<Problem>,
}

struct Mapping<'r> {
    builder: MapBuilder,
    parent: Option<MapReader<'r>>,
    cost: Cost,
    lost: ExtentSet,
    /// How much could not be read since something could.
    lost_in_a_row: ByteLen,
}

fn write<'r>(
    repository: &'r Repository,
    streams: &'r [Stream<'r>],
    mut packer: Packer<'_, 'r>,
    dedup: &Mutex<Dedup<'r>>,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Vec<Written>> {
    let mut maps = Vec::new();
    for stream in streams {
        maps.push(Mapping::new(repository, stream)?);
        write_stream(repository, stream, &mut packer, &mut maps, dedup, options, monitor)?;
    }
    packer.close_data()?;
    loop {
        advance(&mut maps, &mut packer)?;
        if !packer.close_map()? {
            break;
        }
    }
    let mut written = Vec::new();
    for (map, stream) in maps.iter().zip(streams) {
        let problems = map.problems(stream);
        written.push(Written { map: map.builder.finish(&packer)?, cost: map.cost, problems });
    }
    Ok(written)
}

impl<'r> Mapping<'r> {
    fn new(repository: &'r Repository, stream: &Stream<'r>) -> Result<Self> {
        let parent = stream.parent.map(|map| MapReader::new(repository.frames()?, map)).transpose()?;
        let builder = MapBuilder::new(stream.source.geometry().size, stream.unit);
        let cost = Cost { used_bytes: stream.used.total().get(), ..Cost::default() };
        Ok(Self { builder, parent, cost, lost: ExtentSet::new(), lost_in_a_row: ByteLen::ZERO })
    }

    fn problems(&self, stream: &Stream<'_>) -> Vec<Problem> {
        if self.lost.is_empty() {
            return Vec::new();
        }
        let (total, runs) = (self.lost.total(), self.lost.iter().count());
        let mut message = format!("{total} could not be read");
        if runs > MOST_LISTED {
            message +=
                &format!(" in {runs} places; the first {MOST_LISTED} are listed, the map has them all");
        }
        let extents = self.lost.iter().take(MOST_LISTED).map(Into::into).collect();
        vec![Problem { volume: stream.label.clone(), message, extents }]
    }

    fn book(&mut self, output: &Output) -> Result<()> {
        self.cost.read_bytes += output.read.get();
        self.lost.extend(output.unreadable.iter());
        self.cost.new_bytes += output.new.get();
        let lost = output.unreadable.total();
        if lost < output.used {
            self.lost_in_a_row = ByteLen::ZERO;
        }
        self.lost_in_a_row = self.lost_in_a_row.saturating_add(lost);
        if self.lost_in_a_row >= GONE_BYTES {
            let at = self.lost.end();
            let what = format!("{GONE_BYTES} before {at} cannot be read: the disk does not answer any more");
            return Err(Error::new(ErrorKind::Io, what));
        }
        Ok(())
    }
}

fn write_stream<'r>(
    repository: &'r Repository,
    stream: &'r Stream<'r>,
    packer: &mut Packer<'_, 'r>,
    maps: &mut [Mapping<'r>],
    dedup: &Mutex<Dedup<'r>>,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<()> {
    let size = stream.source.geometry().size;
    let data = stream.source.data(stream.source.geometry().extent())?;
    let parent = stream.parent.map(|map| MapReader::new(repository.frames()?, map)).transpose()?;
    let units = Blocks::new(size, stream.unit, &stream.used, data, parent);
    let frame_bytes = options.compression.frame_bytes();
    let make = || {
        let codec = repository.codec(options.compression)?;
        let mut worker = Worker::new(&*stream.source, stream.unit, codec, frame_bytes, dedup, monitor);
        Ok(move |unit| worker.run(unit))
    };
    let before = packer.stored();
    ordered("capture", Width::for_this_machine(), units, make, |mut output: Output| {
        let places = packer.take(&mut output)?;
        let [.., current] = &mut *maps else { return Ok(()) };
        current.book(&output).context(|| stream.label.clone())?;
        for &(first, count, child) in &output.runs {
            current.builder.put_run(first, count, child);
        }
        for (index, found) in &output.blocks {
            if let Some(draft) = found.draft(&places) {
                current.builder.put(*index, draft);
            }
        }
        monitor.advance(output.used);
        advance(maps, packer)?;
        if maps.iter().map(|map| map.builder.waiting()).sum::<usize>() > MOST_WAITING {
            packer.close_data()?;
            advance(maps, packer)?;
            packer.close_map()?;
        }
        Ok(())
    })?;
    if let [.., current] = maps {
        current.cost.stored_bytes = packer.stored().saturating_sub(before).get();
    }
    Ok(())
}

/// Stores the nodes of all maps whose packs have their names.
fn advance<'r>(maps: &mut [Mapping<'r>], packer: &mut Packer<'_, 'r>) -> Result<()> {
    maps.iter_mut().try_for_each(|map| map.builder.advance(packer, &mut map.parent))
}

fn publish(repository: &Repository, manifest: &Manifest, codec: &mut imager_image::Codec<'_>) -> Result<()> {
    let name = captures::name_of(&manifest.header);
    let bytes = manifest.encode(codec)?;
    repository.store().put(&object(name)?, &bytes).map_err(|error| match error.kind() {
        ErrorKind::Exists => error.within("this capture was revoked while it ran"),
        _ => error,
    })?;
    Ok(())
}
