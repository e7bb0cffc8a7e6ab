//! Which captures stay: rules, and guards that no rule overrides.
//!
//! Only *good* captures (readable, not inconsistent) count for the rules and are counted. Periods are those of UTC. Where the
//! share tells when it received a manifest, the rules go by that: a machine that was taken over can write any time into
//! what it sends, but not into the share's own records.

use imager_image::CaptureId;
use imager_units::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// Claimed and received times that differ by more are not believed unasked.
const MOST_DIFFERENCE_SECONDS: i64 = 24 * 3600;
/// By so much the times of captures may contradict their order: captures at once end in any order.
const MOST_DISORDER_SECONDS: i64 = 3600;
/// How many contradictions are named.
const MOST_NAMED: usize = 10;

/// How many captures stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The newest so many; where the share tells when it received them, those of one hour count as one.
    pub last: Option<u32>,
    /// The newest of each of the last so many hours that have one.
    pub hourly: Option<u32>,
    /// Of days.
    pub daily: Option<u32>,
    /// Of weeks, from Monday.
    pub weekly: Option<u32>,
    /// Of months.
    pub monthly: Option<u32>,
    /// These, beside those that the rules keep.
    pub also: Vec<CaptureId>,
}

/// Which time of a capture counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Times {
    /// What the machine wrote.
    Claimed,
    /// When the share received it.
    Received,
}

/// What a capture is worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It counts.
    Good,
    /// Taken from under a running system: counts for nothing.
    Inconsistent,
    /// Its manifest cannot be read: counts for nothing and stays.
    Unreadable,
}

/// What becomes of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
}

/// A capture and what becomes of it.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Its id.
    pub capture: CaptureId,
    /// Whose it is.
    pub machine: String,
    /// When it began, as the machine says.
    pub time: String,
    /// When the share received its manifest, where it tells.
    pub received: Option<String>,
    /// Its place in the machine's history.
    pub sequence: u64,
    /// What it is worth.
    pub state: State,
    /// Whether it is held.
    pub held: bool,
    /// What becomes of it.
    pub action: Action,
    /// Why.
    pub reasons: Vec<String>,
    /// The name of its manifest.
    pub object: String,
}

impl Rules {
    fn periods(&self) -> [(Option<u32>, Period); 4] {
        [
            (self.hourly, Period::Hour),
            (self.daily, Period::Day),
            (self.weekly, Period::Week),
            (self.monthly, Period::Month),
        ]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.last.is_none() && !self.go_by_time()
    }

    fn go_by_time(&self) -> bool {
        self.periods().iter().any(|(count, _)| count.is_some())
    }
}

#[derive(Clone, Copy)]
enum Period {
    Hour,
    Day,
    Week,
    Month,
}

impl Period {
    fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// What all times of one period have in common.
    fn of(self, time: Timestamp) -> String {
        let date = time.to_zoned(jiff::tz::TimeZone::UTC).date();
        match self {
            Self::Hour => time.strftime("%Y-%m-%dT%HZ").to_string(),
            Self::Day => date.to_string(),
            Self::Month => date.strftime("%Y-%m").to_string(),
            Self::Week => {
                let week = date.iso_week_date();
                format!("{}-W{:02}", week.year(), week.week())
            }
        }
    }
}

/// Decides what becomes of the captures of one machine.
///
/// # Errors
/// `Denied` when a guard or the times forbid it.
pub(super) fn judge(
    captures: &mut [Judged],
    rules: &Rules,
    times: Option<Times>,
    remove: &[CaptureId],
    force: bool,
) -> Result<()> {
    captures.sort_by(|a, b| (a.sequence, &a.time, a.capture).cmp(&(b.sequence, &b.time, b.capture)));
    if rules.go_by_time() {
        check_times(captures, times)?;
    }
    let mut reasons: BTreeMap<CaptureId, Vec<String>> = BTreeMap::new();
    let mut keep = |id, why: String| reasons.entry(id).or_default().push(why);
    let good: Vec<&Judged> = captures.iter().filter(|capture| capture.state == State::Good).collect();
    if let Some(newest) = good.last() {
        keep(newest.capture, "the newest good capture".to_owned());
    }
    rules.also.iter().for_each(|id| keep(*id, "asked to be kept".to_owned()));
    if let Some(count) = rules.last {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        last(&good, count, times).for_each(|c| keep(c.capture, format!("one of the last {count}")));
    }
    let mut by_time: Vec<(Timestamp, &Judged)> = Vec::new();
    for capture in &good {
        by_time.push((effective(capture, times)?, capture));
    }
    by_time.sort_by_key(|(time, capture)| (*time, capture.sequence));
    for (count, period) in rules.periods() {
        let (mut seen, count) = (HashSet::new(), usize::try_from(count.unwrap_or(0)).unwrap_or(usize::MAX));
        for (time, capture) in by_time.iter().rev() {
            let key = period.of(*time);
            if seen.len() < count && seen.insert(key.clone()) {
                keep(capture.capture, format!("the newest of {} {key}", period.name()));
            }
        }
    }
    let newest = good.last().map(|capture| (capture.capture, capture.sequence));
    for capture in captures.iter_mut() {
        let kept = reasons.remove(&capture.capture).unwrap_or_default();
        verdict(capture, kept, rules, newest, remove, force)?;
    }
    check_half(captures, force)
}

