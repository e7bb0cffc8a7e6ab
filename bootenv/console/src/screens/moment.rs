//! Which point in time: newest first, and what is not to be trusted says so.

use super::reading::Reading;
use super::scope::Scopes;
use super::trouble::{Fix, Trouble};
use super::waiting::Waiting;
use crate::documents::Ended;
use crate::documents::captures::Listed;
use crate::documents::manifest::Manifest;
use crate::known::{Choice, Known, Task};
use crate::order::Order;
use crate::page::{Answer, Ask, Item, Line, Page};
use crate::say;
use crate::screen::{Next, Screen, Step};

/// The captures of the machine.
pub(crate) struct Moments;

fn captures(known: &Known) -> Vec<&Listed> {
    known.captures.iter().filter(|capture| capture.machine == known.choice.machine).collect()
}

fn item(capture: &Listed, known: &Known) -> Item {
    let age = say::age(&capture.time, known.clock.now());
    let mut detail =
        format!("{}; {} used of {}", capture.sort(), say::size(capture.used), say::size(capture.size));
    if capture.problems > 0 {
        detail.push_str("; PARTS ARE MISSING: they could not be read");
    }
    Item::new(format!("{}   {age}", say::time(&capture.time))).with(detail)
}

impl Screen for Moments {
    fn step(&self) -> Step {
        Step::Moment
    }

    fn page(&self, known: &Known) -> Page {
        let captures = captures(known);
        let items = captures.iter().map(|capture| item(capture, known)).collect();
        let text = vec![Line::quiet("Each is complete by itself; the newest is the usual choice.")];
        let title = format!("Which point in time of {}?", known.choice.machine);
        let mut page = Page::choose(title, text, items);
        if let Ask::Choose { first, .. } = &mut page.ask {
            *first = captures.iter().position(|capture| !capture.is_inconsistent()).unwrap_or(0);
        }
        page
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Pick(index) = answer else { return Next::Back };
        let Some(id) = captures(known).get(index).map(|capture| capture.id.clone()) else {
            return Next::Stay;
        };
        let words = ["show", &format!("id:{id}")];
        Next::go(Waiting::new(Order::look("Reading the capture", &words, Some(&known.share)), shown))
    }
}

fn shown(ended: &Ended, known: &mut Known) -> Next {
    let object = match ended.result() {
        Ok(object) => object,
        Err(failure) => {
            let fixes = vec![
                Fix::new("Choose another point in time", |_| Next::BackTo(Step::Moment)),
                Fix::new("Change the share", |_| Next::BackTo(Step::Kind)),
            ];
            return Next::instead(Trouble::new("The capture cannot be read", &failure, fixes));
        }
    };
    let manifest = Manifest::read(object);
    if manifest.id != known.capture.id {
        // What was chosen was about another capture.
        known.choice = Choice { machine: known.choice.machine.clone(), ..Choice::default() };
    }
    known.capture = manifest;
    match known.task {
        Task::Look => Next::instead(Reading::new("A capture", contents(&known.capture))),
        _ => Next::instead(Scopes),
    }
}

/// A capture in words.
pub(crate) fn contents(capture: &Manifest) -> Vec<Line> {
    let mut text = vec![Line::strong(format!(
        "{} as of {}, id:{}",
        capture.machine,
        say::time(&capture.time),
        capture.id
    ))];
    for disk in &capture.disks {
        let serial =
            disk.serial.as_ref().map_or("no serial number".to_owned(), |serial| format!("serial {serial}"));
        let model = disk.model.as_deref().unwrap_or("unknown model");
        text.push(Line::plain(format!("disk {}: {model}, {serial}, {}", disk.number, say::size(disk.size))));
    }
    text.extend(capture.rows().into_iter().map(|row| Line::plain(format!("  {row}"))));
    text.extend(capture.warnings.iter().map(Line::warning));
    text.extend(capture.missing.iter().map(|missing| Line::plain(format!("not in the image: {missing}"))));
    text
}
