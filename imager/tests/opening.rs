//! What is said when a repository cannot be opened, and how often the share is asked for each manifest.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;

use common::fat::{FatVolume, Layout};
use common::{capture, open, plain};
use imager::captures;
use imager_units::ErrorKind;
use netshare_store::{Call, FaultyStore, MemoryStore, RecordingStore, StoreFault, Verb};
use std::process::Command;
use std::sync::Arc;

#[test]
fn only_what_is_not_there_is_said_not_to_be_there() {
    let says_none = |error: imager_units::Error| error.to_string().contains("there is no repository");
    let error = open(MemoryStore::new()).err().unwrap();
    assert!(error.kind() == ErrorKind::NotFound && says_none(error));
    for kind in [ErrorKind::Denied, ErrorKind::Io, ErrorKind::Lost, ErrorKind::Cancelled] {
        let faulty = FaultyStore::new(Arc::clone(&plain()), [StoreFault::Fails { nth: 1, kind }]);
        let error = open(faulty).err().unwrap();
        assert!(error.kind() == kind && !says_none(error), "{kind:?}");
    }
}

#[test]
fn each_manifest_is_fetched_once_to_find_the_newest() {
    let (store, volume) = (plain(), FatVolume::new(Layout::SMALL));
    let recording = Arc::new(RecordingStore::new(Arc::clone(&store)));
    let repository = open(Arc::clone(&recording)).unwrap();
    for captured in 0..4_usize {
        recording.take();
        let manifest = capture(&repository, volume.snapshot(), None).unwrap();
        assert_eq!(manifest.header.sequence, captured as u64 + 1);
        let is_fetch = |call: &Call| call.verb == Verb::Get && call.on.starts_with("captures/");
        assert_eq!(recording.take().into_iter().filter(is_fetch).count(), captured);
    }
    captures::find(&repository, &"m".parse().unwrap()).unwrap();
    assert_eq!(recording.take().iter().filter(|call| call.verb == Verb::Get).count(), 4);
}

#[test]
fn a_command_that_tells_the_passphrase_knows_no_other_secret() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let others = r#"test -z "$IMAGER_TOKEN$IMAGER_SHARE_PASSWORD$IMAGER_PASSWORD" && echo "$MINE""#;
        let mut command = Command::new(env!("CARGO_BIN_EXE_imager"));
        command.env("IMAGER_REPO", folder.path().join("share")).env("IMAGER_STATE_DIR", folder.path());
        command.env_remove("IMAGER_PASSWORD").env_remove("IMAGER_PASSWORD_FILE").env("MINE", "secret");
        command.env("IMAGER_TOKEN", "a").env("IMAGER_SHARE_PASSWORD", "b");
        command.env("IMAGER_PASSWORD_COMMAND", others).args(arguments);
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    run(&["init", "--encrypt"]);
    run(&["list"]);
}
