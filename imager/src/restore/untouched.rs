//! Proving that a volume was not touched.
//!
//! Before the first write and after the last, a digest is taken of the volume's head and of seeded samples (or of all
//! of it), read past the cache; on a block device the kernel's own count of writes to the partition must not have moved.
//! A volume that others use changes by their hands, so it is not looked at; that we wrote nothing to it the kernel shows
//! by counting nothing but our own writes beside theirs.

use super::target::Target;
use imager_disk::counters::WriteCounters;
use imager_disk::{Access, Device, DeviceNumber, ReadAt, System, Window};
use imager_image::CaptureId;
use imager_units::{ByteLen, ByteOffset, Extent, Result};
use serde::Serialize;

/// How thoroughly it is proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// Heads and samples.
    #[default]
    Samples,
    /// Every byte.
    Full,
}

/// Samples of all untouched volumes of a disk together.
const SAMPLES: u64 = 4096;
const SAMPLE_BYTES: usize = 4096;
/// How much of a volume's start counts as its head.
const HEAD: ByteLen = ByteLen::new(1 << 20);

/// A volume that a restore leaves alone, and what it was like before.
pub struct Witness {
    /// Its key.
    pub key: String,
    extent: Extent,
    /// What was looked at; nothing of a volume in use.
    seen: Option<Seen>,
    counters: Option<(DeviceNumber, WriteCounters)>,
}

struct Seen {
    samples: u64,
    digest: blake3::Hash,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Untouched {
    /// Its key.
    pub key: String,
    /// Whether nothing of it changed, as far as was looked; `null` when it is in use.
    pub unchanged: Option<bool>,
    /// Whether others use it: then it is written by them, and not by the restore.
    pub in_use: bool,
    /// What shows it: `samples` or `full`; of a volume in use `counters`, or `none` where the kernel keeps none or counted
    /// what was not ours.
    pub proof: &'static str,
    /// Bytes written to its partition meanwhile, by the kernel's count; `null` for a file. In use, they are its users'.
    pub written_bytes: Option<u64>,
}

impl Untouched {
    /// Adds what is known of another piece of the same volume.
    pub(super) fn add(&mut self, piece: Self) {
        self.unchanged = match (self.unchanged, piece.unchanged) {
            (Some(one), Some(other)) => Some(one && other),
            _ => None,
        };
        self.in_use |= piece.in_use;
        self.written_bytes = None;
    }
}

/// Takes the digests of volumes (key, place) before anything is written.
///
/// # Errors
/// `Io` when one cannot be read.
pub fn witness(
    target: &Target,
    volumes: Vec<(String, Extent)>,
    capture: CaptureId,
    proof: Proof,
) -> Result<Vec<Witness>> {
    let looked_at = volumes.iter().filter(|(_, extent)| !target.is_used(*extent)).count();
    let share = SAMPLES.div_ceil(looked_at.max(1) as u64);
    let mut witnesses = Vec::new();
    for (key, extent) in volumes {
        let samples = if proof == Proof::Full { u64::MAX } else { share };
        let seen = if target.is_used(extent) {
            None
        } else {
            Some(Seen { samples, digest: digest(target, extent, &key, samples, capture)? })
        };
        let node = target.partitions.iter().find(|partition| partition.extent == extent);
        let counters = match node {
            Some(node) => {
                let system = System::new();
                system.write_counters(node.device).ok().map(|counters| (node.device, counters))
            }
            None => None,
        };
        witnesses.push(Witness { key, extent, seen, counters });
    }
    Ok(witnesses)
}

impl Witness {
    /// Looks again. `all_ours` says whether the kernel counted nothing but our writes beside those of others to what
    /// they use.
    ///
    /// # Errors
    /// `Io` when it cannot be read.
    pub fn testify(&self, target: &Target, capture: CaptureId, all_ours: bool) -> Result<Untouched> {
        let again = |seen: &Seen| digest(target, self.extent, &self.key, seen.samples, capture);
        let same = self.seen.as_ref().map(|seen| Ok(again(seen)? == seen.digest)).transpose()?;
        let written = self.counters.and_then(|(device, before)| {
            let now = System::new().write_counters(device).ok()?;
            Some(now.since(before))
        });
        Ok(Untouched {
            key: self.key.clone(),
            unchanged: same.map(|same| same && written.is_none_or(WriteCounters::is_nothing)),
            in_use: self.seen.is_none(),
            proof: match &self.seen {
                Some(Seen { samples: u64::MAX, .. }) => "full",
                Some(_) => "samples",
                None if all_ours => "counters",
                None => "none",
            },
            written_bytes: written.map(|counters| counters.written.get() + counters.discarded.get()),
        })
    }
}

fn digest(
    target: &Target,
    extent: Extent,
    key: &str,
    samples: u64,
    capture: CaptureId,
) -> Result<blake3::Hash> {
    let device = Device::open(&target.path, Access::ReadDirect, Some(target.geometry.logical))?;
    let volume = Window::part(device, extent)?;
    let size = extent.len();
    let mut hasher = blake3::Hasher::new();
    let head = if samples == u64::MAX { size } else { size.min(HEAD) };
    let mut buffer = imager_disk::AlignedBuf::zeroed(1 << 20);
    let mut at = 0;
    while at < head.get() {
        let len = usize::try_from(head.get() - at).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..len).unwrap_or_default();
        volume.read_exact_at(ByteOffset::new(at), part)?;
        hasher.update(part);
        at += len as u64;
    }
    if samples != u64::MAX {
        let seed = blake3::Hasher::new().update(&capture.0).update(key.as_bytes()).finalize();
        let mut random = blake3::Hasher::new_keyed(seed.as_bytes()).finalize_xof();
        let pages = size.get() / SAMPLE_BYTES as u64;
        for _ in 0..if pages == 0 { 0 } else { samples } {
            let mut number = [0; 8];
            random.fill(&mut number);
            let page = u64::from_le_bytes(number) % pages;
            let part = buffer.get_mut(..SAMPLE_BYTES).unwrap_or_default();
            volume.read_exact_at(ByteOffset::new(page * SAMPLE_BYTES as u64), part)?;
            hasher.update(part);
        }
    }
    Ok(hasher.finalize())
}
