//! Swap: any header, and what resetting it does.

#![no_main]

mod volume;

use imager_disk::MemoryDisk;
use imager_units::SectorSize;
use imager_volume::swap::{Swap, reset};
use imager_volume::{State, UsedBlocks};
use libfuzzer_sys::fuzz_target;

/// Forty pages of 4 KiB.
const BYTES: usize = 40 << 12;
/// Where the fields are: version and last page, and the two signatures of a page of 4 KiB.
const FIELDS: [(usize, usize); 3] = [(0, 8), (1024, 64), (4076, 20)];

fuzz_target!(|data: &[u8]| {
    let mut bytes = vec![0; BYTES];
    let mut rest = data;
    for (at, len) in FIELDS {
        let (now, later) = rest.split_at(len.min(rest.len()));
        bytes[at..at + now.len()].copy_from_slice(now);
        rest = later;
    }
    let disk = MemoryDisk::from_bytes(&bytes, SectorSize::B512);
    volume::check(&disk, &Swap);
    let before = Swap.probe(&disk).expect("memory is always read");
    let original = bytes.clone();
    match reset(&mut bytes) {
        Ok(_) => {
            let after = Swap.probe(&MemoryDisk::from_bytes(&bytes, SectorSize::B512)).expect("memory is always read");
            let (before, after) = (before.expect("it had a header"), after.expect("it has one"));
            assert_eq!(after.state, State::Clean);
            assert_eq!((before.uuid, before.label), (after.uuid, after.label));
        }
        Err(_) => assert_eq!(bytes, original),
    }
});
