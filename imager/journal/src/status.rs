//! What a person wants to know of the journal, without taking anything from whoever uses it.

use crate::audit::Patience;
use crate::disk::Disk;
use crate::folder::Folder;
use crate::followed::{Finding, boot_id, finding};
use crate::program::Pins;
use crate::record::{Origin, changes};
use crate::tracker::{Tracker, Which, Word};
use crate::trouble::Trouble;
use imager_units::{ByteLen, Result};
use std::sync::atomic::Ordering::SeqCst;
use std::time::SystemTime;

/// The journal of a disk.
#[derive(Clone, Debug)]
pub struct Status {
    /// The kernel's name of the disk.
    pub disk: String,
    /// `None` where the disk that was followed is gone, or another has its name.
    pub followed: Option<FollowedStatus>,
    /// Why what was known before was given up, the last time that it was.
    pub last_trouble: Option<String>,
}

/// That of one that is followed.
#[derive(Clone, Debug)]
pub struct FollowedStatus {
    /// Since when.
    pub since: Option<SystemTime>,
    /// How large it is.
    pub size: ByteLen,
    /// Epochs that were ended.
    pub epochs: u64,
    /// Marked as written since the last.
    pub written: ByteLen,
    /// Marked as discarded since the last.
    pub discarded: ByteLen,
    /// What was counted since the start.
    pub trouble: Trouble,
    /// For each end of a write how often the kernel ran the program, and for how many nanoseconds, where it counts that
    /// (`kernel.bpf_stats_enabled`); events of other disks are among them.
    pub cost: [(u64, u64); 2],
    /// Why a write may have been missed just now.
    pub doubt: Option<String>,
    /// The captures since which the changes are asked for.
    pub cursors: Vec<CursorStatus>,
}

/// A capture that the journal knows.
#[derive(Clone, Debug)]
pub struct CursorStatus {
    /// Its id.
    pub capture: String,
    /// After which epoch it was made.
    pub epoch: u64,
    /// Whether all changes since are known, but for a doubt of now.
    pub is_good: bool,
}

impl Status {
    /// Of the disk of this name; `None` when nothing was started for it.
    ///
    /// # Errors
    /// `Io`, `Denied`.
    pub fn of(name: &str) -> Result<Option<Self>> {
        let (pins, folder) = (Pins::of(name), Folder::of(name));
        if !pins.exist() {
            return Ok(None);
        }
        let tracker = Disk::named(name).ok().map(|disk| Tracker::open(&disk)).transpose()?.flatten();
        let followed = tracker.map(|tracker| followed(&tracker, &pins, &folder)).transpose()?;
        Ok(Some(Self { disk: name.to_owned(), followed, last_trouble: folder.trouble() }))
    }
}

fn followed(tracker: &Tracker, pins: &Pins, folder: &Folder) -> Result<FollowedStatus> {
    let word = |word| tracker.word(word).load(SeqCst);
    let origin = Origin::new(boot_id()?, tracker.about(), word(Word::Era));
    let epochs = word(Word::Epoch);
    let records = folder.epochs(&origin)?;
    let cursors = folder.cursors()?.into_iter().map(|cursor| CursorStatus {
        is_good: cursor.origin == origin && changes(&records, cursor.epoch, epochs).is_ok(),
        capture: cursor.capture,
        epoch: cursor.epoch,
    });
    Ok(FollowedStatus {
        since: pins.made(),
        size: tracker.about().size,
        epochs,
        written: tracker.marked(Which::Written),
        discarded: tracker.marked(Which::Discarded),
        trouble: tracker.trouble()?,
        cost: tracker.cost()?,
        doubt: match finding(tracker, Patience::LONG)? {
            Finding::Doubt(why) => Some(why),
            Finding::Well | Finding::Unseen => None,
        },
        cursors: cursors.collect(),
    })
}
