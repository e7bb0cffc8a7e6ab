//! What files are, in the kernel's words, and how nodes of many volumes share one space of numbers.

use fuser::{FileAttr, FileType, INodeNo};
use imager_volume::files::{Attributes, Kind, Node, Time};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Numbers below are the top's own: 1 for the folder, then its items. Above are the files of item N at N + 1 times this.
const VOLUME: u64 = 1 << 48;
const FIRST_ITEM: u64 = 2;

/// What a number of the kernel stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The folder that everything is in.
    Top,
    /// An item of it that is a file.
    Item(usize),
    /// A node of the item that is a folder of files.
    Node(usize, Node),
}

impl Place {
    pub(super) fn of(number: INodeNo) -> Self {
        let item = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        match number.0 {
            0 | 1 => Self::Top,
            number if number < VOLUME => Self::Item(item(number - FIRST_ITEM)),
            number => Self::Node(item(number / VOLUME - 1), Node(number % VOLUME)),
        }
    }

    pub(super) fn number(self) -> INodeNo {
        let item = |item: usize| u64::try_from(item).unwrap_or(u64::MAX);
        INodeNo(match self {
            Self::Top => 1,
            Self::Item(number) => item(number).saturating_add(FIRST_ITEM),
            Self::Node(number, node) => {
                item(number).saturating_add(1).saturating_mul(VOLUME) | (node.0 % VOLUME)
            }
        })
    }
}

/// Who mounts, whose everything is that has no owner.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// Something without a history.
pub(super) fn plain(
    place: Place,
    kind: FileType,
    perm: u16,
    size: u64,
    time: SystemTime,
    owner: Owner,
) -> FileAttr {
    FileAttr {
        ino: place.number(),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: owner.user,
        gid: owner.group,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// A file of a volume. Where the filesystem has no owners and modes, it is the mounter's alone.
pub(super) fn captured(place: Place, found: &Attributes, owner: Owner) -> FileAttr {
    let (kind, rdev) = match found.kind {
        Kind::File => (FileType::RegularFile, 0),
        Kind::Folder => (FileType::Directory, 0),
        Kind::Link => (FileType::Symlink, 0),
        Kind::Fifo => (FileType::NamedPipe, 0),
        Kind::Socket => (FileType::Socket, 0),
        Kind::Character(major, minor) => (FileType::CharDevice, device(major, minor)),
        Kind::Block(major, minor) => (FileType::BlockDevice, device(major, minor)),
    };
    let unowned = match found.kind {
        Kind::Folder => 0o700,
        Kind::Link => 0o777,
        _ => 0o600,
    };
    let (uid, gid) = found.owner.unwrap_or((owner.user, owner.group));
    FileAttr {
        ino: place.number(),
        size: found.size.get(),
        blocks: found.stored.get().div_ceil(512),
        atime: time(found.accessed),
        mtime: time(found.modified),
        ctime: time(found.changed),
        crtime: UNIX_EPOCH,
        kind,
        perm: found.mode.unwrap_or(unowned),
        nlink: found.links,
        uid,
        gid,
        rdev,
        blksize: 4096,
        flags: 0,
    }
}

/// include/linux/kdev_t.h, `new_encode_dev`.
fn device(major: u32, minor: u32) -> u32 {
    minor & 0xFF | (major & 0xFFF) << 8 | (minor & 0xF_FF00) << 12
}

fn time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let base = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    let exact = base.and_then(|base| base.checked_add(Duration::from_nanos(time.nanoseconds.into())));
    exact.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::{Place, time};
    use imager_volume::files::{Node, Time};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn numbers_stand_for_one_place_each() {
        for place in [
            Place::Top,
            Place::Item(0),
            Place::Item(77),
            Place::Node(0, Node(2)),
            Place::Node(9, Node(1 << 40)),
        ] {
            assert_eq!(Place::of(place.number()), place);
        }
    }

    #[test]
    fn times_before_1970_are_what_they_are() {
        let before = time(Time { seconds: -2, nanoseconds: 500_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(before).unwrap(), Duration::from_millis(1500));
    }
}
