//! When somebody is told: once when captures fail, once when they are well again.

use super::last::{Last, Newest, Outcome};
use super::standing::spell;
use imager_units::Result;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// A newest capture of so many periods ago is an alarm of its own, however few runs failed.
const MOST_PERIODS: u32 = 2;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Runs fail, or do not give what was asked for.
    Failed,
    /// There is no capture that is young enough.
    Overdue,
    /// All is well again.
    Recovered,
}

/// What is to be told after a run, or while one goes on that has failed so far.
pub fn after(last: &Last, every: Duration, after_failures: u32, now: Timestamp) -> Option<Event> {
    let stands = last.alarm.standing_since.is_some();
    if last.result == Outcome::Done {
        return stands.then_some(Event::Recovered);
    }
    let age = age(last, now);
    let is_overdue = age.is_some_and(|age| age > every.saturating_mul(MOST_PERIODS));
    let has_failed = matches!(last.result, Outcome::Failed | Outcome::Incomplete);
    match stands {
        true => None,
        false if has_failed && last.failures >= after_failures.max(1) => Some(Event::Failed),
        false => is_overdue.then_some(Event::Overdue),
    }
}

fn age(last: &Last, now: Timestamp) -> Option<Duration> {
    let time: Timestamp = last.newest.as_ref()?.time.parse().ok()?;
    Duration::try_from(now.duration_since(time)).ok()
}

impl Event {
    /// As programs read it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Overdue => "overdue",
            Self::Recovered => "recovered",
        }
    }

    /// How urgent systemd's journal calls it (syslog(3)).
    pub const fn priority(self) -> u8 {
        match self {
            Self::Failed | Self::Overdue => 2,
            Self::Recovered => 5,
        }
    }

    /// In a line.
    pub fn line(self, last: &Last) -> String {
        let machine = &last.machine;
        match self {
            Self::Failed if last.result == Outcome::Incomplete => {
                format!("something is missing from the capture of {machine}")
            }
            Self::Failed if last.failures > 1 => {
                format!("captures of {machine} fail, {} in a row", last.failures)
            }
            Self::Failed => format!("the capture of {machine} failed"),
            Self::Overdue => format!("there is no new capture of {machine}"),
            Self::Recovered => format!("captures of {machine} are made again"),
        }
    }

    /// In words, for a mail.
    pub fn text(self, last: &Last, host: &str, every: Duration, now: Timestamp) -> String {
        let mut out = format!("Halfhour on {host}: {}\n\n", self.line(last));
        let mut say = |name: &str, value: &str| {
            if !value.is_empty() {
                out.push_str(&format!("{name:<16}{value}\n"));
            }
        };
        say("run", &format!("{} to {}", last.started, last.ended));
        let field = |name: &str| last.error[name].as_str().unwrap_or_default();
        say("what", field("message"));
        say("what to do", field("advice"));
        for warning in &last.warnings {
            say("warning", warning);
        }
        say("newest capture", &newest(last, now));
        say("schedule", &format!("every {}", spell(every.as_secs())));
        if let Some(since) = &last.alarm.standing_since {
            say("in trouble", &format!("since {since}"));
        }
        out
    }

    /// As JSON, for a webhook. `text` is what chats show.
    pub fn json(self, last: &Last, host: &str, every: Duration, now: Timestamp) -> Value {
        json!({
            "event": self.word(),
            "host": host,
            "machine": last.machine,
            "time": crate::clock::rfc3339(now),
            "line": self.line(last),
            "text": self.text(last, host, every, now),
            "result": last.result,
            "exit_status": last.exit_status,
            "failures": last.failures,
            "error": last.error,
            "warnings": last.warnings,
            "newest_capture": last.newest,
            "age_seconds": age(last, now).map(|age| age.as_secs()),
            "every_seconds": every.as_secs(),
        })
    }
}

fn newest(last: &Last, now: Timestamp) -> String {
    match (&last.newest, age(last, now)) {
        (Some(Newest { id, time }), Some(age)) => format!("id:{id} of {time}, {} old", spell(age.as_secs())),
        (Some(Newest { id, time }), None) => format!("id:{id} of {time}"),
        (None, _) => "none is known".to_owned(),
    }
}

impl Last {
    /// Notes what became of telling somebody: who was not told is told again after the next run.
    pub fn told(&mut self, event: Event, delivered: &Result<()>, now: &str) {
        self.alarm.trouble = delivered.as_ref().err().map(ToString::to_string);
        match (event, delivered) {
            (_, Err(_)) => {}
            (Event::Recovered, Ok(())) => self.alarm.standing_since = None,
            (_, Ok(())) => self.alarm.standing_since = Some(now.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, after};
    use crate::schedule::{Last, Newest, Outcome};
    use imager_units::{Error, ErrorKind};
    use std::time::Duration;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn trouble_is_told_once_and_its_end_once() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let mut last = Last { machine: "web1".into(), ..Last::default() };
        last.newest = Some(Newest { id: "ab".into(), time: "2026-11-21T11:00:00Z".into() });
        let mut run = |result, failures| {
            (last.result, last.failures) = (result, failures);
            let event = after(&last, HOUR, 2, now);
            if let Some(event) = event {
                last.told(event, &Ok(()), "2026-11-21T12:00:00Z");
            }
            event
        };
        assert_eq!(run(Outcome::Done, 0), None);
        assert_eq!(run(Outcome::Failed, 1), None);
        assert_eq!(run(Outcome::Interrupted, 1), None);
        assert_eq!(run(Outcome::Incomplete, 2), Some(Event::Failed));
        assert_eq!(run(Outcome::Failed, 3), None);
        assert_eq!(run(Outcome::Interrupted, 3), None);
        assert_eq!(run(Outcome::Done, 0), Some(Event::Recovered));
        assert_eq!(run(Outcome::Done, 0), None);
    }

    #[test]
    fn an_old_capture_is_trouble_before_enough_runs_failed_and_what_was_not_told_is_told_again() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let mut last = Last { failures: 1, ..Last::default() };
        assert_eq!(after(&last, HOUR, 5, now), None, "there never was one");
        last.newest = Some(Newest { id: "ab".into(), time: "2026-11-21T09:59:59Z".into() });
        for _ in 0..2 {
            assert_eq!(after(&last, HOUR, 5, now), Some(Event::Overdue));
            last.told(Event::Overdue, &Err(Error::new(ErrorKind::Io, "no mail")), "t");
            assert_eq!(last.alarm.trouble.as_deref(), Some("no mail"));
        }
        last.told(Event::Overdue, &Ok(()), "t");
        assert_eq!((after(&last, HOUR, 5, now), last.alarm.trouble), (None, None));
    }
}
