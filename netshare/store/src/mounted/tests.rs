//! URLs and troubles; mounting itself is tested against real servers, in a guest.

use super::{MountUrl, MountedStore, Password, Trouble};
use imager_units::{ByteLen, ErrorKind};
use proptest::prelude::{ProptestConfig, proptest};

#[test]
fn urls_say_what_they_said() {
    for (url, shown) in [
        ("smb://me@nas/backup", "smb://me@nas/backup"),
        ("smb://nas:445/backup/a/b/", "smb://nas/backup/a/b"),
        ("smb://OFFICE;me@nas:1445/b$/x", "smb://OFFICE;me@nas:1445/b$/x"),
        ("smb://a%40b@nas/with%20space", "smb://a%40b@nas/with%20space"),
        ("smb://me@[fe80::1]:446/x", "smb://me@[fe80::1]:446/x"),
        ("nfs://10.0.2.2/srv/images", "nfs://10.0.2.2/srv/images"),
        ("nfs://host:12049//a/", "nfs://host:12049/a"),
    ] {
        let parsed: MountUrl = url.parse().unwrap();
        assert_eq!(parsed.to_string(), shown);
        assert_eq!(parsed.to_string().parse::<MountUrl>().unwrap(), parsed, "{url}");
    }
}

#[test]
fn what_is_no_url_is_refused_and_no_password_is_repeated() {
    for url in [
        "smb://nas",
        "smb://nas/",
        "smb:///share",
        "smb://me@/share",
        "smb://@nas/share",
        "nfs://me@host/x",
        "nfs://host",
        "smb://nas:0/x",
        "smb://nas:99999/x",
        "smb://nas:/x",
        "smb://nas/a/../b",
        "smb://nas/a%2Fb",
        "smb://nas/a%5cb",
        "smb://nas/%zz",
        "smb://nas/%+1",
        "smb://nas/a%00b",
        "smb://na s/x",
        "nfs://./x",
        "nfs://..:1/x",
        "smb://-nas/x",
        "http://nas/x",
        "smb://[::1/x",
        "smb://[x]/x",
        "",
    ] {
        assert_eq!(url.parse::<MountUrl>().unwrap_err().kind(), ErrorKind::Invalid, "{url}");
    }
    let error = "smb://me:S3cret@nas/share".parse::<MountUrl>().unwrap_err().to_string();
    assert!(error.contains("password") && !error.contains("S3cret"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_parsed_or_refused(text in "(smb|nfs)://\\PC{0,40}") {
        if let Ok(url) = text.parse::<MountUrl>() {
            assert_eq!(url.to_string().parse::<MountUrl>().unwrap(), url, "{text:?}");
        }
    }
}

#[test]
fn this_machine_says_why_it_cannot_mount() {
    // Kernels of test machines often have no such filesystem; where they do, nobody listens on that port.
    for url in ["smb://nobody@127.0.0.1:1/x", "nfs://127.0.0.1:1/x"] {
        let error =
            MountedStore::open(&url.parse().unwrap(), Some(&Password::new(b"x".to_vec()))).unwrap_err();
        let found = Trouble::of(&error).unwrap();
        let expected = matches!(
            found,
            Trouble::NoModule(_) | Trouble::Privilege | Trouble::OldKernel | Trouble::Port(..)
        );
        assert!(expected && !found.advice().is_empty() && found.kind() == error.kind(), "{error}: {found}");
    }
}

#[test]
fn every_trouble_has_a_kind_a_text_and_an_advice() {
    let said = || "said".to_owned();
    for (trouble, kind) in [
        (Trouble::Privilege, ErrorKind::Denied),
        (Trouble::NoModule("cifs"), ErrorKind::Unsupported),
        (Trouble::Name(said()), ErrorKind::Lost),
        (Trouble::Password, ErrorKind::Denied),
        (Trouble::NoShare, ErrorKind::NotFound),
        (Trouble::ReadOnly, ErrorKind::Denied),
        (Trouble::Full(ByteLen::ZERO), ErrorKind::OutOfSpace),
    ] {
        assert_eq!(trouble.kind(), kind);
        assert!(!trouble.to_string().is_empty() && !trouble.advice().is_empty());
    }
}
