//! What a start with nobody at the console is to do, and the `imager` command that does it.

use crate::Settings;
use imager_units::{Error, ErrorKind, Result};

/// What is done without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Put a capture back.
    Restore {
        /// Which.
        capture: String,
        /// Where to.
        targets: Vec<String>,
        /// The words after `imager restore CAPTURE`.
        options: Vec<String>,
    },
    /// Make one.
    Capture {
        /// Of which disks.
        disks: Vec<String>,
        /// The words after `imager capture`.
        options: Vec<String>,
    },
}

/// How a plan was agreed to beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// It has this hash.
    Hash(String),
    /// Whatever it says, for disks named by what they are.
    Named,
}

impl Task {
    /// The task in the settings; `None` where a person is to say.
    ///
    /// # Errors
    /// `Invalid` when it is only half said: nothing is ever guessed.
    pub fn of(settings: &Settings) -> Result<Option<Self>> {
        let (restore, capture) = (settings.capture.is_some(), !settings.disk.is_empty());
        if restore && capture {
            return Err(invalid(
                "capture (to restore) and disk (to capture) are both set: one of them is meant",
            ));
        }
        if restore {
            return Self::restore(settings).map(Some);
        }
        if !settings.target.is_empty() || settings.confirm.is_some() {
            return Err(invalid("target and confirm are set, but no capture to restore"));
        }
        if capture { Self::capture(settings).map(Some) } else { Ok(None) }
    }

    fn restore(settings: &Settings) -> Result<Self> {
        if settings.repo.is_none() {
            return Err(invalid("a capture is named, but no repo"));
        }
        if settings.target.is_empty() {
            return Err(invalid("a capture is named, but no target: serial:X or wwn:X of the disk to write"));
        }
        let mut options = vec!["--to".to_owned()];
        options.extend(settings.target.clone());
        for volume in &settings.volume {
            options.extend(["--volume".to_owned(), volume.clone()]);
        }
        if settings.bare_metal {
            options.push("--bare-metal".to_owned());
        }
        for erase in &settings.erase {
            options.extend(["--erase".to_owned(), erase.clone()]);
        }
        for volume in &settings.erase_volume {
            options.extend(["--erase-volume".to_owned(), volume.clone()]);
        }
        match agreement(settings)? {
            Agreement::Hash(hash) => options.extend(["--confirm".to_owned(), hash]),
            Agreement::Named => options.push("--yes".to_owned()),
        }
        let capture = settings.capture.clone().unwrap_or_default();
        Ok(Self::Restore { capture, targets: settings.target.clone(), options })
    }

    fn capture(settings: &Settings) -> Result<Self> {
        let (Some(_), Some(machine)) = (&settings.repo, &settings.machine) else {
            return Err(invalid("disk is set (to capture), so repo and machine have to be"));
        };
        let mut options = settings.disk.clone();
        options.extend(["--machine".to_owned(), machine.clone()]);
        for role in &settings.role {
            options.extend(["--role".to_owned(), role.clone()]);
        }
        options.extend(settings.data.iter().flat_map(|data| ["--data".to_owned(), data.clone()]));
        Ok(Self::Capture { disks: settings.disk.clone(), options })
    }

    /// The words of the command, after `imager`.
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Restore { capture, options, .. } => {
                ["restore".to_owned(), capture.clone()].into_iter().chain(options.clone()).collect()
            }
            Self::Capture { options, .. } => {
                std::iter::once("capture".to_owned()).chain(options.clone()).collect()
            }
        }
    }

    /// The disks that have to be there.
    pub fn disks(&self) -> &[String] {
        match self {
            Self::Restore { targets: disks, .. } | Self::Capture { disks, .. } => disks,
        }
    }
}

fn agreement(settings: &Settings) -> Result<Agreement> {
    match settings.confirm.as_deref() {
        None => Err(invalid(
            "a capture and a target are named, but nothing agrees to the plan: confirm is its hash, as imager restore \
             --plan prints it, or yes",
        )),
        Some("yes") => {
            let unnamed = settings.target.iter().find(|target| !is_named(target));
            match unnamed {
                None => Ok(Agreement::Named),
                Some(target) => Err(invalid(&format!(
                    "confirm is yes, but the target {target} is a path, which may be another disk at the next start: \
                     serial:X or wwn:X is needed, or the plan's hash"
                ))),
            }
        }
        Some(hash) => Ok(Agreement::Hash(hash.to_owned())),
    }
}

/// Whether a target, perhaps after `D=`, is named by serial number or WWN.
fn is_named(target: &str) -> bool {
    let name = match target.split_once('=') {
        Some((number, name)) if number.parse::<u32>().is_ok() => name,
        _ => target,
    };
    name.starts_with("serial:") || name.starts_with("wwn:")
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::Invalid, what)
}

#[cfg(test)]
mod tests {
    use super::Task;
    use crate::Settings;
    use crate::sources::parse_command_line;

    fn task(line: &str) -> Result<Option<Task>, String> {
        let mut settings = Settings::default();
        let line: String = line.split(' ').map(|word| format!("halfhour.{word} ")).collect();
        parse_command_line(&line, &mut settings).expect("right words");
        Task::of(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_task_becomes_a_command() {
        let restore =
            task("repo=/r capture=web1@latest target=serial:X confirm=abc").expect("whole").expect("a task");
        assert_eq!(restore.words(), ["restore", "web1@latest", "--to", "serial:X", "--confirm", "abc"]);
        let named = task("repo=/r capture=web1 target=1=wwn:X confirm=yes").expect("whole").expect("a task");
        assert_eq!(named.words().last().map(String::as_str), Some("--yes"));
        let capture = task("repo=/r disk=serial:X machine=web1 role=4=data").expect("whole").expect("a task");
        assert_eq!(capture.words(), ["capture", "serial:X", "--machine", "web1", "--role", "4=data"]);
        assert_eq!(task("repo=/r").expect("nothing to do"), None);
    }

    #[test]
    fn half_a_task_is_none() {
        for (line, why) in [
            ("capture=web1 target=serial:X confirm=yes", "repo"),
            ("repo=/r capture=web1 confirm=yes", "target"),
            ("repo=/r capture=web1 target=serial:X", "agrees"),
            ("repo=/r capture=web1 target=/dev/sda confirm=yes", "another disk"),
            ("repo=/r capture=web1 target=x=serial:A confirm=yes", "another disk"),
            ("repo=/r capture=web1 target=serial:X confirm=yes disk=serial:X", "both"),
            ("repo=/r target=serial:X", "no capture"),
            ("repo=/r disk=serial:X", "machine"),
        ] {
            let error = task(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
