//! Writing packs and maps: one pass over the byte streams of a machine, or several, each of which refers to what the ones
//! before it wrote.
//!
//! What a pass wrote is on the share when it ends, so the next can read its maps.

use super::Options;
use super::blocks::{Blocks, Run, Standing};
use super::dedup::Dedup;
use super::packer::{self, Packer};
use super::streams::Stream;
use super::worker::{Output, Worker};
use crate::map::{Draft, MapBuilder, MapReader};
use crate::monitor::{Monitor, check_cancelled};
use crate::pipeline::{Width, ordered};
use crate::repository::Repository;
use imager_image::CaptureId;
use imager_image::manifest::{Cost, Map, Problem};
use imager_units::{ByteLen, Context, Error, ErrorKind, Extent, ExtentSet, Result};
use std::sync::Mutex;

/// How many map nodes may wait for packs to be closed; then packs are closed before they are full. Only a large and
/// almost empty volume comes to that.
const MOST_WAITING: usize = 1024;

/// A capture that is writing.
pub(super) struct Session<'s, 'r> {
    pub(super) repository: &'r Repository,
    pub(super) dedup: &'s Mutex<Dedup<'r>>,
    packer: Packer<'s, 'r>,
    options: &'s Options,
    pub(super) monitor: &'s dyn Monitor,
}

/// Says whether a block of a stream, read just now, may have been written since it was last known.
pub(super) type MayHaveChanged<'a> = &'a dyn Fn(&Stream<'_>, Extent) -> bool;

impl<'r> Session<'_, 'r> {
    /// Runs `work` with a thread beside it that sends the packs; all are on the share when this returns well.
    ///
    /// # Errors
    /// Those of the share, of `work`; `Cancelled`.
    pub(super) fn run<T>(
        repository: &'r Repository,
        id: CaptureId,
        options: &Options,
        monitor: &dyn Monitor,
        work: impl FnOnce(&mut Session<'_, 'r>) -> Result<T>,
    ) -> Result<T> {
        let dedup = Mutex::new(Dedup::load(repository)?);
        let (queue, packs) = packer::queue();
        let packer = Packer::new(repository, &dedup, queue)?;
        let mut session = Session { repository, dedup: &dedup, packer, options, monitor };
        let done = std::thread::scope(|scope| {
            let sender = std::thread::Builder::new()
                .name("share".to_owned())
                .spawn_scoped(scope, move || packer::send(repository, id, &packs, monitor))
                .map_err(|e| Error::io("starting a thread", e))?;
            let done = work(&mut session);
            drop(session);
            let sent = sender
                .join()
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the sending thread panicked")));
            sent.and(done)
        })?;
        check_cancelled(monitor)?;
        Ok(done)
    }

    /// One pass over `streams`.
    ///
    /// # Errors
    /// Those of the sources and the share; `Cancelled`.
    pub(super) fn write(
        &mut self,
        phase: &str,
        streams: &[Stream<'_>],
        standing: Standing<'_, 'r>,
        may_have_changed: MayHaveChanged<'_>,
    ) -> Result<Vec<Written>> {
        let total: ByteLen = streams.iter().map(Stream::expected).sum();
        self.monitor.phase(phase, Some(total));
        let mut maps = Vec::new();
        for stream in streams {
            maps.push(Mapping::new(self.repository, stream)?);
            self.write_stream(stream, &mut maps, standing, may_have_changed)?;
        }
        self.packer.close_data()?;
        loop {
            advance(&mut maps, &mut self.packer)?;
            if !self.packer.close_map()? {
                break;
            }
        }
        self.packer.wait()?;
        let mut written = Vec::new();
        for (map, stream) in maps.into_iter().zip(streams) {
            let problems = map.problems(stream);
            let found = map.builder.finish(&self.packer)?;
            written.push(Written { map: found, cost: map.cost, problems, differing: map.differing });
        }
        Ok(written)
    }

    fn write_stream(
        &mut self,
        stream: &Stream<'_>,
        maps: &mut [Mapping<'r>],
        standing: Standing<'_, 'r>,
        may_have_changed: MayHaveChanged<'_>,
    ) -> Result<()> {
        let (repository, dedup, options, monitor) = (self.repository, self.dedup, self.options, self.monitor);
        let packer = &mut self.packer;
        let parent = open(repository, stream.parent.as_ref())?;
        let units = Blocks::new(stream.scope()?, parent, standing);
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
            output.differing.retain(|block| !may_have_changed(stream, *block));
            current.book(&output).context(|| stream.label.clone())?;
            for &run in &output.runs {
                match run {
                    Run::Uniform(first, count, child) => current.builder.put_run(first, count, child),
                    Run::Node(level, index, child) => current.builder.keep(level, index, child),
                    Run::Block(index, entry) => current.builder.put(index, Draft::Known(entry)),
                }
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
}

fn open<'r>(repository: &'r Repository, map: Option<&Map>) -> Result<Option<MapReader<'r>>> {
    map.map(|map| MapReader::new(repository.frames()?, map)).transpose()
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
    /// Blocks that are not as they were said to be.
    pub(crate) differing: Vec<Extent>,
}

struct Mapping<'r> {
    builder: MapBuilder,
    parent: Option<MapReader<'r>>,
    cost: Cost,
    lost: ExtentSet,
    /// How much could not be read since something could.
    lost_in_a_row: ByteLen,
    differing: Vec<Extent>,
}

impl<'r> Mapping<'r> {
    fn new(repository: &'r Repository, stream: &Stream<'_>) -> Result<Self> {
        let parent = open(repository, stream.parent.as_ref())?;
        let builder = MapBuilder::new(stream.source.geometry().size, stream.unit);
        let cost = Cost { used_bytes: stream.used.total().get(), ..Cost::default() };
        let (lost, differing) = (ExtentSet::new(), Vec::new());
        Ok(Self { builder, parent, cost, lost, lost_in_a_row: ByteLen::ZERO, differing })
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
        self.cost.read_bytes += output.read.get().saturating_sub(output.audited.get());
        self.cost.audited_bytes += output.audited.get();
        self.differing.extend_from_slice(&output.differing);
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

/// Stores the nodes of all maps whose packs have their names.
fn advance<'r>(maps: &mut [Mapping<'r>], packer: &mut Packer<'_, 'r>) -> Result<()> {
    maps.iter_mut().try_for_each(|map| map.builder.advance(packer, &mut map.parent))
}
