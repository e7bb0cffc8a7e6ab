//! What volumes have to do with each other: a logical volume lies in physical ones, members make an array.

use super::{Run, Segment};
use imager_units::Extent;
use serde::{Deserialize, Serialize};

/// What a volume is a part of, or what it was cut out of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Stack {
    /// A physical volume of an LVM volume group, whose map leaves out what is a volume of its own.
    Physical {
        /// The group's name.
        group: String,
        /// The group's UUID.
        group_id: String,
        /// The physical volume's UUID.
        id: String,
        /// Logical volumes of the group that are no volumes here: they are copied with their physical volumes.
        opaque: Vec<String>,
    },
    /// A logical volume.
    Logical {
        /// The group's name.
        group: String,
        /// The group's UUID.
        group_id: String,
        /// The logical volume's UUID.
        id: String,
    },
    /// A member of an md array.
    Member {
        /// The array's UUID.
        array: String,
        /// Its level: `RAID1`, …
        level: String,
        /// How many members it had in order.
        members: u32,
        /// Which of them this is; `null` for a spare or one that failed.
        role: Option<u32>,
    },
}

impl Segment {
    /// The piece as an extent, empty when it would leave 64 bits.
    pub fn extent(self) -> Extent {
        Run(self.start_byte, self.len_bytes).extent()
    }
}
