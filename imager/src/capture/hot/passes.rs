//! The passes over a machine that runs: what is captured of it, and what was marked since it was last read.

use super::super::blocks::{Audit, Look, Marked, Rest, Standing};
use super::super::session::{Session, Written};
use super::super::skeleton::Skeletons;
use super::super::streams::{self, Stream, Subject};
use super::super::{Draft, Options, record};
use super::instant::Noted;
use super::machine::{Held, Live};
use super::place::{in_marks, in_stream, on_disk, pieces};
use super::still::Still;
use super::track::{Track, in_all, is_in_place, used_now};
use crate::repository::object;
use crate::survey::{Survey, Volume};
use imager_image::manifest::{Consistency, Manifest, Mode, Pass, Problem, Running, Truth};
use imager_journal::{FrozenFor, Marks, Since};
use imager_units::{ByteLen, Error, ErrorKind, Extent, ExtentSet, Result};
use std::sync::PoisonError;
use std::time::Instant;

/// The journal was seen to be wrong.
const MISSED: &str = "the journal missed a write";
/// How often the first freeze is tried.
const FIRST_TRIES: usize = 4;

/// The passes so far.
pub(super) struct Passes<'a> {
    skeletons: &'a Skeletons,
    streams: Vec<Stream<'a>>,
    tracks: Vec<Track>,
    written: Vec<Written>,
    /// By the log's disks: what matters of each.
    interest: Vec<ExtentSet>,
    /// By the log's disks: what is not frozen, and has to be quiet.
    quiet: Vec<ExtentSet>,
    /// By the log's disks: what the last harvest had.
    recent: Vec<ExtentSet>,
    /// By the log's disks: what was discarded since the first harvest.
    discarded: Vec<ExtentSet>,
    /// How many harvests in a row had nothing of what has to be quiet.
    quiet_harvests: u32,
    since: Option<Vec<Marks>>,
    report: Running,
    warnings: Vec<String>,
    problems: Vec<Problem>,
    numbers: Vec<u32>,
    seed: u64,
}

impl<'a> Passes<'a> {
    /// Arms the journal, freezes once, and plans the first pass.
    pub(super) fn begin(
        session: &Session<'_, '_>,
        draft: &Draft,
        survey: &'a Survey,
        options: &Options,
        skeletons: &'a Skeletons,
        live: &mut Live<'_>,
    ) -> Result<Self> {
        session.monitor.phase("first freeze", None);
        live.log.harvest()?;
        live.machine.sync()?;
        let first = first_freeze(live)?;
        let marks = live.log.harvest()?;
        let mut warnings = Vec::new();
        let since = match &draft.parent {
            None => None,
            Some(parent) => match live.log.since(&parent.header.id.to_string())? {
                Since::Known(marks) => Some(marks),
                Since::Unknown(why) => {
                    warnings.push(format!("everything was compared, not only what changed: {why}"));
                    None
                }
            },
        };
        let mut seed = [0; 8];
        imager_image::id::fill_random(&mut seed)?;
        let mut passes = Self {
            skeletons,
            streams: Vec::new(),
            tracks: Vec::new(),
            written: Vec::new(),
            interest: Vec::new(),
            quiet: Vec::new(),
            recent: Vec::new(),
            discarded: vec![ExtentSet::new(); live.disks.len()],
            quiet_harvests: 0,
            since,
            report: Running {
                freezes: vec![super::still::described(&first, ByteLen::ZERO)],
                ..Running::default()
            },
            warnings,
            problems: Vec::new(),
            numbers: live.disks.clone(),
            seed: u64::from_le_bytes(seed),
        };
        passes.plan(draft, survey, options, live)?;
        passes.recent = passes.of_interest(marks);
        Ok(passes)
    }

    fn plan(&mut self, draft: &Draft, survey: &'a Survey, options: &Options, live: &Live<'_>) -> Result<()> {
        let used = |volume: &Volume| used_now(volume, live);
        let parent = draft.parent.as_ref();
        self.streams = streams::plan_with(survey, options, self.skeletons, parent, &used)?;
        self.tracks = Vec::new();
        for stream in &mut self.streams {
            let mut track = Track::new(stream, live)?;
            if let Some(marks) = self.since.as_ref().filter(|_| is_in_place(stream, parent)) {
                let mut extents = ExtentSet::new();
                for (number, marks) in self.numbers.iter().zip(marks) {
                    let both = marks.written.union(&marks.discarded);
                    extents = extents.union(&in_stream(&track.pieces, *number, &both));
                }
                let heads = match stream.subject {
                    Subject::Volume(volume, ..) => volume.filesystem.as_ref().map(|found| found.head.clone()),
                    Subject::Remainder(_) | Subject::Skeleton(..) => None,
                };
                let audit = Some(Audit { seed: self.seed, heads: heads.unwrap_or_default() });
                let rest = if track.is_fixed { Rest::Check } else { Rest::Keep };
                stream.look = Look::Marked(Marked { extents, rest, audit });
                stream.truth = Truth::Journal;
                if let Some(map) = stream.parent.as_ref().filter(|_| !track.is_fixed) {
                    stream.unit = map.mask_unit()?;
                    stream.used = track.interest.clone();
                }
            }
            (track.truth, track.unit) = (stream.truth, stream.unit);
            self.tracks.push(track);
        }
        self.divide(survey);
        Ok(())
    }

