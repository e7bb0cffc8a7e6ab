use super::{Consistency, Header, Kind, MANIFEST_MAGIC, Manifest, System};
use crate::frame::{Codec, Compression};
use crate::id::{CaptureId, RepositoryId};
use crate::keys::{Encryption, Keys, MasterKey};
use imager_units::ErrorKind;

fn manifest() -> Manifest {
    let header = Header {
        machine: "web".to_owned(),
        time: "2026-11-21T03:15:00Z".to_owned(),
        kind: Kind::Full,
        id: CaptureId([3; 16]),
        sequence: 1,
        previous: None,
        revoked: false,
    };
    Manifest {
        header,
        agent: "test".to_owned(),
        parent: None,
        consistency: Consistency::Offline,
        system: System::default(),
        disks: Vec::new(),
        volumes: Vec::new(),
        warnings: Vec::new(),
        problems: Vec::new(),
        not_captured: Vec::new(),
        schedule: None,
        elapsed_seconds: 0.5,
        running: None,
    }
}

#[test]
fn the_magic_is_the_digest_of_its_sentence() {
    assert_eq!(MANIFEST_MAGIC, blake3::hash(b"halfhour manifest, format 1").as_bytes()[..8]);
}

#[test]
fn a_manifest_is_read_back_and_any_changed_byte_is_noticed() {
    for encryption in [Encryption::None, Encryption::XChaCha20Poly1305] {
        let repository = RepositoryId([7; 16]);
        let keys = Keys::new(repository, &MasterKey::public(repository), encryption);
        let mut codec = Codec::new(&keys, Compression::Small).unwrap();
        let bytes = manifest().encode(&mut codec).unwrap();
        assert_eq!(Manifest::decode(&bytes, &mut codec).unwrap(), manifest());
        assert_eq!(Header::decode(&bytes).unwrap(), manifest().header);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Manifest::decode(&damaged, &mut codec).unwrap_err().kind(), ErrorKind::Corrupt);
            assert!(Manifest::decode(&bytes[..at], &mut codec).is_err());
        }
    }
}

#[test]
fn a_revocation_is_not_a_capture() {
    let repository = RepositoryId([7; 16]);
    let keys = Keys::new(repository, &MasterKey::public(repository), Encryption::None);
    let mut codec = Codec::new(&keys, Compression::Small).unwrap();
    let bytes = manifest().header.revocation().unwrap();
    assert!(Header::decode(&bytes).unwrap().revoked);
    assert_eq!(Manifest::decode(&bytes, &mut codec).unwrap_err().kind(), ErrorKind::NotFound);
}
