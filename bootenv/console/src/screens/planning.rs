//! Computing the plan. A target that `imager` refuses is remembered with its reason, and another one is asked for.

use super::plan::PlanScreen;
use super::trouble::{Fix, Trouble};
use super::waiting::Waiting;
use crate::disk::Scope;
use crate::documents::plan::Plan;
use crate::documents::{Ended, Failure, REFUSED};
use crate::known::Known;
use crate::page::Line;
use crate::screen::{Next, Step};

/// Plans the restore that was chosen.
pub(crate) fn screen(known: &Known) -> Waiting {
    let mut order = known.restore(None);
    order.what = "Computing the plan; nothing is written".to_owned();
    Waiting::new(order, planned)
}

fn planned(ended: &Ended, known: &mut Known) -> Next {
    match ended.result() {
        Ok(object) => Next::instead(PlanScreen::new(Plan::read(object))),
        Err(failure) => refused(&failure, known),
    }
}

fn refused(failure: &Failure, known: &mut Known) -> Next {
    let mut fixes = Vec::new();
    let blamed = blamed(failure, known);
    let gives_up = known.choice.scope == Scope::BareMetal && failure.message.contains("is not blank");
    let mut title = "The plan cannot be made";
    if gives_up {
        title = "That disk is not blank";
        for path in &blamed {
            let Some(disk) = known.disks.iter().find(|disk| disk.path == *path) else { continue };
            let (text, name) =
                (format!("Give up everything on {}", disk.describe()), disk.erase_name().to_owned());
            fixes.push(Fix::new(text, move |known| {
                known.choice.erase.push(name.clone());
                Next::instead(screen(known))
            }));
        }
        // The cursor begins where nothing is lost.
        fixes.insert(0, Fix::new("Choose another disk", |_| Next::BackTo(Step::Target)));
    } else {
        if failure.code == Some(REFUSED) {
            let reasons = blamed.iter().map(|path| (path.clone(), failure.message.clone()));
            known.choice.refused.extend(reasons);
        }
        fixes.push(Fix::new("Choose another disk", |_| Next::BackTo(Step::Target)));
        fixes.push(Fix::new("Choose what is put back", |_| Next::BackTo(Step::Scope)));
        fixes.push(Fix::new("Choose another point in time", |_| Next::BackTo(Step::Moment)));
        fixes.push(Fix::new("Try again", |known| Next::instead(screen(known))));
    }
    fixes.push(Fix::new("Main menu", |_| Next::BackTo(Step::Menu)));
    let trouble = Trouble::new(title, failure, fixes).command(known.restore(None).line());
    Next::instead(trouble.saying(Line::plain("Nothing was written.")))
}

/// The targets that a failure is about: the one that it names, or the only one.
fn blamed(failure: &Failure, known: &Known) -> Vec<String> {
    let targets: Vec<_> = known.choice.targets.values().cloned().collect();
    let named: Vec<_> = targets.iter().filter(|path| names(&failure.message, path)).cloned().collect();
    if named.is_empty() && targets.len() == 1 { targets } else { named }
}

/// Whether a message names a path, and not one that only begins like it.
fn names(message: &str, path: &str) -> bool {
    let goes_on = |letter: char| letter.is_ascii_alphanumeric() || letter == '/';
    message.match_indices(path).any(|(at, _)| {
        let rest = message.get(at.saturating_add(path.len())..).unwrap_or_default();
        !rest.starts_with(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_path_is_named_only_by_itself() {
        assert!(names("/dev/sda is in use: x", "/dev/sda") && names("onto /dev/sda", "/dev/sda"));
        assert!(!names("/dev/sda1 is mounted", "/dev/sda") && !names("/dev/sdaa", "/dev/sda"));
    }
}
