//! Of which kind the next capture is: full, differential or incremental. It decides what is compared and what moves,
//! never what can be restored, so a wrong guess costs time and nothing else.

use imager_image::manifest::Kind;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A capture that claims to be of so much later was made while the clock was wrong: its age is not known.
const MOST_AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// How often a capture is of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cadence {
    /// Once a day.
    Daily,
    /// Once a week.
    Weekly,
    /// Once a month.
    Monthly,
}

/// A capture that there is, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its kind.
    pub kind: Kind,
    /// When it began.
    pub time: Timestamp,
}

/// What the next one is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its kind.
    pub kind: Kind,
    /// Why.
    pub why: String,
}

impl Cadence {
    fn span(self) -> Span {
        match self {
            Self::Daily => 1.day(),
            Self::Weekly => 1.week(),
            Self::Monthly => 1.month(),
        }
    }

    /// As people say it, and as the settings do.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }

    /// Whether one is due at the capture that begins `now`. Half a period early is in time: otherwise a capture that
    /// begins a minute earlier than the last time puts it off by a whole period, each time.
    fn is_due(self, last: Timestamp, now: Timestamp, every: Duration) -> bool {
        let slack = SignedDuration::try_from(every / 2).unwrap_or_default();
        let due = last.to_zoned(TimeZone::UTC).checked_add(self.span());
        let is_ahead = last.duration_since(now) > MOST_AHEAD;
        is_ahead || due.is_ok_and(|due| due.timestamp().duration_since(now) <= slack)
    }
}

/// Decides. `past` is what is on the share, in the order of the machine's history, and before it what this machine remembers
/// of captures that are there no more.
pub fn choose(
    past: &[Past],
    full: Option<Cadence>,
    differential: Option<Cadence>,
    every: Duration,
    now: Timestamp,
) -> Choice {
    let choice = |kind, why: String| Choice { kind, why };
    let last = |kinds: &[Kind]| past.iter().rev().find(|past| kinds.contains(&past.kind));
    let Some(last_full) = last(&[Kind::Full]) else {
        return match past.is_empty() {
            true => choice(Kind::Full, "there is no capture yet".to_owned()),
            false if full.is_some() || differential.is_some() => {
                choice(Kind::Full, "there is no full capture".to_owned())
            }
            false => choice(Kind::Incremental, "it is always compared with the last".to_owned()),
        };
    };
    if let Some(cadence) = full.filter(|cadence| cadence.is_due(last_full.time, now, every)) {
        return choice(Kind::Full, format!("the last full one is of {}: {}", last_full.time, cadence.word()));
    }
    // A full one is as good as a differential one.
    let compared = last(&[Kind::Full, Kind::Differential]).unwrap_or(last_full);
    if let Some(cadence) = differential.filter(|cadence| cadence.is_due(compared.time, now, every)) {
        let what = if compared.kind == Kind::Full { "full" } else { "differential" };
        let why = format!("the last {what} one is of {}: {}", compared.time, cadence.word());
        return choice(Kind::Differential, why);
    }
    choice(Kind::Incremental, "no other kind is due".to_owned())
}

#[cfg(test)]
mod tests;
