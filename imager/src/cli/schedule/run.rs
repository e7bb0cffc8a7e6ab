//! `imager schedule run`: one capture, however often it has to be tried; then what is kept, and who is told.

use super::child::{Caller, words};
use super::place::{Place, Turn};
use super::stop::Stop;
use super::systemd::Inhibitor;
use super::{broken, seen, tell};
use crate::cli::Status;
use crate::cli::args::Global;
use crate::cli::failure::Failure;
use crate::cli::output::{print, print_json};
use imager::clock;
use imager::schedule::{self, Choice, Last, Newest, Outcome, Past, Settings};
use imager_image::manifest::Kind;
use imager_units::{Error, ErrorKind, Result};
use jiff::{SignedDuration, Timestamp};
use seen::Seen;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Exit statuses after which it is tried again: the share was lost, or shows no repository, as a folder does on which
/// nothing is mounted yet.
const AWAY: [u8; 2] = [5, 10];
/// How long is waited before it is tried again; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(300);
/// By so much the clocks of captures may be ahead of ours and still be believed.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);

struct Run<'a> {
    caller: Caller<'a>,
    place: &'a Place,
    turn: Turn,
    stop: Stop,
    last: Last,
    /// When it is given up: the next run begins soon after.
    end: Instant,
    due: bool,
}

/// A capture that was made.
struct Made {
    code: u8,
    keep: Vec<String>,
}

/// How an attempt ended.
enum Attempt {
    /// The present period has its capture.
    NotDue(String),
    /// There is a new one.
    Made(Made),
}

pub(super) fn run(global: &Global, place: &Place, due: bool) -> std::result::Result<Status, Failure> {
    let settings = super::settings(place).inspect_err(|failure| {
        if due {
            broken::tell_of(place, failure);
        }
    })?;
    let Some(turn) = place.take_turn()? else {
        if due {
            return Ok(skipped(global, "another run is under way"));
        }
        let what = Error::new(ErrorKind::Denied, "another run is under way");
        return Err(Failure::new(4, what, "imager schedule show says how it went; nothing was begun"));
    };
    let begun = Timestamp::now();
    let length = settings.every.length();
    let mut run = Run {
        caller: Caller { global, place, settings: &settings },
        place,
        turn,
        stop: Stop::new()?,
        last: remembered(place, &settings),
        end: Instant::now() + length.saturating_sub(length / 10),
        due,
    };
    run.last.started = clock::rfc3339(begun);
    let ended = run.attempts();
    run.finish(ended)
}

/// What this machine remembers of the same captures. What it cannot read is not missed for long.
fn remembered(place: &Place, settings: &Settings) -> Last {
    let last = schedule::read(&place.last()).unwrap_or_else(|error| {
        tell::log(4, &format!("how earlier runs went is not known: {error}"));
        None
    });
    let same = last.filter(|last| last.machine == settings.machine && last.repo == settings.repo);
    let Last { failures, alarm, newest, kinds, .. } = same.unwrap_or_default();
    let (machine, repo) = (settings.machine.clone(), settings.repo.clone());
    Last { machine, repo, failures, alarm, newest, kinds, ..Last::default() }
}

fn skipped(global: &Global, why: &str) -> Status {
    if global.json {
        print_json(&json!({ "result": "skipped", "why": why }));
    } else {
        print(&format!("nothing was captured: {why}\n"));
    }
    Status::Done
}

