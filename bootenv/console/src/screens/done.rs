//! What became of an operation, in words, and what comes next.

use super::planning;
use super::start::Start;
use super::trouble::{Fix, Trouble};
use crate::documents::manifest::Manifest;
use crate::documents::{Ended, Failure, LOST, REFUSED, STOPPED, list, number, some_text, text, texts};
use crate::effect::{Effect, News};
use crate::known::Known;
use crate::page::{Answer, Item, Line, Page};
use crate::say;
use crate::screen::{Next, Screen, Step};
use serde_json::Value;

/// The result.
struct Done {
    title: String,
    text: Vec<Line>,
}

#[derive(Clone, Copy)]
enum Entry {
    Reboot,
    PowerOff,
    Menu,
    Shell,
}

fn entries(known: &Known) -> Vec<(Entry, Item)> {
    let mut entries = Vec::new();
    if known.is_rescue() {
        entries.push((
            Entry::Reboot,
            Item::new("Reboot").with("remove the rescue medium, or have the firmware start from the disk"),
        ));
        entries.push((Entry::PowerOff, Item::new("Power off")));
    }
    entries.push((Entry::Menu, Item::new("Main menu")));
    entries.push((Entry::Shell, Item::new("Shell")));
    entries
}

impl Screen for Done {
    fn page(&self, known: &Known) -> Page {
        let items = entries(known).into_iter().map(|(_, item)| item).collect();
        Page::choose(self.title.clone(), self.text.clone(), items)
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Pick(index) = answer else { return Next::BackTo(Step::Menu) };
        match entries(known).get(index).map(|(entry, _)| *entry) {
            Some(Entry::Reboot) => Next::Do(Effect::Reboot),
            Some(Entry::PowerOff) => Next::Do(Effect::PowerOff),
            Some(Entry::Shell) => Next::Do(Effect::Shell),
            Some(Entry::Menu) => Next::BackTo(Step::Menu),
            None => Next::Stay,
        }
    }

    fn told(&mut self, news: News, _known: &mut Known) -> Next {
        if matches!(news, News::Busy(_)) { Next::go(super::busy::Busy::default()) } else { Next::Stay }
    }
}

/// A restore ended.
pub(crate) fn restored(ended: &Ended, known: &mut Known) -> Next {
    let report = match ended.result() {
        Ok(report) => report,
        Err(failure) => return failed(&failure, "The restore did not finish", known),
    };
    let (machine, time) = (&known.capture.machine, say::time(&known.capture.time));
    let title = match ended.code {
        Some(0) => format!("{machine} is restored as of {time}"),
        Some(3) => "Restored in part: the repository is damaged".to_owned(),
        _ => "Restored, but something is missing".to_owned(),
    };
    Next::instead(Done { title, text: restore_text(report) })
}

fn restore_text(report: &Value) -> Vec<Line> {
    let mut lines = Vec::new();
    let (written, matched) =
        (say::size(number(report, "written_bytes")), say::size(number(report, "matched_bytes")));
    let proof = if report["verified"] == Value::Bool(true) {
        ", all of it read back and right"
    } else {
        ", not read back"
    };
    let seconds = report["elapsed_seconds"].as_f64().unwrap_or(0.0);
    lines.push(Line::strong(format!(
        "{written} written{proof}; {matched} were there already; {}.",
        say::span(seconds)
    )));
    for volume in list(report, "volumes") {
        let whole = volume["complete"] == Value::Bool(true);
        let what = if whole { "is restored" } else { "is INCOMPLETE: it was made unrecognisable" };
        lines.push(Line::plain(format!("volume {}{} {what}", text(volume, "key"), called(volume))));
    }
    for volume in list(report, "untouched") {
        let proof = text(volume, "proof");
        let proof = if proof.is_empty() { String::new() } else { format!(" ({proof})") };
        let what = match (volume["unchanged"].as_bool(), volume["in_use"].as_bool()) {
            (Some(true), _) => format!("was not touched; proven{proof}"),
            (_, Some(true)) => "was in use: written by its own users, not by this restore".to_owned(),
            _ => format!("CHANGED although it was not to be touched{proof}"),
        };
        lines.push(Line::plain(format!("volume {} {what}", text(volume, "key"))));
    }
    lines.extend(list(report, "boot").iter().filter_map(boot_check));
    lines.extend(texts(report, "warnings").iter().map(Line::warning));
    lines.extend(problems(report));
    lines.extend(
        texts(report, "not_captured")
            .iter()
            .map(|missing| Line::plain(format!("not in the image: {missing}"))),
    );
    lines
}

