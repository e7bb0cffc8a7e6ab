//! What a token may do.
//!
//! A machine's token adds and never removes, reads what a capture needs and lists no packs; a restore token reads and
//! reports; an admin's does everything. Whatever is not allowed here in so many words is refused.

use imager_image::{CaptureId, names};
use imager_units::{Error, ErrorKind, Result};
use netshare_store::ObjectName;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What a token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Capture this machine.
    Machine(String),
    /// Read everything, or the captures of these machines only.
    Restore(Option<BTreeSet<String>>),
    /// Everything.
    Admin,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action<'a> {
    /// Say what there is and what the token may do.
    Look,
    /// Make the repository.
    Make,
    Put(&'a ObjectName),
    /// Read an object or its length.
    Get(&'a ObjectName),
    /// List a folder; `""` is the whole repository.
    List(&'a str),
    Delete(&'a ObjectName),
}

/// Whether it may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Refused,
    /// Allowed if this capture is the machine's own.
    IfOwn(CaptureId),
}

impl Scope {
    /// Whether a token of this scope may do it.
    pub(crate) fn judge(&self, action: Action<'_>) -> Verdict {
        let allowed = match (self, action) {
            (Self::Admin, _) | (_, Action::Look) => true,
            (_, Action::Make | Action::Delete(_)) => false,
            (Self::Machine(machine), Action::Get(name)) if !machine_gets(machine, name) => {
                return own_check(name).map_or(Verdict::Refused, Verdict::IfOwn);
            }
            (Self::Machine(_), Action::Get(_)) => true,
            (Self::Machine(machine), Action::Put(name)) => machine_puts(machine, name),
            (Self::Machine(machine), Action::List(folder)) => machine_lists(machine, folder),
            (Self::Restore(only), Action::Put(name)) => match segments(name).as_slice() {
                [names::REPORTS, _, _] => may_see(only.as_ref(), name.as_str()),
                [names::CHECKS, _, _] => true,
                _ => false,
            },
            (Self::Restore(only), Action::Get(name)) => may_see(only.as_ref(), name.as_str()),
            (Self::Restore(only), Action::List(folder)) => {
                !folder.is_empty()
                    && folder.split('/').next() != Some(names::PACKS)
                    && may_see(only.as_ref(), folder)
            }
        };
        if allowed { Verdict::Allowed } else { Verdict::Refused }
    }

    /// Whether a listing that may be made shows this object.
    pub(crate) fn shows(&self, name: &ObjectName) -> bool {
        match self {
            Self::Restore(only) => may_see(only.as_ref(), name.as_str()),
            Self::Machine(_) | Self::Admin => true,
        }
    }

    /// `machine`, `restore` or `admin`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Machine(_) => "machine",
            Self::Restore(_) => "restore",
            Self::Admin => "admin",
        }
    }

    /// The machine, of a machine's token.
    pub(crate) fn machine(&self) -> Option<&str> {
        match self {
            Self::Machine(machine) => Some(machine),
            Self::Restore(_) | Self::Admin => None,
        }
    }
}

fn segments(name: &ObjectName) -> Vec<&str> {
    name.segments().collect()
}

fn machine_puts(machine: &str, name: &ObjectName) -> bool {
    match segments(name).as_slice() {
        ["packs", _, _] | ["index" | "leases", _] => true,
        ["captures" | "reports", whose, _] => *whose == machine,
        _ => false,
    }
}

fn machine_gets(machine: &str, name: &ObjectName) -> bool {
    match segments(name).as_slice() {
        [one] => [names::DESCRIPTION, names::INSTRUCTIONS, names::READER].contains(one),
        ["packs", _, _] => true,
        ["keys" | "moved" | "index" | "leases" | "trash" | "damaged" | "holds", _] => true,
        ["captures", whose, _] => *whose == machine,
        _ => false,
    }
}

fn machine_lists(machine: &str, folder: &str) -> bool {
    match folder.split('/').collect::<Vec<_>>().as_slice() {
        [one] => ["keys", "leases", "trash", "damaged", "index", "moved", "holds"].contains(one),
        ["captures" | "reports", whose] => *whose == machine,
        _ => false,
    }
}

/// The capture that a name in `checks/` speaks of.
fn own_check(name: &ObjectName) -> Option<CaptureId> {
    match segments(name).as_slice() {
        ["checks", capture, ..] => capture.parse().ok(),
        _ => None,
    }
}

/// Whether a restore token sees a name or a folder: what belongs to a machine it is not for is hidden.
fn may_see(only: Option<&BTreeSet<String>>, name: &str) -> bool {
    let mut segments = name.split('/');
    match (only, segments.next(), segments.next()) {
        (Some(only), Some("captures" | "reports"), Some(whose)) => only.contains(whose),
        _ => true,
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (word, machines) = text.split_once(':').map_or((text, None), |(word, rest)| (word, Some(rest)));
        match (word, machines) {
            ("admin", None) => Ok(Self::Admin),
            ("restore", None) => Ok(Self::Restore(None)),
            ("restore", Some(machines)) => {
                let machines: BTreeSet<String> = machines.split(',').map(str::to_owned).collect();
                machines.iter().try_for_each(|machine| names::check_machine(machine))?;
                Ok(Self::Restore(Some(machines)))
            }
            ("machine", Some(machine)) => {
                names::check_machine(machine)?;
                Ok(Self::Machine(machine.to_owned()))
            }
            _ => {
                let what = format!("{text:?} is no scope: machine:NAME, restore, restore:NAME,… or admin");
                Err(Error::new(ErrorKind::Invalid, what))
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(machine) => write!(f, "machine:{machine}"),
            Self::Restore(None) => f.write_str("restore"),
            Self::Restore(Some(machines)) => {
                write!(f, "restore:{}", machines.iter().map(String::as_str).collect::<Vec<_>>().join(","))
            }
            Self::Admin => f.write_str("admin"),
        }
    }
}

#[cfg(test)]
mod tests;
