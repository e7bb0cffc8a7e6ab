//! `imager init`.

use super::args::{Global, Init};
use super::failure::Failure;
use super::output::{print, print_json};
use super::{Status, pins, secret, session};
use imager::repository::Repository;
use imager::share::Missing;
use imager_units::ErrorKind;
use serde_json::json;

pub(crate) fn run(global: &Global, options: &Init) -> Result<Status, Failure> {
    let location = session::location(global)?;
    let secret = options.encrypt.then(secret::new_passphrase).transpose()?;
    let store = session::open(global, &location, Missing::Create)?;
    let repository = Repository::create(store, secret.as_deref()).map_err(|error| match error.kind() {
        ErrorKind::Exists => Failure::new(1, error, "nothing was changed; it can be used as it is"),
        _ => error.into(),
    })?;
    pins::remember(&location, &repository)?;
    if global.json {
        print_json(&json!({
            "repository": repository.id(), "location": repository.store().location(), "encrypted": options.encrypt,
        }));
        return Ok(Status::Done);
    }
    let sealed = if options.encrypt { ", encrypted" } else { "" };
    print(&format!("Repository {} made at {}{sealed}.\n", repository.id(), repository.store().location()));
    if options.encrypt {
        print(
            "Without the passphrase nothing in it can ever be read. Print a recovery key now, and keep it apart:\n",
        );
        print("  imager key add --recovery\n");
    }
    Ok(Status::Done)
}
