//! A tree of four files made here, and hostile ones made of it: without checksums, so that everything is reached. Real
//! ones, of version 5 too: tests/oracle.

use super::Files;
use crate::xfs::tests::{OLD, put};
use imager_disk::{MemoryDisk, WriteAt};
use imager_units::{ByteOffset, ErrorKind};
use proptest::prelude::{any, prop_assert, proptest};

const BLOCK: usize = 1024;
/// Four inodes, a directory's block, a tree's leaf, two blocks of a file.
const INODES_AT: usize = 20 * BLOCK;
const FOLDER_AT: usize = 21 * BLOCK;
const LEAF_AT: usize = 22 * BLOCK;
const TEXT_AT: usize = 23 * BLOCK;
const TEXT: &[u8] = b"LABEL=data /srv xfs defaults 0 0\n";
const MOST_BYTES: u64 = 1 << 20;

const fn inode_at(place: usize) -> usize {
    INODES_AT + place * 256
}

const fn fork_at(place: usize) -> usize {
    inode_at(place) + 100
}

fn number(place: u8) -> u64 {
    20 << 2 | u64::from(place)
}

fn record(offset: u64, start: u64, count: u64, is_unwritten: bool) -> Vec<u8> {
    let high = u64::from(is_unwritten) << 63 | offset << 9 | start >> 43;
    [high.to_be_bytes(), (start << 21 | count).to_be_bytes()].concat()
}

fn inode(bytes: &mut [u8], place: usize, mode: u16, format: u8, size: u64, fork: &[u8]) {
    let at = inode_at(place);
    put(bytes, at, b"IN");
    put(bytes, at + 2, &mode.to_be_bytes());
    put(bytes, at + 4, &[2, format]);
    put(bytes, at + 56, &size.to_be_bytes());
    put(bytes, at + 76, &1_u32.to_be_bytes());
    put(bytes, at + 100, fork);
}

/// `/etc/fstab`, whose extents are a tree, and `/link`, which leads to it.
fn make() -> (MemoryDisk, Vec<u8>) {
    let disk = OLD.make();
    disk.write_all_at(ByteOffset::new(56), &number(0).to_be_bytes()).unwrap();
    disk.write_all_at(ByteOffset::new(122), &[8, 2]).unwrap();
    let mut bytes = vec![0; 25 * BLOCK];
    let entry = |name: &[u8], place: u8| {
        let number = u32::try_from(number(place)).unwrap().to_be_bytes();
        [&[u8::try_from(name.len()).unwrap(), 0, 0], name, &number].concat()
    };
    let root = [&[2, 0, 0, 0, 0, 80], &*entry(b"etc", 1), &*entry(b"link", 2)].concat();
    inode(&mut bytes, 0, 0o040_755, 1, 0, &root);
    inode(&mut bytes, 1, 0o040_755, 2, 1024, &record(0, 21, 1, false));
    inode(&mut bytes, 2, 0o120_777, 1, 9, b"etc/fstab");
    let mut tree = vec![0; 84];
    put(&mut tree, 0, &[0, 1, 0, 1]);
    put(&mut tree, 76, &22_u64.to_be_bytes());
    inode(&mut bytes, 3, 0o100_644, 3, 3000, &tree);
    put(&mut bytes, FOLDER_AT, b"XD2B");
    put(&mut bytes, FOLDER_AT + 16, &number(3).to_be_bytes());
    put(&mut bytes, FOLDER_AT + 24, b"\x05fstab");
    put(&mut bytes, FOLDER_AT + 32, &[0xFF, 0xFF, 3, 0xD0]);
    put(&mut bytes, FOLDER_AT + 1016, &[0, 0, 0, 1]);
    put(&mut bytes, LEAF_AT, b"BMAP\0\0\0\x02");
    put(&mut bytes, LEAF_AT + 24, &record(0, 23, 1, false));
    put(&mut bytes, LEAF_AT + 40, &record(2, 24, 1, true));
    put(&mut bytes, TEXT_AT, TEXT);
    put(&mut bytes, TEXT_AT + BLOCK, &[b'x'; BLOCK]);
    write(&disk, &bytes);
    (disk, bytes)
}

fn write(disk: &MemoryDisk, bytes: &[u8]) {
    let at = u64::try_from(INODES_AT).unwrap();
    disk.write_all_at(ByteOffset::new(at), &bytes[INODES_AT..]).unwrap();
}

fn fails(disk: &MemoryDisk, path: &str, most_bytes: u64) -> Option<ErrorKind> {
    let files = Files::open(disk).unwrap().unwrap();
    files.read(path, most_bytes).err().map(|error| error.kind())
}