impl Run<'_> {
    fn attempts(&mut self) -> std::result::Result<Attempt, Failure> {
        let mut wait = FIRST_WAIT;
        loop {
            self.last.attempts += 1;
            let failure = match self.attempt() {
                Err(failure) if AWAY.contains(&failure.code()) => failure,
                ended => return ended,
            };
            if self.stop.was_asked() || Instant::now() + wait > self.end {
                return Err(failure);
            }
            // Whoever reads that it waits finds that it does in what was saved.
            self.failed(&failure);
            self.say_and_save();
            tell::log(4, &format!("{}; trying again in {} s", failure.told(), wait.as_secs()));
            self.stop.sleep(wait)?;
            if self.stop.was_asked() {
                return Err(Error::new(ErrorKind::Cancelled, "interrupted").into());
            }
            wait = (wait * 2).min(MOST_WAIT);
        }
    }

    fn attempt(&mut self) -> std::result::Result<Attempt, Failure> {
        let settings = self.caller.settings;
        let (captures, damaged) = seen::list(&self.caller, self.patience(), &mut self.stop)?;
        let newest = captures.iter().rev().find(|seen| seen.is_good);
        self.last.newest = newest.map(|seen| Newest { id: seen.id.clone(), time: seen.time.clone() });
        let now = Timestamp::now();
        if self.due
            && let Some(why) = self.served(&captures, now)
        {
            return Ok(Attempt::NotDue(why));
        }
        let past = self.past(&captures, now);
        let length = settings.every.length();
        let Choice { kind, why } = schedule::choose(&past, settings.full, settings.differential, length, now);
        (self.last.kind, self.last.why) = (Some(kind), why);
        let answer = {
            let _inhibitor = Inhibitor::take(self.place);
            let asked = self.capture_words(kind);
            self.caller.ask(&asked, self.patience(), Some(&self.turn), &mut self.stop)?
        };
        let answer = answer.expect(&[0, 2])?;
        let made = Seen::of(&answer.object, "capture");
        self.last.remember(made.kind.unwrap_or(kind), &made.id, &made.time);
        self.last.warnings = damaged;
        self.last.warnings.extend(texts(&answer.object["warnings"]));
        self.last.error = missing(&answer.object, answer.code);
        let last_of = |kind| {
            let all = captures.iter().chain([&made]);
            all.rev().find(|seen| seen.kind == Some(kind) && seen.is_good).map(|seen| seen.id.clone())
        };
        let keep = [Kind::Full, Kind::Differential].into_iter().filter_map(last_of).collect();
        self.last.capture = Some(made.id);
        Ok(Attempt::Made(Made { code: answer.code, keep }))
    }

    /// How long a share that is away is waited for at once.
    fn patience(&self) -> Duration {
        self.caller.global.patience.min(self.end.saturating_duration_since(Instant::now()))
    }

    /// Why nothing is due, if that is so.
    fn served(&self, captures: &[Seen], now: Timestamp) -> Option<String> {
        let settings = self.caller.settings;
        let slot = settings.every.slot(now, settings.at, &jiff::tz::TimeZone::system());
        let file = std::fs::metadata(self.place.settings()).and_then(|file| file.modified());
        let set = file.ok().and_then(|time| Timestamp::try_from(time).ok());
        if let Some(set) = set.filter(|set| slot < *set && *set <= now) {
            return Some(format!(
                "the schedule is of {}; the first capture comes after that",
                clock::rfc3339(set)
            ));
        }
        let serves = |seen: &&Seen| {
            seen.is_good && seen.when().is_some_and(|time| slot <= time && time.duration_since(now) <= AHEAD)
        };
        let served = captures.iter().find(serves)?;
        Some(format!("id:{} of {} is younger than {slot}", served.id, served.time))
    }

    /// What there is, and what this machine remembers of kinds that were pruned since.
    fn past(&self, captures: &[Seen], now: Timestamp) -> Vec<Past> {
        let mut past: Vec<_> = captures.iter().filter(|seen| seen.is_good).filter_map(Seen::past).collect();
        if past.is_empty() {
            return past;
        }
        let is_gone = |old: &Past| {
            old.time <= now && !past.iter().any(|there| there.kind == old.kind && there.time >= old.time)
        };
        let gone: Vec<_> = self.last.past().into_iter().filter(is_gone).collect();
        past.extend(gone);
        past
    }

    fn capture_words(&self, kind: Kind) -> Vec<String> {
        let settings = self.caller.settings;
        let kind = json!(kind);
        let mut asked =
            words(&["capture", "--machine", &settings.machine, "--kind", kind.as_str().unwrap_or_default()]);
        asked.extend(["--schedule".to_owned(), self.place.settings().display().to_string()]);
        asked.extend(settings.roles.iter().flat_map(|role| ["--role".to_owned(), role.clone()]));
        asked.extend(settings.data.iter().flat_map(|what| ["--data".to_owned(), what.clone()]));
        asked.extend(settings.keep_files.iter().flat_map(|what| ["--keep".to_owned(), what.clone()]));
        asked.push("--".to_owned());
        asked.extend(settings.disks.iter().cloned());
        asked
    }

    fn finish(
        mut self,
        ended: std::result::Result<Attempt, Failure>,
    ) -> std::result::Result<Status, Failure> {
        match ended {
            Ok(Attempt::NotDue(why)) => Ok(skipped(self.caller.global, &why)),
            Ok(Attempt::Made(made)) => {
                let is_whole = made.code == 0;
                self.last.exit_status = made.code;
                self.last.result = if is_whole { Outcome::Done } else { Outcome::Incomplete };
                self.last.failures = if is_whole { 0 } else { self.last.failures.saturating_add(1) };
                // What is whole is not given up for what is not.
                if is_whole && !self.caller.settings.keep.is_empty() {
                    self.last.prune = self.prune(&made.keep);
                }
                self.say_and_save();
                self.print();
                Ok(if is_whole { Status::Done } else { Status::Missing })
            }
            Err(failure) => {
                self.failed(&failure);
                if self.last.result == Outcome::Failed {
                    self.last.failures = self.last.failures.saturating_add(1);
                }
                self.say_and_save();
                Err(failure)
            }
        }
    }

    fn failed(&mut self, failure: &Failure) {
        self.last.exit_status = failure.code();
        self.last.result = if failure.code() == 130 { Outcome::Interrupted } else { Outcome::Failed };
        self.last.error = failure.json();
    }

    /// Keeps what the rules keep, and what later captures are compared with. It is no failure of the capture if that fails.
    fn prune(&mut self, keep: &[String]) -> Value {
        let settings = self.caller.settings;
        let mut asked = words(&["prune", "--yes", "--machine", &settings.machine]);
        asked.extend(
            settings.keep.rules().flat_map(|(name, count)| [format!("--keep-{name}"), count.to_string()]),
        );
        asked.extend(keep.iter().flat_map(|id| ["--keep".to_owned(), id.clone()]));
        let answer = self.caller.ask(&asked, self.patience(), None, &mut self.stop).map_err(Failure::from);
        match answer.and_then(|answer| answer.expect(&[0, 3])) {
            Ok(answer) => {
                let blind = texts(&answer.object["blind"]);
                blind.iter().for_each(|blind| {
                    tell::log(4, &format!("no space comes back while this is damaged: {blind}"))
                });
                json!({
                    "removed": answer.object["removed"].as_array().map(Vec::len),
                    "deleted_bytes": answer.object["deleted_bytes"],
                    "blind": blind,
                })
            }
            Err(failure) => {
                tell::log(4, &format!("the capture is made; old ones were not removed: {}", failure.told()));
                json!({ "error": failure.json() })
            }
        }
    }

    /// Tells whom it may concern, and remembers everything.
    fn say_and_save(&mut self) {
        let (settings, now) = (self.caller.settings, Timestamp::now());
        self.last.ended = clock::rfc3339(now);
        let event = schedule::after(&self.last, settings.every.length(), settings.alarm.after_failures, now);
        if let Some(event) = event {
            tell::of(event, settings, &mut self.last, now);
        }
        if let Err(error) = self.save() {
            tell::log(4, &format!("how this run went is not remembered: {error}"));
        }
    }

    fn save(&self) -> Result<()> {
        let json = |e| Error::with_source(ErrorKind::Invalid, "writing what is remembered", e);
        schedule::write(&self.place.last(), &serde_json::to_vec_pretty(&self.last).map_err(json)?, 0o600)
    }

    fn print(&self) {
        let (last, settings) = (&self.last, self.caller.settings);
        let next = settings.every.next(Timestamp::now(), settings.at, &jiff::tz::TimeZone::system());
        if self.caller.global.json {
            let mut object = json!(last);
            object["next"] = json!(clock::rfc3339(next));
            print_json(&object);
            return;
        }
        let kind = json!(last.kind);
        let mut out = format!(
            "capture id:{} of {}, {} ({})\n",
            last.capture.as_deref().unwrap_or_default(),
            settings.machine,
            kind.as_str().unwrap_or_default(),
            last.why
        );
        last.warnings.iter().for_each(|warning| out.push_str(&format!("warning: {warning}\n")));
        if let Some(message) = last.error["message"].as_str() {
            out.push_str(&format!("PROBLEM: {message}\n"));
        }
        if let Some(removed) = last.prune["removed"].as_u64() {
            out.push_str(&format!("captures removed: {removed}\n"));
        }
        out.push_str(&format!("the next one is due {}\n", clock::rfc3339(next)));
        print(&out);
    }
}

/// What is missing from a capture that was made; null if nothing is.
fn missing(object: &Value, code: u8) -> Value {
    if code == 0 {
        return Value::Null;
    }
    let problems = object["problems"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let say = |problem: &Value| format!("volume {}: {}", text(&problem["volume"]), text(&problem["message"]));
    let message: Vec<_> = problems.iter().map(say).collect();
    let advice = format!(
        "imager show id:{} lists where; older captures stay until one is whole again",
        text(&object["capture"])
    );
    json!({ "kind": "missing", "message": message.join("; "), "advice": advice })
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}
