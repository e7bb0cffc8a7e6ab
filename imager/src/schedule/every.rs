//! How often: the period, and the slots it divides time into.
//!
//! Periods below a day are counted in UTC: in local time an hourly schedule would leave out an hour each autumn. Days and
//! weeks begin at a local time, because people mean their nights. A local time that a change of the clocks leaves out
//! is no slot, as for systemd (systemd.time(7)).

use imager_units::{Error, ErrorKind, Result};
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const HOUR: i64 = 3600;

/// A period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Every {
    /// So many minutes, which divide an hour.
    Minutes(u8),
    /// So many hours, which divide a day.
    Hours(u8),
    /// A day.
    Day,
    /// A week, from Monday.
    Week,
}

/// The local time of day at which days and weeks begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Clock(Time);

impl Every {
    /// How long it is, but for days on which the clocks change.
    pub const fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minutes(minutes) => minutes as u64 * 60,
            Self::Hours(hours) => hours as u64 * 3600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
        })
    }

    /// The slots as systemd writes them.
    pub fn calendar(self, at: Clock) -> String {
        let at = at.0.strftime("%H:%M");
        match self {
            Self::Minutes(minutes) => format!("*-*-* *:00/{minutes}:00 UTC"),
            Self::Hours(1) => "*-*-* *:00:00 UTC".to_owned(),
            Self::Hours(hours) => format!("*-*-* 00/{hours}:00:00 UTC"),
            Self::Day => format!("*-*-* {at}:00"),
            Self::Week => format!("Mon *-*-* {at}:00"),
        }
    }

    /// When the slot began in which `now` lies.
    pub fn slot(self, now: Timestamp, at: Clock, zone: &TimeZone) -> Timestamp {
        match self {
            Self::Minutes(_) | Self::Hours(_) => self.even(now, 0),
            // A week and a day the clocks jump over.
            Self::Day | Self::Week => {
                let days = (-1..9).filter_map(|back| today(now, zone).checked_sub(back.days()).ok());
                days.filter_map(|day| self.begins(day, at, zone)).find(|slot| *slot <= now).unwrap_or(now)
            }
        }
    }

    /// When the next slot after `now` begins.
    pub fn next(self, now: Timestamp, at: Clock, zone: &TimeZone) -> Timestamp {
        match self {
            Self::Minutes(_) | Self::Hours(_) => self.even(now, 1),
            Self::Day | Self::Week => {
                let days = (-1..16).filter_map(|on| today(now, zone).checked_add(on.days()).ok());
                days.filter_map(|day| self.begins(day, at, zone)).find(|slot| *slot > now).unwrap_or(now)
            }
        }
    }

    /// The slot of `now`, or one so many behind it: UTC days begin at multiples of a day, and periods divide it.
    fn even(self, now: Timestamp, more: i64) -> Timestamp {
        let length = i64::try_from(self.length().as_secs()).unwrap_or(HOUR);
        let slot = now.as_second().div_euclid(length).saturating_add(more).saturating_mul(length);
        Timestamp::from_second(slot).unwrap_or(now)
    }

    /// The slot that begins on a day, if one does.
    fn begins(self, day: Date, at: Clock, zone: &TimeZone) -> Option<Timestamp> {
        if self == Self::Week && day.weekday() != Weekday::Monday {
            return None;
        }
        let begins = day.to_datetime(at.0).to_zoned(zone.clone()).ok()?;
        (begins.time() == at.0).then(|| begins.timestamp())
    }
}

fn today(now: Timestamp, zone: &TimeZone) -> Date {
    now.to_zoned(zone.clone()).date()
}

impl FromStr for Every {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::new(ErrorKind::Invalid, format!("{text:?} is no period: {why}"));
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number = if number.is_empty() { Some(1) } else { number.parse::<u16>().ok() };
        let number = number.ok_or_else(|| wrong("it is too long"))?;
        let minutes = match unit.trim_start() {
            "m" | "min" if end > 0 => Some(number),
            "h" | "hourly" => number.checked_mul(60),
            "d" | "daily" => number.checked_mul(24 * 60),
            "w" | "weekly" => number.checked_mul(7 * 24 * 60),
            _ => return Err(wrong("say such as 15m, 1h, 6h, 1d or 1w")),
        };
        match minutes {
            Some(10_080) => Ok(Self::Week),
            Some(1440) => Ok(Self::Day),
            Some(minutes @ 60..1440) if minutes % 60 == 0 && 1440 % minutes == 0 => {
                u8::try_from(minutes / 60).map(Self::Hours).map_err(|_| wrong("it is too long"))
            }
            Some(minutes @ 1..60) if 60 % minutes == 0 => {
                u8::try_from(minutes).map(Self::Minutes).map_err(|_| wrong("it is too long"))
            }
            _ => Err(wrong(
                "minutes have to divide an hour (15m), hours a day (6h), so that there are as many each day; beyond that \
                 there are 1d and 1w",
            )),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minutes(minutes) => write!(f, "{minutes}m"),
            Self::Hours(hours) => write!(f, "{hours}h"),
            Self::Day => f.write_str("1d"),
            Self::Week => f.write_str("1w"),
        }
    }
}

impl TryFrom<String> for Every {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Every> for String {
    fn from(every: Every) -> Self {
        every.to_string()
    }
}

impl Default for Clock {
    /// Where clocks are changed, that is done before.
    fn default() -> Self {
        Self(Time::constant(4, 0, 0, 0))
    }
}

impl FromStr for Clock {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::new(ErrorKind::Invalid, format!("{text:?} is no time of day such as 04:00"));
        let time: Time = text.parse().map_err(|_| wrong())?;
        if text.len() == 5 { Ok(Self(time)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%H:%M"))
    }
}

impl TryFrom<String> for Clock {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Clock> for String {
    fn from(clock: Clock) -> Self {
        clock.to_string()
    }
}

#[cfg(test)]
mod tests;