    /// Says which parts of the disks matter, and which of them have to be quiet.
    fn divide(&mut self, survey: &Survey) {
        (self.interest, self.quiet) = (Vec::new(), Vec::new());
        for number in &self.numbers {
            let size = survey.disks.iter().find(|disk| disk.number == *number);
            let size = size.map(|disk| disk.geometry.size).unwrap_or_default();
            let of = |wanted: &dyn Fn(&Track) -> bool| {
                let mut all = ExtentSet::new();
                for track in self.tracks.iter().filter(|track| wanted(track)) {
                    all = all.union(&on_disk(&track.pieces, *number, &track.interest));
                }
                in_marks(&all, size)
            };
            let frozen = of(&|track| track.held == Held::Frozen);
            let quiet = of(&|track| track.has_to_be_quiet);
            self.interest.push(of(&|_| true));
            // Where a block holds some of both, nobody can tell whose a mark is.
            self.quiet.push(quiet.difference(&frozen));
        }
    }

    /// What of these marks has to be read; discards are remembered.
    fn of_interest(&mut self, marks: Vec<Marks>) -> Vec<ExtentSet> {
        let mut written = Vec::new();
        let mut is_quiet = true;
        for (disk, marks) in marks.into_iter().enumerate() {
            let (Some(interest), Some(quiet)) = (self.interest.get(disk), self.quiet.get(disk)) else {
                break;
            };
            let of = |set: &ExtentSet| set.intersection(interest);
            let (these, gone) = (of(&marks.written), of(&marks.discarded));
            is_quiet &= these.intersection(quiet).is_empty() && gone.intersection(quiet).is_empty();
            if let Some(discarded) = self.discarded.get_mut(disk) {
                *discarded = discarded.union(&gone);
            }
            written.push(these);
        }
        self.quiet_harvests = if is_quiet { self.quiet_harvests + 1 } else { 0 };
        written
    }

    /// What was marked since the last harvest, by the log's disks.
    pub(super) fn harvest(&mut self, live: &mut Live<'_>) -> Result<Vec<ExtentSet>> {
        let marks = live.log.harvest()?;
        let dirty = self.of_interest(marks);
        self.recent.clone_from(&dirty);
        Ok(dirty)
    }

