//! Regular files; block devices are in `tests/device.rs`.

use super::{Access, Device, Protection};
use crate::{AlignedBuf, ReadAt, WriteAt};
use imager_units::{ByteLen, ByteOffset, ErrorKind, Extent, SectorSize};
use proptest::prelude::{ProptestConfig, Strategy, any, proptest};
use std::fs::{self, File};
use std::path::PathBuf;

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset::new(start), ByteLen::new(len)).unwrap()
}

fn file(size: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    File::create(&path).unwrap().set_len(size).unwrap();
    (folder, path)
}

fn read(device: &Device, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    device.read_exact_at(ByteOffset::new(at), &mut bytes).unwrap();
    bytes
}

/// Offsets and lengths that like to lie near multiples of 4096.
fn operations() -> impl Strategy<Value = Vec<(u64, u64, u8, usize)>> {
    let near = |most: u64| {
        (0..most, 0..3_u64, any::<bool>())
            .prop_map(|(n, d, up)| if up { n * 4096 + d } else { (n * 4096).saturating_sub(d) })
    };
    proptest::collection::vec((near(8), near(6), any::<u8>(), 0..3_usize), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_read_and_written_like_those_of_a_vector(size in 1..40_000_u64, ops in operations()) {
        let (_folder, path) = file(size);
        let mut model = vec![0; usize::try_from(size).unwrap()];
        for (access, direct) in [(Access::Write, true), (Access::WriteShared, true), (Access::Write, false)] {
            let mut device = Device::open(&path, access, None).unwrap();
            if !direct {
                device.transfer.without_direct();
            }
            for &(at, len, byte, misaligned) in &ops {
                let (at, len) = (at.min(size), len.min(size - at.min(size)));
                let part = &mut model[usize::try_from(at).unwrap()..][..usize::try_from(len).unwrap()];
                part.fill(if byte < 100 { 0 } else { byte });
                if byte < 100 {
                    device.zero(extent(at, len)).unwrap();
                } else {
                    let mut memory = AlignedBuf::zeroed(part.len() + misaligned);
                    memory[misaligned..].copy_from_slice(part);
                    device.write_all_at(ByteOffset::new(at), &memory[misaligned..]).unwrap();
                }
                let mut memory = AlignedBuf::zeroed(part.len() + misaligned);
                device.read_exact_at(ByteOffset::new(at), &mut memory[misaligned..]).unwrap();
                assert_eq!(&memory[misaligned..], part);
            }
            device.flush().unwrap();
            device.drop_cache(device.geometry().extent());
            assert_eq!(read(&device, 0, model.len()), model);
        }
        for access in [Access::Read, Access::ReadDirect] {
            let device = Device::open(&path, access, None).unwrap();
            device.will_read(device.geometry().extent());
            assert_eq!(read(&device, 0, model.len()), model);
            let data = device.data(extent(0, size)).unwrap();
            for (at, _) in model.iter().enumerate().filter(|&(_, &byte)| byte != 0) {
                assert!(data.contains(extent(at as u64, 1)), "{at} is data");
            }
        }
        assert_eq!(fs::read(&path).unwrap(), model);
    }
}

#[test]
fn threads_may_write_neighbouring_bytes() {
    let (_folder, path) = file(50_001);
    let device = Device::open(&path, Access::Write, None).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..5_u8 {
            let device = &device;
            scope.spawn(move || {
                for at in (u64::from(thread)..50_001).step_by(5) {
                    device.write_all_at(ByteOffset::new(at), &[thread + 1]).unwrap();
                }
            });
        }
    });
    let expected: Vec<_> = [1, 2, 3, 4, 5].into_iter().cycle().take(50_001).collect();
    assert!(read(&device, 0, 50_001) == expected);
}

#[test]
fn large_unaligned_transfers_are_exact() {
    let size = (3 << 20) + 777;
    let (_folder, path) = file(size);
    let device = Device::open(&path, Access::Write, None).unwrap();
    let bytes: Vec<u8> = (0..size - 5).map(|at| (at * 7 % 251).to_le_bytes()[0]).collect();
    device.write_all_at(ByteOffset::new(3), &bytes).unwrap();
    assert!(read(&device, 3, bytes.len()) == bytes);
    device.zero(extent(5, size - 10)).unwrap();
    let back = read(&device, 0, usize::try_from(size).unwrap());
    assert_eq!(back.iter().filter(|&&byte| byte != 0).count(), 2 + 3 - usize::from(bytes[0] == 0));
    assert!(fs::metadata(&path).unwrap().len() == size, "zeroing does not lengthen");
}

#[test]
fn holes_are_not_data_and_zeroing_makes_them() {
    let (_folder, path) = file(64 << 20);
    let device = Device::open(&path, Access::Write, None).unwrap();
    device.write_all_at(ByteOffset::new(32 << 20), &[1; 8192]).unwrap();
    let data = device.data(device.geometry().extent()).unwrap();
    assert!(data.contains(extent(32 << 20, 8192)) && data.total() < ByteLen::new(1 << 20), "{data:?}");
    device.zero(device.geometry().extent()).unwrap();
    assert!(device.data(device.geometry().extent()).unwrap().is_empty());
}

#[test]
fn a_file_grows_and_then_is_written_to_its_new_end() {
    let (_folder, path) = file(0);
    let mut device = Device::open(&path, Access::Write, Some(SectorSize::B4096)).unwrap();
    assert!(device.read_exact_at(ByteOffset::ZERO, &mut [0]).is_err());
    device.set_len(ByteLen::new(10_001)).unwrap();
    assert_eq!(
        (device.geometry().size, device.geometry().logical),
        (ByteLen::new(10_001), SectorSize::B4096)
    );
    device.write_all_at(ByteOffset::new(9_990), b"to the end.").unwrap();
    assert_eq!(read(&device, 9_989, 12), b"\0to the end.");
}

#[test]
fn a_file_that_was_shortened_says_where_it_ends() {
    for access in [Access::Read, Access::ReadDirect] {
        let (_folder, path) = file(1 << 20);
        let device = Device::open(&path, access, None).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(5_000).unwrap();
        let error = device.read_exact_at(ByteOffset::new(4096), &mut [0; 8192]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().ends_with("which now ends at 0x1388"), "{error}");
    }
}

#[test]
fn two_writers_of_one_file_are_refused() {
    let (_folder, path) = file(4096);
    let device = Device::open(&path, Access::Write, None).unwrap();
    assert_eq!(Device::open(&path, Access::Write, None).unwrap_err().kind(), ErrorKind::Denied);
    assert!(Device::open(&path, Access::Read, None).is_ok());
    drop(device);
    assert!(Device::open(&path, Access::Write, None).is_ok());
}

#[test]
fn what_is_opened_to_read_is_not_written() {
    let (_folder, path) = file(4096);
    let device = Device::open(&path, Access::Read, None).unwrap();
    assert_eq!(device.write_all_at(ByteOffset::ZERO, b"x").unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(device.zero(extent(0, 1)).unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(device.protection().unwrap(), Protection::Writable);
    assert!(!device.is_block() && device.number().is_none());
}

#[test]
fn only_files_and_block_devices_are_disks() {
    let folder = tempfile::tempdir().unwrap();
    for (path, kind) in [
        (folder.path().to_owned(), ErrorKind::Invalid),
        (PathBuf::from("/dev/null"), ErrorKind::Invalid),
        (folder.path().join("absent"), ErrorKind::NotFound),
    ] {
        assert_eq!(Device::open(&path, Access::Read, None).unwrap_err().kind(), kind, "{}", path.display());
    }
}
