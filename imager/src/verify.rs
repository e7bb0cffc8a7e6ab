//! Proving that captures can be restored, or saying exactly what cannot.
//!
//! First the manifests and every node of their maps are read; that tells which packs are needed and whether they are
//! there. To read the data as well, each needed pack is read whole, once, and every block in it checked against its id;
//! then the maps are gone through again, and a block that was not found where its map says is looked at on its own before
//! it is called lost. So every reference of every map is proven, and damage is named by volume and byte.
//!
//! Memory is bounded whatever the size: packs come in rounds, in the order of their ids; of a sound block 8 bytes are kept
//! until the maps have been compared; subtrees that captures share are visited once while there is room to remember them.

mod packs;
mod report;
mod visitors;
pub(crate) mod walk;

pub(crate) use report::chain;
pub use report::{Affected, CaptureReport, Damaged, Fault, Status, VerifyReport, VolumeReport};

use crate::captures::{self, Selector};
use crate::monitor::{Monitor, check_cancelled};
use crate::pipeline::{Width, ordered};
use crate::repository::{Repository, object};
use imager_image::manifest::{Manifest, Map};
use imager_image::{PackId, names};
use imager_units::{ByteLen, ErrorKind, Result};
use packs::{Checked, Checker, Gate, Wanted};
use report::Findings;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use visitors::{Collector, Inspector, Lacking, Losses, Needed, Proof};
use walk::{Known, Visitor, Walk};

/// How much is kept in memory at once.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Packs of one round.
    packs: usize,
    /// Sound blocks, until the maps are compared with them.
    blocks: usize,
}

/// About 35 MiB of names for 8 TiB of packs, and 32 MiB for 256 GiB of full blocks.
const LIMITS: Limits = Limits { packs: 500_000, blocks: 4 << 20 };
/// What a mark on a pack says; always the same, so that marking twice is no contradiction.
pub(crate) const MARK: &[u8] = b"imager verify found this pack damaged\n";

/// How far a verification goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// Manifests, maps, and that packs are there with their lengths.
    #[default]
    Structure,
    /// Every byte of every pack.
    ReadData,
}

/// What to do about damaged packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    #[default]
    Leave,
    /// Mark them, so that the next capture stores their blocks again.
    Damaged,
}

/// Which captures are looked at.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Every one in the repository.
    All,
    /// Every one of a machine.
    Machine(&'a str),
    /// The one a person named. One named by its id is found even if its manifest is damaged.
    Selected(&'a Selector),
    /// These.
    Captures(&'a [Manifest]),
}

/// How to verify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How far to go.
    pub depth: Depth,
    /// What to do about damaged packs.
    pub mark: Mark,
}

/// One map of a capture: a volume's or a remainder's.
pub(crate) struct Stream<'m> {
    pub(crate) disk: u32,
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) map: &'m Map,
}

/// The maps of a capture: its volumes', then its remainders'.
pub(crate) fn streams(manifest: &Manifest) -> impl Iterator<Item = Stream<'_>> {
    let volumes = manifest.volumes.iter().filter_map(|volume| {
        let map = volume.map.as_ref()?;
        Some(Stream { disk: volume.disk, key: volume.key.clone(), name: volume.name.clone(), map })
    });
    volumes.chain(manifest.disks.iter().map(|disk| Stream {
        disk: disk.number,
        key: format!("{}:remainder", disk.number),
        name: format!("outside the volumes of disk {}", disk.number),
        map: &disk.remainder,
    }))
}

/// Verifies captures. Damage is in the report, not an error.
///
/// # Errors
/// `NotFound` when there is no such capture, `Invalid` when an id fits several; `Io`, `Denied` from the share;
/// `Cancelled`.
pub fn run(
    repository: &Repository,
    scope: Scope<'_>,
    options: Options,
    monitor: &dyn Monitor,
) -> Result<VerifyReport> {
    within(LIMITS, repository, scope, options, monitor)
}

