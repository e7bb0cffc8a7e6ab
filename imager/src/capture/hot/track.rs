//! What is known of a byte stream of a machine that runs: where it lies, how it is held still, what of it may count.

use super::super::record;
use super::super::streams::{Stream, Subject};
use super::machine::{Held, Live};
use super::place::{in_stream, pieces};
use crate::survey::{Piece, Volume};
use imager_image::MaskUnit;
use imager_image::manifest::{Cost, Manifest, Role, Stack, Truth};
use imager_units::{ByteLen, ExtentSet, Result};
use imager_volume::{Certainty, UsedMap};

/// What there is to know of a stream beside itself.
pub(super) struct Track {
    pub(super) label: String,
    pub(super) pieces: Vec<Piece>,
    /// What may count of it.
    pub(super) interest: ExtentSet,
    /// Whether that is so whatever happens, and not for a filesystem to say.
    pub(super) is_fixed: bool,
    pub(super) held: Held,
    /// Whether nothing may be written to it at the instant.
    pub(super) has_to_be_quiet: bool,
    pub(super) truth: Truth,
    pub(super) unit: MaskUnit,
    pub(super) cost: Cost,
}

impl Track {
    pub(super) fn new(stream: &Stream<'_>, live: &Live<'_>) -> Result<Self> {
        let (is_fixed, held) = match stream.subject {
            // A skeleton lies on none of the disks, and nobody else has it.
            Subject::Remainder(_) | Subject::Skeleton(..) => (true, Held::Free),
            // What lies in its logical volumes is theirs; around them only administrators write.
            Subject::Volume(Volume { stack: Some(Stack::Physical { .. }), .. }, ..) => (true, Held::Free),
            Subject::Volume(volume, ..) if volume.role == Role::Swap => (true, Held::Free),
            Subject::Volume(volume, ..) => (false, live.machine.held(volume)?),
        };
        // Pages are swapped out to right behind the header of a swap volume, which itself stays the same.
        let is_swap = matches!(stream.subject, Subject::Volume(volume, ..) if volume.role == Role::Swap);
        let whole = ExtentSet::from(stream.source.geometry().extent());
        Ok(Self {
            label: stream.label.clone(),
            pieces: pieces(stream),
            interest: if is_fixed { stream.used.clone() } else { whole },
            is_fixed,
            held,
            has_to_be_quiet: held != Held::Frozen && !is_swap,
            truth: stream.truth,
            unit: stream.unit,
            cost: Cost::default(),
        })
    }

    pub(super) fn add(&mut self, cost: &Cost) {
        self.cost.read_bytes += cost.read_bytes;
        self.cost.audited_bytes += cost.audited_bytes;
        self.cost.new_bytes += cost.new_bytes;
        self.cost.stored_bytes += cost.stored_bytes;
    }
}

/// What is used at this moment, never too little.
pub(super) fn used_now(volume: &Volume, live: &Live<'_>) -> Result<UsedMap> {
    if volume.role == Role::Swap || matches!(volume.stack, Some(Stack::Physical { .. })) {
        return volume.used();
    }
    match live.machine.held(volume)? {
        Held::Free => volume.used(),
        // What it has not written back yet, its map on the disk does not know.
        Held::Mounted => Ok(UsedMap::whole(volume.size(), "it is mounted and cannot be frozen".to_owned())),
        Held::Frozen => {
            let block = volume.filesystem.as_ref().map(|found| found.block);
            let unit = block.filter(|block| block.get().is_power_of_two());
            let unit = unit.map_or(4096, |block| block.get().clamp(512, 65_536));
            match live.machine.used(volume) {
                Some(extents) => {
                    Ok(UsedMap { extents, unit: ByteLen::new(unit), certainty: Certainty::Exact })
                }
                None => Ok(match volume.used()? {
                    UsedMap { extents, certainty: Certainty::Whole(why), .. } => {
                        UsedMap { extents, unit: ByteLen::new(unit), certainty: Certainty::Whole(why) }
                    }
                    exact => exact,
                }),
            }
        }
    }
}

/// Whether the parent's stream lay where this one lies, so that marks of the time between speak of both.
pub(super) fn is_in_place(stream: &Stream<'_>, parent: Option<&Manifest>) -> bool {
    let size = stream.source.geometry().size.get();
    let Some(parent) = parent.filter(|_| stream.parent.as_ref().is_some_and(|map| map.size_bytes == size))
    else {
        return false;
    };
    match stream.subject {
        Subject::Remainder(_) => true,
        // It is made anew.
        Subject::Skeleton(..) => false,
        Subject::Volume(volume, ..) => {
            let before = parent.volumes.iter().find(|before| before.key == volume.key);
            before.is_some_and(|before| before.segments == record::segments(volume))
        }
    }
}

pub(super) fn in_all(numbers: &[u32], track: &Track, sets: &[ExtentSet]) -> ExtentSet {
    let mut all = ExtentSet::new();
    for (number, set) in numbers.iter().zip(sets) {
        all = all.union(&in_stream(&track.pieces, *number, set));
    }
    all
}
