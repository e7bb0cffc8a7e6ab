//! URLs of shares: what is understood is shown so that it is understood the same again, by us and by the HTTP client.
//!
//! The first byte chooses the kind.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netshare_store::ObjectName;
use netshare_store::http::HttpsUrl;
use netshare_store::mounted::MountUrl;
use netshare_store::s3::{S3Settings, S3Url};
use std::net::IpAddr;
use url::{Host, Url};

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    match first % 6 {
        0 => https(&format!("https://{rest}")),
        1 => mounted(&format!("smb://{rest}")),
        2 => mounted(&format!("nfs://{rest}")),
        3 => bucket(&format!("s3://{rest}")),
        4 => endpoint(rest),
        _ => files(rest),
    }
});

fn https(text: &str) {
    let Ok(url) = text.parse::<HttpsUrl>() else { return };
    let shown = url.to_string();
    let pinned = url.fingerprint().map(|digits| format!("{shown}#{digits}"));
    assert_eq!(pinned.unwrap_or_else(|| shown.clone()).parse::<HttpsUrl>().expect("just shown"), url);
    let theirs = Url::parse(&shown).expect("what we take, the client takes");
    let port = theirs.port_or_known_default().expect("https has one");
    let host = match theirs.host().expect("https has one") {
        Host::Ipv6(address) => format!("[{address}]"),
        other => other.to_string(),
    };
    assert_eq!(shown, format!("https://{host}:{port}{}", theirs.path()));
    assert!(theirs.username().is_empty() && theirs.password().is_none());
    assert!(theirs.query().is_none() && theirs.fragment().is_none());
}

fn mounted(text: &str) {
    let Ok(url) = text.parse::<MountUrl>() else { return };
    let shown = url.to_string();
    assert_eq!(shown.parse::<MountUrl>().expect("just shown"), url);
    assert!(!shown.chars().any(char::is_control));
    assert!(!shown.split('/').any(|name| matches!(name, "." | "..")), "{shown} leads elsewhere");
    assert_ne!(url.port(), 0);
    let is_address = url.host().parse::<IpAddr>().is_ok();
    assert!(is_address || !url.host().contains([':', '/', '@', ' ', '[']), "{shown}");
}

fn bucket(text: &str) {
    let Ok(url) = text.parse::<S3Url>() else { return };
    assert_eq!(url.to_string().parse::<S3Url>().expect("just shown"), url);
    assert!(url.prefix().is_empty() || ObjectName::new(url.prefix()).is_ok());
    assert!(!url.bucket().contains(['/', ':', '@']));
}

/// Whoever reads the endpoint sends nothing in the clear to another machine.
fn endpoint(text: &str) {
    let variable = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some("id".to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some("secret".to_owned()),
        "AWS_ENDPOINT_URL" => Some(text.to_owned()),
        _ => None,
    };
    if S3Settings::find(&variable, &|_| None).is_err() || text.is_empty() {
        return;
    }
    let Ok(theirs) = Url::parse(text) else { return };
    assert!(theirs.username().is_empty() && theirs.password().is_none() && theirs.query().is_none());
    let here = match theirs.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    assert!(theirs.scheme() == "https" || (theirs.scheme() == "http" && here), "{text:?}");
}

/// The files of other tools for S3; a secret in them is not shown.
fn files(text: &str) {
    let variable = |name: &str| (name == "HOME").then(|| "/home".to_owned());
    let secret = "[default]\naws_access_key_id=id\naws_secret_access_key=hidden-secret\n";
    for text in [text.to_owned(), format!("{secret}{text}")] {
        if let Ok(settings) = S3Settings::find(&variable, &|_| Some(text.clone())) {
            assert!(
                text.matches("hidden-secret").count() != 1
                    || !format!("{settings:?}").contains("hidden-secret")
            );
        }
    }
}