#[test]
fn a_file_is_found_and_what_was_never_written_is_zeros() {
    let (disk, _) = make();
    let files = Files::open(&disk).unwrap().unwrap();
    let mut wanted = TEXT.to_vec();
    wanted.resize(3000, 0);
    for path in ["/etc/fstab", "link", "//etc/./../etc//fstab", "../../link"] {
        assert_eq!(files.read(path, 3000).unwrap(), wanted, "{path}");
    }
    for (path, kind) in [
        ("/etc/fsta", ErrorKind::NotFound),
        ("/etc/fstab/x", ErrorKind::NotFound),
        ("/etc", ErrorKind::Unsupported),
        ("", ErrorKind::Unsupported),
    ] {
        assert_eq!(fails(&disk, path, MOST_BYTES), Some(kind), "{path}");
    }
    assert_eq!(fails(&disk, "link", 2999), Some(ErrorKind::Unsupported));
}

#[test]
fn nothing_is_read_beside_a_log_that_was_not_replayed() {
    let (disk, _) = make();
    let log = (256 + 8) * 1024;
    disk.write_all_at(ByteOffset::new(log), &[0x55; 512]).unwrap();
    assert_eq!(Files::open(&disk).err().map(|error| error.kind()), Some(ErrorKind::Corrupt));
}

#[test]
fn hostile_trees_are_refused() {
    let hostile: [(&str, usize, &[u8]); 14] = [
        ("no inode", inode_at(3), b"XX"),
        ("an inode elsewhere", FOLDER_AT + 16, &[0, 0, 0, 0, 0xFF]),
        ("an unknown format", inode_at(3) + 5, &[9]),
        ("a fork longer than its inode", inode_at(3) + 82, &[200]),
        ("a link to itself", fork_at(2), b"../././link"),
        ("a link without a length", inode_at(2) + 56, &[0; 8]),
        ("a link longer than its inode", inode_at(2) + 56, &[0, 0, 0, 0, 0, 0, 3, 0]),
        ("an entry of no length", FOLDER_AT + 16, &[0xFF, 0xFF, 0, 0]),
        ("an index longer than its block", FOLDER_AT + 1016, &[0xFF; 4]),
        ("another block", FOLDER_AT, b"XD2F"),
        ("a tree that is too high", fork_at(3), &[0, 99]),
        ("a leaf of another level", LEAF_AT + 4, &[0, 1]),
        ("extents out of order", LEAF_AT + 40, &[0; 8]),
        ("extents outside", LEAF_AT + 24 + 8, &[0xFF; 8]),
    ];
    for (what, at, field) in hostile {
        let (disk, mut bytes) = make();
        put(&mut bytes, at, field);
        if what == "a link to itself" {
            put(&mut bytes, inode_at(2) + 63, &[11]);
        }
        write(&disk, &bytes);
        assert_eq!(fails(&disk, "link", MOST_BYTES), Some(ErrorKind::Corrupt), "{what}");
    }
}

/// Every pointer of the root leads to a node whose pointers lead to itself.
#[test]
fn a_tree_that_leads_back_into_itself_ends() {
    let (disk, mut bytes) = make();
    put(&mut bytes, fork_at(3), &[0, 9, 0, 9]);
    (0..9).for_each(|place| put(&mut bytes, fork_at(3) + 76 + 8 * place, &22_u64.to_be_bytes()));
    put(&mut bytes, LEAF_AT, b"BMAP\0\x08\0\x3E");
    (0..62).for_each(|place| put(&mut bytes, LEAF_AT + 24 + 496 + 8 * place, &22_u64.to_be_bytes()));
    write(&disk, &bytes);
    assert_eq!(fails(&disk, "link", MOST_BYTES), Some(ErrorKind::Corrupt));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_read_on(
        changes in proptest::collection::vec((INODES_AT..TEXT_AT, any::<u8>()), 1..12),
        is_near in any::<bool>(),
    ) {
        let (disk, mut bytes) = make();
        for (at, byte) in changes {
            // Near the start of a structure is where its fields are.
            let at = if is_near { at / 256 * 256 + at % 256 % 48 } else { at };
            bytes[at] = byte;
        }
        write(&disk, &bytes);
        let files = Files::open(&disk).unwrap().unwrap();
        for path in ["/etc/fstab", "link", "/etc/hostname"] {
            if let Ok(content) = files.read(path, MOST_BYTES) {
                prop_assert!(content.len() <= 1 << 20);
            }
        }
    }
}
