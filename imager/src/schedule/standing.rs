//! How old a capture is, against the schedule it was made under.

use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// By so much of the period a capture may be late before it is called so: a run has a delay, and takes its time.
const GRACE: u32 = 4;

/// How a capture stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The period.
    pub every_seconds: u64,
    /// How long ago it began; 0 for one of the future.
    pub age_seconds: u64,
    /// For how long there should have been a newer one; 0 while it is in time.
    pub overdue_seconds: u64,
}

impl Standing {
    /// Of a capture of `time`. One that has a newer one is never overdue.
    pub fn new(time: Timestamp, every: Duration, is_newest: bool, now: Timestamp) -> Self {
        let age = Duration::try_from(now.duration_since(time)).unwrap_or_default();
        let is_late = is_newest && age > every.saturating_add(every / GRACE);
        Self {
            every_seconds: every.as_secs(),
            age_seconds: age.as_secs(),
            overdue_seconds: if is_late { age.saturating_sub(every).as_secs() } else { 0 },
        }
    }

    /// In a word.
    pub fn words(&self) -> String {
        match self.overdue_seconds {
            0 => spell(self.age_seconds),
            late => format!("overdue by {}", spell(late)),
        }
    }
}

/// Seconds in the largest unit of which there are two, or one and nothing else.
pub(super) fn spell(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min")];
    let fits = |(length, _): &&(u64, &str)| seconds >= 2 * length || seconds == *length;
    match units.iter().find(fits) {
        Some((length, unit)) => format!("{} {unit}", seconds / length),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Standing, spell};
    use std::time::Duration;

    #[test]
    fn the_newest_capture_is_overdue_a_quarter_of_a_period_after_the_next_should_have_come() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let standing = |time: &str, is_newest| {
            let hour = Duration::from_secs(3600);
            Standing::new(time.parse().unwrap(), hour, is_newest, now).words()
        };
        assert_eq!(standing("2026-11-21T11:59:30Z", true), "30 s");
        assert_eq!(standing("2026-11-21T10:45:00Z", true), "75 min");
        assert_eq!(standing("2026-11-21T10:44:59Z", true), "overdue by 15 min");
        assert_eq!(standing("2026-11-21T08:00:00Z", true), "overdue by 3 h");
        assert_eq!(standing("2026-11-21T08:00:00Z", false), "4 h");
        assert_eq!(standing("2031-11-21T08:00:00Z", true), "0 s");
    }

    #[test]
    fn times_are_told_in_one_unit() {
        for (seconds, text) in
            [(0, "0 s"), (60, "1 min"), (119, "119 s"), (7199, "119 min"), (86_400, "1 d"), (100_000, "27 h")]
        {
            assert_eq!(spell(seconds), text);
        }
    }
}