fn within(
    limits: Limits,
    repository: &Repository,
    scope: Scope<'_>,
    options: Options,
    monitor: &dyn Monitor,
) -> Result<VerifyReport> {
    let started = Instant::now();
    let (objects, own) = objects(repository, scope)?;
    let (known, mut findings) = (Known::default(), Findings::new());
    findings.warnings.extend(own.map(|own| {
        format!("only the captures of {own:?} were looked at: the token shows no other machine's, a restore token does")
    }));
    let mut verify = Verify { repository, objects, limits, monitor, known, findings };
    verify.rounds(options.depth)?;
    verify.forget();
    verify.leave_out_what_was_pruned()?;
    if options.mark == Mark::Damaged {
        verify.mark()?;
    }
    Ok(verify.findings.finish(options.depth, started))
}

/// The names of the manifests to look at, and the machine where only its own could be found.
fn objects(repository: &Repository, scope: Scope<'_>) -> Result<(Vec<String>, Option<String>)> {
    let names = match scope {
        Scope::All => return captures::in_sight(repository, |folder| captures::objects(repository, folder)),
        Scope::Machine(machine) => {
            names::check_machine(machine)?;
            captures::objects(repository, &format!("{}/{machine}", names::CAPTURES))?
        }
        Scope::Captures(manifests) => {
            manifests.iter().map(|manifest| captures::name_of(&manifest.header)).collect()
        }
        Scope::Selected(Selector::Id(prefix)) => vec![captures::locate(repository, prefix)?],
        Scope::Selected(selector) => vec![captures::name_of(&captures::find(repository, selector)?.0.header)],
    };
    Ok((names, None))
}

/// A verification under way.
struct Verify<'r> {
    repository: &'r Repository,
    objects: Vec<String>,
    limits: Limits,
    monitor: &'r dyn Monitor,
    known: Known,
    findings: Findings,
}

impl<'r> Verify<'r> {
    fn rounds(&mut self, depth: Depth) -> Result<()> {
        let mut after = None;
        loop {
            self.monitor.phase("reading block maps", None);
            let mut needed = Needed::new(after, self.limits.packs);
            self.collect(&mut needed, after.is_none())?;
            let ((packs, bytes), more, last) = (needed.totals(), needed.more, needed.last());
            self.findings.packs += packs;
            self.findings.pack_bytes += bytes;
            match depth {
                Depth::Structure => self.presence(needed)?,
                Depth::ReadData => self.contents(needed, ByteLen::new(bytes))?,
            }
            if !more {
                return Ok(());
            }
            after = last;
        }
    }

    /// Reads every manifest and every map; the first time it says what is wrong with them.
    fn collect(&mut self, needed: &mut Needed, first: bool) -> Result<()> {
        self.forget();
        self.each(|verify, object, read| {
            let manifest = match read {
                Ok(manifest) => manifest,
                Err(error) if first => {
                    verify.findings.manifest(object, &error);
                    return Ok(());
                }
                Err(_) => return Ok(()),
            };
            if first {
                verify.findings.capture(object, &manifest);
            }
            for stream in streams(&manifest) {
                let mut collector = Collector { needed: &mut *needed, losses: Losses::new() };
                verify.walk(&stream, &mut collector)?;
                let losses = collector.losses;
                if first {
                    verify.book(&manifest, &stream, losses);
                }
            }
            Ok(())
        })
    }

    /// Begins another walk through all maps.
    fn forget(&mut self) {
        let flickered = std::mem::take(&mut self.known).flickered;
        if flickered > 0 {
            let what = format!("{flickered} map nodes were read wrong once and right the second time");
            self.findings.warnings.push(what);
        }
    }