    /// The first pass. Where the journal turns out to be wrong, or what it is about cannot be read, everything is
    /// compared instead.
    pub(super) fn first(
        &mut self,
        session: &mut Session<'_, '_>,
        draft: &Draft,
        survey: &'a Survey,
        options: &Options,
        live: &mut Live<'_>,
    ) -> Result<()> {
        if self.since.is_some() {
            let why = match self.pass(session, live, is_proven(session, draft)?) {
                Ok(()) if self.written.iter().all(|written| written.differing.is_empty()) => return Ok(()),
                Ok(()) => self.alarm(live)?,
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                    format!("the map of the last capture cannot be read: {error}")
                }
                Err(error) => return Err(error),
            };
            self.warnings.push(format!("everything was compared, not only what changed: {why}"));
            self.since = None;
            self.plan(draft, survey, options, live)?;
        }
        self.pass(session, live, Proof::Asked)
    }

    /// A block that was not marked has changed.
    fn alarm(&mut self, live: &mut Live<'_>) -> Result<String> {
        live.log.taint("a block changed that it did not mark")?;
        for (track, written) in self.tracks.iter().zip(&self.written) {
            if let Some(first) = written.differing.first() {
                let message = format!(
                    "{MISSED}: {first} changed without a mark; captures since it was started may lack it"
                );
                tracing::error!("volume {}: {message}", track.label);
                let extents = written.differing.iter().map(|extent| (*extent).into()).collect();
                self.problems.push(Problem { volume: track.label.clone(), message, extents });
            }
        }
        Ok(MISSED.to_owned())
    }

    /// Passes until little is marked, or no less than before.
    pub(super) fn catch_up(&mut self, session: &mut Session<'_, '_>, live: &mut Live<'_>) -> Result<()> {
        let (mut before, mut stuck) = (u64::MAX, 0);
        for _ in 0..live.limits.passes {
            let carried = self.recent.clone();
            let dirty = self.harvest(live)?;
            let total = bytes(&dirty).get();
            stuck = if total >= before / 5 * 4 { stuck + 1 } else { 0 };
            self.next(session, live, &union(&dirty, &carried))?;
            if total <= live.limits.target.get() || stuck >= 2 {
                break;
            }
            before = total;
        }
        Ok(())
    }

    /// A pass over what was marked, by the log's disks.
    pub(super) fn next(
        &mut self,
        session: &mut Session<'_, '_>,
        live: &Live<'_>,
        marked: &[ExtentSet],
    ) -> Result<()> {
        if self.report.passes.len() > live.limits.passes {
            return Err(gave_up("passes", self.report.passes.len()));
        }
        for ((stream, track), written) in self.streams.iter_mut().zip(&self.tracks).zip(&self.written) {
            stream.parent = Some(written.map.clone());
            stream.used.clone_from(&track.interest);
            let extents = in_all(&self.numbers, track, marked);
            stream.look = Look::Marked(Marked { extents, rest: Rest::Keep, audit: None });
        }
        self.pass(session, live, Proof::Ours)
    }

    fn pass(&mut self, session: &mut Session<'_, '_>, live: &Live<'_>, proof: Proof) -> Result<()> {
        let started = Instant::now();
        let phase = format!("pass {}", self.report.passes.len() + 1);
        let standing = match proof {
            Proof::Asked => Standing::Asked(session.dedup),
            Proof::Ours => Standing::Proven,
        };
        let (numbers, log) = (&self.numbers, &*live.log);
        let may_have_changed = |stream: &Stream<'_>, block: Extent| {
            let (block, pieces) = (ExtentSet::from(block), pieces(stream));
            (0..).zip(numbers).any(|(disk, number)| {
                on_disk(&pieces, *number, &block).iter().any(|part| log.is_marked(disk, part))
            })
        };
        self.written = session.write(&phase, &self.streams, standing, &may_have_changed)?;
        let marked = self.streams.iter().map(Stream::expected).sum::<ByteLen>();
        let mut pass = Pass { marked_bytes: marked.get(), ..Pass::default() };
        for (track, written) in self.tracks.iter_mut().zip(&self.written) {
            pass.read_bytes += written.cost.read_bytes;
            pass.stored_bytes += written.cost.stored_bytes;
            track.add(&written.cost);
        }
        pass.elapsed_seconds = started.elapsed().as_secs_f64();
        self.report.passes.push(pass);
        Ok(())
    }

    /// The draft as if it were a capture.
    pub(super) fn drafted(&mut self, survey: &Survey, options: &Options, draft: &Draft) -> Manifest {
        record::manifest(
            survey,
            options,
            draft,
            &self.streams,
            self.skeletons,
            std::mem::take(&mut self.written),
        )
    }

    /// Whether the streams of the instant are those that were drafted.
    pub(super) fn check_same(&self, streams: &[Stream<'_>]) -> Result<()> {
        let is_same = |stream: &Stream<'_>| {
            let track = self.track(stream)?;
            let is_fixed = track.is_fixed && track.interest != stream.used;
            (track.pieces == pieces(stream) && !is_fixed).then_some(())
        };
        match streams.iter().find(|stream| is_same(stream).is_none()) {
            Some(stream) => {
                let what = format!(
                    "volume {}: the layout changed while it was captured; run it again",
                    stream.label
                );
                Err(Error::new(ErrorKind::Lost, what))
            }
            None => Ok(()),
        }
    }

    fn track(&self, stream: &Stream<'_>) -> Option<&Track> {
        self.tracks.iter().find(|track| track.label == stream.label)
    }

    /// Has a stream of the instant go on where the draft is.
    pub(super) fn adopt(&self, stream: &mut Stream<'_>) {
        if let Some(track) = self.track(stream) {
            (stream.unit, stream.truth) = (track.unit, track.truth);
        }
    }

    /// Where a stream is not as the draft has it, relative to it.
    pub(super) fn changed(&self, stream: &Stream<'_>, copied: &[ExtentSet]) -> ExtentSet {
        let Some(track) = self.track(stream) else { return ExtentSet::new() };
        in_all(&self.numbers, track, &union(&union(copied, &self.discarded), &self.recent))
    }

    /// Adds what the drafts took to what the last pass took.
    pub(super) fn add_costs(&self, streams: &[Stream<'_>], written: &mut [Written], still: &Still) {
        for (stream, written) in streams.iter().zip(written) {
            let Some(track) = self.track(stream) else { continue };
            let cost = &mut written.cost;
            cost.read_bytes += track.cost.read_bytes;
            cost.audited_bytes += track.cost.audited_bytes;
            cost.new_bytes += track.cost.new_bytes;
            cost.stored_bytes += track.cost.stored_bytes;
            if track.held == Held::Frozen {
                cost.freeze_ms = still.frozen_ms();
            }
        }
    }

    /// How much counts that was found nowhere.
    pub(super) fn never_written(&self, streams: &[Stream<'_>], noted: &Noted) -> ByteLen {
        let noted: Vec<_> = (0..self.numbers.len()).map(|disk| noted.of(disk)).collect();
        let of = |stream: &Stream<'_>| {
            let track = self.track(stream)?;
            Some(in_all(&self.numbers, track, &noted).intersection(&stream.used).total())
        };
        streams.iter().filter_map(of).sum()
    }

    /// How far the capture is one instant.
    pub(super) fn consistency(&self) -> Consistency {
        let is_frozen = self.tracks.iter().any(|track| track.held == Held::Frozen);
        if is_frozen { Consistency::Frozen } else { Consistency::Stable }
    }

    /// Says how the machine was captured.
    pub(super) fn describe(&self, manifest: &mut Manifest, still: &Still, never_written: ByteLen) {
        for volume in &mut manifest.volumes {
            let track = self.tracks.iter().find(|track| track.label == volume.key);
            // A skeleton is made before, of a tree that goes on changing.
            let track = track.filter(|_| volume.mode != Mode::Skeleton);
            volume.consistency = track.map(|track| match track.held {
                Held::Frozen => Consistency::Frozen,
                Held::Mounted | Held::Free => Consistency::Stable,
            });
        }
        manifest.warnings.extend(self.warnings.iter().cloned());
        manifest.problems.extend(self.problems.iter().cloned());
        let mut running = self.report.clone();
        running.freezes.extend(still.freezes().iter().cloned());
        running.never_written_bytes = never_written.get();
        manifest.running = Some(running);
    }

    /// Adds to what a person should know.
    pub(super) fn warn(&mut self, warnings: Vec<String>) {
        self.warnings.extend(warnings);
    }

    /// By the log's disks: what matters.
    pub(super) fn interest(&self) -> &[ExtentSet] {
        &self.interest
    }

    /// By the log's disks: what has to be quiet.
    pub(super) fn quiet(&self) -> &[ExtentSet] {
        &self.quiet
    }

    /// How many harvests in a row had nothing of that.
    pub(super) fn quiet_harvests(&self) -> u32 {
        self.quiet_harvests
    }

    /// The volume that has a byte of a disk.
    pub(super) fn label_at(&self, disk: usize, extent: Extent) -> Option<&str> {
        let number = *self.numbers.get(disk)?;
        let set = ExtentSet::from(extent);
        let has = |track: &&Track| {
            let inside = in_stream(&track.pieces, number, &set);
            track.has_to_be_quiet && !inside.intersection(&track.interest).is_empty()
        };
        self.tracks.iter().find(has).map(|track| track.label.as_str())
    }
}

