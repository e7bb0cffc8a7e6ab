//! `imager key`.

use super::args::{Global, Key, KeyCommand};
use super::failure::Failure;
use super::output::{Columns, print, print_json};
use super::{Status, secret, session};
use imager_image::id::{SlotId, fill_random};
use imager_image::keys::SlotKind;
use imager_units::Result;
use serde_json::json;

pub(crate) fn run(global: &Global, options: &Key) -> Result<Status, Failure> {
    let locked = session::locked(global)?;
    match &options.command {
        KeyCommand::List => {
            let slots = locked.slots()?;
            if global.json {
                let slots = slots.iter().map(|slot| {
                    json!({ "id": slot.id, "kind": slot.kind, "label": slot.label, "created": slot.created })
                });
                print_json(&json!({ "keys": slots.collect::<Vec<_>>() }));
            } else {
                let mut columns = Columns::new(&["ID", "KIND", "CREATED", "LABEL"], &[]);
                for slot in slots {
                    let kind = match slot.kind {
                        SlotKind::Passphrase => "passphrase",
                        SlotKind::Recovery => "recovery",
                    };
                    columns.row(vec![slot.id.to_string(), kind.to_owned(), slot.created, slot.label]);
                }
                print(&columns.render(""));
            }
        }
        KeyCommand::Test => {
            let secret = secret::passphrase("Passphrase or recovery key: ")?;
            locked.unwrap(&secret)?.ok_or_else(session::wrong_password)?;
            say(global, "The key opens the repository.", json!({ "opens": true }));
        }
        KeyCommand::Remove { id } => {
            let id: SlotId = id.parse()?;
            let secret = secret::passphrase("Passphrase or recovery key that stays: ")?;
            if !locked.remove_slot(id, &secret)? {
                return Err(session::wrong_password());
            }
            say(global, "The key is removed.", json!({ "removed": id }));
        }
        KeyCommand::Add { recovery, label, new_password_file } => {
            let secret = secret::passphrase("Present passphrase or recovery key: ")?;
            let master = locked.unwrap(&secret)?.ok_or_else(session::wrong_password)?;
            if *recovery {
                let key = recovery_key()?;
                let id = locked.add_slot(&master, key.as_bytes(), SlotKind::Recovery, label.clone())?;
                let text = format!(
                    "Recovery key {id}; it is shown only now:\n\n  {key}\n\nIt works wherever a passphrase does."
                );
                say(global, &text, json!({ "added": id, "recovery_key": key }));
            } else {
                let secret = secret::another_passphrase(new_password_file.as_deref())?;
                let id = locked.add_slot(&master, &secret, SlotKind::Passphrase, label.clone())?;
                say(global, &format!("Passphrase {id} is added."), json!({ "added": id }));
            }
        }
    }
    Ok(Status::Done)
}

fn say(global: &Global, text: &str, object: serde_json::Value) {
    if global.json { print_json(&object) } else { print(&format!("{text}\n")) }
}

/// 160 random bits in groups a person can read over the telephone.
fn recovery_key() -> Result<String> {
    let mut bytes = [0; 20];
    fill_random(&mut bytes)?;
    let digits = hex::encode(bytes);
    let groups: Vec<_> = digits.as_bytes().chunks(4).map(String::from_utf8_lossy).collect();
    Ok(groups.join("-"))
}
