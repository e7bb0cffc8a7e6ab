//! Puts a share of a file server through the contract of all shares, from within a guest: every share is a new folder,
//! and each of its two clients a mount of its own.
//!
//!     halfhour-conformance URL      with the password in IMAGER_SHARE_PASSWORD

use netshare_store::conformance::{Clients, conformance};
use netshare_store::mounted::{MountUrl, MountedStore, Password};
use std::sync::atomic::{AtomicU32, Ordering};

static SHARES: AtomicU32 = AtomicU32::new(0);

fn main() {
    let url = std::env::args().nth(1).unwrap_or_default();
    let password = std::env::var("IMAGER_SHARE_PASSWORD").ok().map(|text| Password::new(text.into_bytes()));
    conformance(|| -> Clients {
        let number = SHARES.fetch_add(1, Ordering::SeqCst);
        let url: MountUrl = match format!("{url}/share{number}").parse() {
            Ok(url) => url,
            Err(error) => panic!("{error}"),
        };
        let password = password.clone();
        Box::new(move || match MountedStore::create(&url, password.as_ref()) {
            Ok(store) => Box::new(store),
            Err(error) => panic!("{url}: {error:?}"),
        })
    });
    println!("{} shares conform", SHARES.load(Ordering::SeqCst));
}
