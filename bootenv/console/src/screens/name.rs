//! Whose capture is made.

use super::sources::Sources;
use crate::documents::captures::machines;
use crate::known::Known;
use crate::page::{Answer, Line, Page};
use crate::say;
use crate::screen::{Next, Screen, Step};

/// The question.
#[derive(Default)]
pub(crate) struct Name {
    wrong: bool,
}

/// The most letters of a machine's name.
const NAME_LETTERS: usize = 63;

/// A name as the repository takes it: small letters, digits and hyphens.
pub(crate) fn fit(name: &str) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let host = name.trim().split('.').next().unwrap_or_default();
    let name: String = host.chars().map(letter).collect();
    name.trim_matches('-').chars().take(NAME_LETTERS).collect()
}

fn is_fit(name: &str) -> bool {
    !name.is_empty() && fit(name) == name
}

/// The name to begin with: what was said before, what the system on a disk calls itself, what the mainboard does.
fn suggestion(known: &Known) -> (String, &'static str) {
    let hostname =
        known.disks.iter().filter_map(|disk| disk.content.as_ref().ok()?.hostname.as_deref()).next();
    if !known.making.machine.is_empty() {
        return (known.making.machine.clone(), "");
    }
    match (hostname.map(fit), &known.place.hardware) {
        (Some(name), _) if !name.is_empty() => (name, "The system on its disk calls itself so."),
        (_, Some(name)) => (fit(name), "The mainboard calls itself so."),
        _ => (String::new(), ""),
    }
}

impl Screen for Name {
    fn step(&self) -> Step {
        Step::Name
    }

    fn page(&self, known: &Known) -> Page {
        let (name, because) = suggestion(known);
        let now = known.clock.now();
        let mut text =
            vec![Line::plain("A name that is on the share already goes on with that machine's history.")];
        let machines = machines(&known.captures);
        text.extend(machines.iter().map(|(name, captures)| {
            let newest = captures.first().map_or(String::new(), |capture| say::age(&capture.time, now));
            Line::plain(format!("  {name}: {}, the newest {newest}", say::count(captures.len(), "capture")))
        }));
        if !because.is_empty() {
            text.push(Line::quiet(because));
        }
        if self.wrong {
            text.push(Line::bad("A name has small letters, digits and hyphens, 63 at most."));
        }
        Page::question("Capture: what is this machine called?", text, "Machine", &name)
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Typed(typed) = answer else { return Next::Back };
        let name = typed.trim().to_lowercase();
        self.wrong = !is_fit(&name);
        if self.wrong {
            return Next::Stay;
        }
        if name != known.making.machine {
            known.making.rebind = false;
        }
        known.making.machine = name;
        Next::go(Sources::new(known))
    }
}

#[cfg(test)]
mod tests {
    use super::{fit, is_fit};

    #[test]
    fn a_name_is_made_fit() {
        assert_eq!(fit("Web1.example.net\n"), "web1");
        assert_eq!(fit("PowerEdge R640/ABC 1"), "poweredge-r640-abc-1");
        assert!(is_fit("web-1") && !is_fit("") && !is_fit("Web") && !is_fit("a_b"));
        assert_eq!(fit(&"a".repeat(99)).len(), 63);
    }
}
