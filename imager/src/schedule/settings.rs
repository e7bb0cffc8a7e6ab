//! The schedule as it is written down: `/etc/halfhour/schedule.toml`, which root alone may read. Secrets are in files of
//! their own, and named here.

use super::every::{Clock, Every};
use super::kind::Cadence;
use imager_image::manifest::Schedule;
use imager_units::{Context, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const HEAD: &str = "# Halfhour: what is captured when. Written by `imager schedule set`; a change that does not touch `every` or `at`\n\
                    # holds from the next run on.\n\n";

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The repository's URL.
    pub repo: String,
    /// Whose captures they are.
    pub machine: String,
    /// The disks: paths, `serial:X` or `wwn:X`.
    pub disks: Vec<String>,
    /// How often.
    pub every: Every,
    /// When days and weeks begin.
    #[serde(default)]
    pub at: Clock,
    /// How often a capture is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Cadence>,
    /// How often one is compared with the last full one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differential: Option<Cadence>,
    /// What volumes are for, as `imager capture --role` takes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// What is taken of data volumes, as `imager capture --data` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Files of data volumes that are in their skeletons all the same, as `imager capture --keep` takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_files: Vec<String>,
    /// At most so many bytes a second to the share, as `--limit` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Where the repository's passphrase is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Where the share server's token is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Where the password of the file server's user is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_password_file: Option<PathBuf>,
    /// Which captures stay.
    #[serde(default, skip_serializing_if = "Keep::is_empty")]
    pub keep: Keep,
    /// Who is told when they fail.
    #[serde(default)]
    pub alarm: AlarmSettings,
}

/// Which captures stay; without any rule all do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// The newest of each of the last so many hours that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// Of days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// Of weeks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// Of months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
}

/// Who is told beside systemd's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlarmSettings {
    /// A command that gets the text on its stdin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// A URL that gets JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// After how many failed runs in a row.
    #[serde(default = "one")]
    pub after_failures: u32,
}

fn one() -> u32 {
    1
}

impl Default for AlarmSettings {
    fn default() -> Self {
        Self { command: None, webhook: None, after_failures: one() }
    }
}

impl AlarmSettings {
    /// Those in a text that may be wrong everywhere else: what stands below `[alarm]`. None where that is wrong, too.
    pub fn found_in(text: &str) -> Self {
        let below = text.lines().map(str::trim).skip_while(|line| *line != "[alarm]").skip(1);
        let own: Vec<_> = below.take_while(|line| !line.starts_with('[')).collect();
        toml::from_str(&own.join("\n")).unwrap_or_default()
    }
}

impl Keep {
    /// The rules with the names of `imager prune`'s options.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let all = [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
        ];
        all.into_iter().filter_map(|(name, count)| Some((name, count?)))
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules().next().is_none()
    }
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// `NotFound` when there are none, `Invalid` when they make no sense, `Io`.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).context(|| format!("reading {}", file.display()))?;
        Self::parse(&text).map_err(|error| error.within(format!("{} is not right", file.display())))
    }

    /// Reads their text.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |e: toml::de::Error| Error::new(ErrorKind::Invalid, e.to_string().trim_end().to_owned());
        toml::from_str(text).map_err(wrong)
    }

    /// Their text.
    ///
    /// # Errors
    /// `Invalid` when something in them cannot be written, such as a path that is no text.
    pub fn text(&self) -> Result<String> {
        let wrong = |e| Error::with_source(ErrorKind::Invalid, "writing the schedule", e);
        Ok(format!("{HEAD}{}", toml::to_string(self).map_err(wrong)?))
    }

    /// What captures say of it.
    pub fn recorded(&self) -> Schedule {
        let word = |cadence: Option<Cadence>| cadence.map(|cadence| cadence.word().to_owned());
        Schedule {
            every_seconds: self.every.length().as_secs(),
            full: word(self.full),
            differential: word(self.differential),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AlarmSettings, Keep, Settings};
    use crate::schedule::{Cadence, Clock, Every};

    #[test]
    fn settings_come_back_as_they_were_written_and_mistakes_are_refused() {
        let settings = Settings {
            repo: "https://backup:8443/default#ab".to_owned(),
            machine: "web1".to_owned(),
            disks: vec!["serial:X".to_owned(), "/dev/vdb".to_owned()],
            every: Every::Hours(6),
            at: Clock::default(),
            full: Some(Cadence::Monthly),
            differential: None,
            roles: vec!["4=data".to_owned()],
            data: None,
            keep_files: vec!["**/pg_control".to_owned()],
            limit: Some("50M".to_owned()),
            password_file: Some("/etc/halfhour/password".into()),
            token_file: None,
            share_password_file: None,
            keep: Keep { hourly: Some(24), ..Keep::default() },
            alarm: AlarmSettings {
                command: Some("mail -s 'it' root".to_owned()),
                ..AlarmSettings::default()
            },
        };
        let text = settings.text().unwrap();
        assert_eq!(Settings::parse(&text).unwrap(), settings);
        let wrong = text.replace("every", "evry = [").replace("machine", "= machine");
        assert!(Settings::parse(&wrong).is_err());
        assert_eq!(AlarmSettings::found_in(&wrong), settings.alarm);
        assert_eq!(AlarmSettings::found_in("[alarm]\ncommand = 3"), AlarmSettings::default());
        let least = "repo = '/srv'\nmachine = 'm'\ndisks = ['/dev/vda']\nevery = '1h'\n";
        assert_eq!(Settings::parse(least).unwrap().alarm.after_failures, 1);
        for more in [
            "evry = '1h'",
            "full = 'yearly'",
            "[keep]\nhourly = -1",
            "[keep]\nminutely = 1",
            "[alarm]\nmail = 'x'",
        ] {
            assert!(Settings::parse(&format!("{least}{more}\n")).is_err(), "{more}");
        }
        assert!(Settings::parse(&least.replace("1h", "7h")).is_err());
    }
}