/// The newest `count`. Those that the share received within one hour count as one and stay together: a machine that was
/// taken over could otherwise push every good capture out within a second.
fn last<'c>(
    good: &'c [&Judged],
    count: usize,
    times: Option<Times>,
) -> impl Iterator<Item = &'c Judged> + 'c {
    let (mut hours, mut counted) = (HashSet::new(), 0_usize);
    good.iter().rev().copied().take_while(move |capture| {
        let told = capture.received.as_ref().filter(|_| times != Some(Times::Claimed));
        let received = told.and_then(|time| time.parse().ok());
        if received.is_none_or(|time| hours.insert(Period::Hour.of(time))) {
            counted = counted.saturating_add(1);
        }
        counted <= count
    })
}

/// What becomes of one capture, of which rules say `kept`.
fn verdict(
    capture: &mut Judged,
    mut kept: Vec<String>,
    rules: &Rules,
    newest: Option<(CaptureId, u64)>,
    remove: &[CaptureId],
    force: bool,
) -> Result<()> {
    let refuse =
        |why: &str| Err(Error::new(ErrorKind::Denied, format!("capture id:{} {why}", capture.capture)));
    let is_newest = newest.is_some_and(|(id, _)| id == capture.capture);
    if remove.contains(&capture.capture) {
        if capture.held {
            return refuse("is held: release it first (imager hold --release)");
        }
        if is_newest && !force {
            return refuse("is the newest good capture of its machine: it goes only with --force");
        }
        (capture.action, capture.reasons) = (Action::Remove, vec!["named to be removed".to_owned()]);
        return Ok(());
    }
    if capture.held {
        kept.push("held".to_owned());
    }
    match capture.state {
        State::Unreadable => {
            let why = capture.reasons.join("; ");
            kept.push(format!("cannot be read ({why}); counts for nothing"));
        }
        State::Inconsistent if newest.is_none_or(|(_, sequence)| sequence < capture.sequence) => {
            kept.push("inconsistent, but newer than every good one; counts for nothing".to_owned());
        }
        _ => {}
    }
    if rules.is_empty() && kept.is_empty() {
        kept.push("no rule was given".to_owned());
    }
    capture.action = if kept.is_empty() { Action::Remove } else { Action::Keep };
    if kept.is_empty() {
        kept.push(match capture.state {
            State::Inconsistent => "inconsistent, and a newer good one stays".to_owned(),
            _ => "no rule keeps it".to_owned(),
        });
    }
    capture.reasons = kept;
    Ok(())
}

fn check_half(captures: &[Judged], force: bool) -> Result<()> {
    let removed = captures.iter().filter(|capture| capture.action == Action::Remove).count();
    if force || removed * 2 <= captures.len() {
        return Ok(());
    }
    let machine = captures.first().map_or("", |capture| capture.machine.as_str());
    let what = format!(
        "{removed} of the {} captures of {machine:?} would go, which is more than half: they go only with --force",
        captures.len()
    );
    Err(Error::new(ErrorKind::Denied, what))
}

/// The time that rules go by.
fn effective(capture: &Judged, times: Option<Times>) -> Result<Timestamp> {
    let parse = |text: &str| {
        let wrong =
            |e| Error::with_source(ErrorKind::Corrupt, format!("the time of id:{}", capture.capture), e);
        text.parse::<Timestamp>().map_err(wrong)
    };
    match (times, &capture.received) {
        (Some(Times::Received) | None, Some(received)) => parse(received),
        (Some(Times::Received), None) => {
            let what = format!("the share does not tell when it received capture id:{}", capture.capture);
            Err(Error::new(ErrorKind::Invalid, what))
        }
        _ => parse(&capture.time),
    }
}

/// Times that contradict each other are not guessed about.
fn check_times(captures: &[Judged], times: Option<Times>) -> Result<()> {
    if times.is_some() {
        return Ok(());
    }
    let (mut strange, mut latest) = (Vec::new(), None::<(Timestamp, CaptureId)>);
    for capture in captures.iter().filter(|capture| capture.state == State::Good) {
        let claimed = effective(capture, Some(Times::Claimed))?;
        let time = effective(capture, None)?;
        let apart = time.as_second().saturating_sub(claimed.as_second()).saturating_abs();
        if apart > MOST_DIFFERENCE_SECONDS {
            strange.push(format!(
                "id:{} says it began at {claimed}, the share received it at {time}",
                capture.capture
            ));
        }
        match latest {
            Some((before, other))
                if before.as_second().saturating_sub(time.as_second()) > MOST_DISORDER_SECONDS =>
            {
                let place = capture.sequence;
                strange.push(format!(
                    "id:{} (number {place}) is of {time}, before id:{other} of {before}",
                    capture.capture
                ));
            }
            Some((before, _)) if before > time => {}
            _ => latest = Some((time, capture.capture)),
        }
    }
    if strange.is_empty() {
        return Ok(());
    }
    let more = strange.len().saturating_sub(MOST_NAMED);
    let and = if more == 0 { String::new() } else { format!("; and {more} more") };
    strange.truncate(MOST_NAMED);
    let machine = captures.first().map_or("", |capture| capture.machine.as_str());
    let what = format!(
        "the times of captures of {machine:?} contradict each other, so no rule about hours, days, weeks or months can \
         be trusted: {}{and}. Say --times claimed or --times received",
        strange.join("; ")
    );
    Err(Error::new(ErrorKind::Denied, what))
}

#[cfg(test)]
mod tests;