    /// Reads the manifests one after the other.
    fn each(&mut self, mut work: impl FnMut(&mut Self, &str, Result<Manifest>) -> Result<()>) -> Result<()> {
        for object in std::mem::take(&mut self.objects) {
            check_cancelled(self.monitor)?;
            let read = match captures::read(self.repository, &object) {
                Err(error) if error.kind() == ErrorKind::Corrupt => captures::read(self.repository, &object),
                read => read,
            };
            match read {
                // Revoked, or pruned meanwhile: there is no such capture.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if !walk::is_damage(&error) => return Err(error),
                read => {
                    work(self, &object, read)?;
                    self.objects.push(object);
                }
            }
        }
        Ok(())
    }

    fn walk(&mut self, stream: &Stream<'_>, visitor: &mut dyn Visitor) -> Result<()> {
        Walk::new(self.repository, stream.map, &mut self.known, visitor, self.monitor)?.run()
    }

    fn book(&mut self, manifest: &Manifest, stream: &Stream<'_>, losses: Losses) {
        for (pack, (extents, why)) in losses {
            self.findings.affect(names::pack(pack), manifest, stream, &extents, why);
        }
    }

    /// Looks whether the packs are there with their lengths, a folder at a time.
    fn presence(&mut self, needed: Needed) -> Result<()> {
        let mut wrong = BTreeMap::new();
        let packs: Vec<Wanted> = needed.into_packs().collect();
        for folder in packs.chunk_by(|a, b| a.pack.id.0.first() == b.pack.id.0.first()) {
            check_cancelled(self.monitor)?;
            for (wanted, found) in self.lengths(folder)? {
                if let Some((fault, message)) = packs::presence(wanted.pack, found) {
                    let moved = is_moved(self.repository, wanted.pack.id)?;
                    if !moved {
                        self.findings.object(names::pack(wanted.pack.id), fault, message);
                    }
                    wrong.insert(wanted.pack.id, Lacking { found, moved });
                }
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        self.inspect(&Proof::Presence(&wrong))
    }

    /// The lengths of packs that lie in one folder of the share.
    fn lengths<'p>(&self, packs: &'p [Wanted]) -> Result<Vec<(&'p Wanted, Option<u64>)>> {
        let mut found: Vec<_> = packs.iter().map(|wanted| (wanted, None)).collect();
        let Some(first) = packs.first() else { return Ok(found) };
        let name = names::pack(first.pack.id);
        let folder = name.rsplit_once('/').map_or(names::PACKS, |(folder, _)| folder);
        let listed = self.repository.store().list(folder, &mut |entry| {
            let id = names::pack_of(entry.name.as_str());
            let place = id.and_then(|id| found.binary_search_by_key(&id, |(wanted, _)| wanted.pack.id).ok());
            if let Some((_, len)) = place.and_then(|at| found.get_mut(at)) {
                *len = Some(entry.len.get());
            }
            Ok(())
        });
        match listed {
            // Whoever may read but not list packs asks for each by its name.
            Err(error) if error.kind() == ErrorKind::Denied => {
                for (wanted, len) in &mut found {
                    let name = object(names::pack(wanted.pack.id))?;
                    *len = self.repository.store().len(&name)?.map(ByteLen::get);
                }
            }
            listed => listed?,
        }
        Ok(found)
    }

    /// Reads the packs, and compares the maps with what is in them whenever enough has been found.
    fn contents(&mut self, needed: Needed, total: ByteLen) -> Result<()> {
        let mut packs = needed.into_packs().peekable();
        while let Some(first) = packs.peek().map(|wanted| wanted.pack.id) {
            self.monitor.phase("reading packs", Some(total));
            let (mut sound, mut missing, mut last) = (Vec::new(), BTreeSet::new(), first);
            self.read(&mut packs, |findings, mut checked| {
                last = checked.wanted.pack.id;
                if let Some((fault, message)) = checked.fault.take_if(|_| checked.moved) {
                    let what = "captures find elsewhere what moved out of it";
                    findings.warnings.push(format!("{}: {message}; {what}", names::pack(last)));
                    // No later capture may rely on the rest of it.
                    findings.emptied.extend((fault != Fault::Missing).then_some(last));
                }
                if matches!(checked.fault, Some((Fault::Missing, _))) {
                    missing.insert(last);
                }
                sound.extend_from_slice(&checked.sound);
                findings.read_bytes += checked.read.get();
                record(findings, checked);
            })?;
            sound.sort_unstable();
            self.monitor.phase("comparing block maps", None);
            self.inspect(&Proof::Content(first..=last, &sound, &missing))?;
        }
        Ok(())
    }

    /// Checks packs until they are all checked or as many blocks were found as can be remembered.
    fn read(
        &mut self,
        packs: &mut (impl Iterator<Item = Wanted> + Send),
        mut each: impl FnMut(&mut Findings, Checked),
    ) -> Result<()> {
        let (gate, found) = (Gate::default(), AtomicUsize::new(0));
        let (repository, monitor, limits) = (self.repository, self.monitor, self.limits);
        let findings = &mut self.findings;
        let units = std::iter::from_fn(|| {
            let room = found.load(Ordering::Relaxed) < limits.blocks;
            if room { packs.next().map(Ok) } else { None }
        });
        let make = || {
            let mut checker = Checker::new(repository, &gate, monitor)?;
            let found = &found;
            Ok(move |wanted| {
                let checked = checker.check(wanted)?;
                found.fetch_add(checked.sound.len(), Ordering::Relaxed);
                Ok(checked)
            })
        };
        ordered("verify", Width::for_this_machine(), units, make, |checked: Checked| {
            monitor.advance(ByteLen::new(checked.wanted.pack.len.into()));
            each(findings, checked);
            Ok(())
        })
    }

    /// Goes through all maps and says what is not where they say.
    fn inspect(&mut self, proof: &Proof<'_>) -> Result<()> {
        self.forget();
        self.each(|verify, _, read| {
            // One that cannot be read now could not be read before, and was reported.
            let Ok(manifest) = read else { return Ok(()) };
            for stream in streams(&manifest) {
                let mut inspector = Inspector::new(verify.repository, stream.map, proof)?;
                verify.walk(&stream, &mut inspector)?;
                let losses = inspector.losses;
                verify.book(&manifest, &stream, losses);
            }
            Ok(())
        })
    }

    /// What a prune took away while it was looked at is not damaged: it is not there any more.
    fn leave_out_what_was_pruned(&mut self) -> Result<()> {
        let mut gone = BTreeSet::new();
        for (capture, object) in self.findings.suspects() {
            if self.repository.store().len(&self::object(object)?)?.is_none() {
                gone.insert(capture);
            }
        }
        self.findings.forget(&gone);
        Ok(())
    }

    fn mark(&mut self) -> Result<()> {
        let emptied = std::mem::take(&mut self.findings.emptied);
        let damaged: BTreeSet<PackId> = self.findings.damaged_packs().chain(emptied).collect();
        for pack in damaged {
            let name = names::marker(names::DAMAGED, pack);
            match self.repository.store().put(&object(name.clone())?, MARK) {
                // Marked by another, in other words.
                Err(error) if error.kind() == ErrorKind::Exists => {}
                put => drop(put?),
            }
            self.findings.marked.push(name);
        }
        Ok(())
    }
}

/// Whether frames of the pack went elsewhere.
fn is_moved(repository: &Repository, pack: PackId) -> Result<bool> {
    Ok(repository.store().len(&object(names::moved(pack, 0))?)?.is_some())
}

fn record(findings: &mut Findings, checked: Checked) {
    let name = names::pack(checked.wanted.pack.id);
    match checked.fault {
        Some((fault, message)) => findings.object(name, fault, message),
        None if checked.flickered => {
            findings.warnings.push(format!("{name} was read wrong once and right the second time"));
        }
        None => {}
    }
}

#[cfg(test)]
mod tests;