/// Whether the machine starts from it, as far as can be seen.
fn boot_check(check: &Value) -> Option<Line> {
    let message = format!("boot ({}): {}", text(check, "firmware"), some_text(check, "message")?);
    Some(if check["ok"] == Value::Bool(true) { Line::plain(message) } else { Line::warning(message) })
}

fn problems(object: &Value) -> impl Iterator<Item = Line> {
    let problem = |problem: &Value| {
        Line::bad(format!("PROBLEM: volume {}: {}", text(problem, "volume"), text(problem, "message")))
    };
    list(object, "problems").iter().map(problem)
}

fn called(volume: &Value) -> String {
    let (key, name) = (text(volume, "key"), text(volume, "name"));
    if name.is_empty() || name == key { String::new() } else { format!(" ({name})") }
}

fn failed(failure: &Failure, title: &str, known: &Known) -> Next {
    let title = match failure.code {
        Some(STOPPED) => "The restore was stopped",
        Some(REFUSED) => "The restore was refused; nothing was written",
        _ => title,
    };
    let again = match failure.code {
        Some(LOST | STOPPED) => "Plan again, and go on where it was",
        _ => "Plan again",
    };
    let fixes = vec![
        Fix::new(again, |known| Next::instead(planning::screen(known))),
        Fix::new("Choose another disk", |_| Next::BackTo(Step::Target)),
        Fix::new("Change the share", |_| Next::BackTo(Step::Kind)),
        Fix::new("Shell", |_| Next::Do(Effect::Shell)),
        Fix::new("Main menu", |_| Next::BackTo(Step::Menu)),
    ];
    Next::instead(Trouble::new(title, failure, fixes).command(known.restore(None).line()))
}

/// A capture ended.
pub(crate) fn captured(ended: &Ended, known: &mut Known) -> Next {
    let object = match ended.result() {
        Ok(object) => object,
        Err(failure) => return not_captured(&failure, known),
    };
    let capture = Manifest::read(object);
    let title = match ended.code {
        Some(0) => format!("{} is captured", capture.machine),
        _ => format!("{} is captured, but something is missing", capture.machine),
    };
    let mut lines = super::moment::contents(&capture);
    lines.extend(problems(object));
    if capture.missing.is_empty() {
        lines.push(Line::plain("Everything on these disks is in the image."));
    }
    Next::instead(Done { title, text: lines })
}

fn not_captured(failure: &Failure, known: &mut Known) -> Next {
    let mut fixes = vec![
        Fix::new("Try again", |_| Next::instead(Start)),
        Fix::new("Choose another name or other disks", |_| Next::BackTo(Step::Name)),
        Fix::new("Change the share", |_| Next::BackTo(Step::Kind)),
        Fix::new("Shell", |_| Next::Do(Effect::Shell)),
        Fix::new("Main menu", |_| Next::BackTo(Step::Menu)),
    ];
    if failure.message.contains("--rebind") {
        let text =
            format!("This machine replaces that hardware: take over the name {}", known.making.machine);
        fixes.push(Fix::new(text, |known| {
            known.making.rebind = true;
            Next::instead(Start)
        }));
    }
    let title = if failure.code == Some(STOPPED) { "The capture was stopped" } else { "There is no capture" };
    Next::instead(Trouble::new(title, failure, fixes).command(known.make().line()))
}