/// Puts what the filesystems' logs hold into its place. What is mounted may change before it comes to that.
fn first_freeze(live: &mut Live<'_>) -> Result<FrozenFor> {
    let mut tries = 1;
    loop {
        match live.machine.frozen(&mut |_| {}) {
            Err(error) if error.kind() == ErrorKind::Cancelled && tries < FIRST_TRIES => tries += 1,
            frozen => return frozen,
        }
    }
}

/// Whether the packs that the parent names have to be asked for.
#[derive(Clone, Copy)]
enum Proof {
    Asked,
    /// The parent is a draft of this capture, or nothing of what it names can be on its way out.
    Ours,
}

/// A parent that is still there now, after our lease, and with nothing on its way out when we looked, keeps all that it
/// names: whatever is given up from here on is kept for us.
fn is_proven(session: &Session<'_, '_>, draft: &Draft) -> Result<Proof> {
    let settled = session.dedup.lock().unwrap_or_else(PoisonError::into_inner).is_settled();
    let Some(parent) = draft.parent.as_ref().filter(|_| settled) else { return Ok(Proof::Asked) };
    let name = object(crate::captures::name_of(&parent.header))?;
    Ok(if session.repository.store().len(&name)?.is_some() { Proof::Ours } else { Proof::Asked })
}

/// Disk by disk.
pub(super) fn union(a: &[ExtentSet], b: &[ExtentSet]) -> Vec<ExtentSet> {
    a.iter().zip(b).map(|(a, b)| a.union(b)).collect()
}

/// How much it is.
pub(super) fn bytes(sets: &[ExtentSet]) -> ByteLen {
    sets.iter().map(ExtentSet::total).sum()
}

/// No instant could be had.
pub(super) fn gave_up(what: &str, count: usize) -> Error {
    let what = format!(
        "the machine writes faster than it can be captured: after {count} {what} more was marked than can be copied in \
         an instant; run it when less is written, leave out the volumes that are written most (--role KEY=ignore), or use \
         a faster share"
    );
    Error::new(ErrorKind::Denied, what)
}
