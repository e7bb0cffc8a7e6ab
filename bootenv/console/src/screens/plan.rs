//! The plan in words, and the word that agrees to it.

use super::running::Running;
use crate::documents::plan::{Plan, PlannedDisk};
use crate::known::Known;
use crate::page::{Answer, Line, Page};
use crate::say;
use crate::screen::{Next, Screen};

/// The plan.
pub(crate) struct PlanScreen {
    plan: Plan,
    /// How many disks were agreed to.
    agreed: usize,
    wrong: bool,
}

impl PlanScreen {
    /// Shows a plan, and asks for each disk's name.
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, agreed: 0, wrong: false }
    }

    fn disk(&self) -> Option<&PlannedDisk> {
        self.plan.disks.get(self.agreed)
    }
}

impl Screen for PlanScreen {
    fn page(&self, known: &Known) -> Page {
        let capture = &known.capture;
        let age = say::age(&capture.time, known.clock.now());
        let mut text =
            vec![Line::strong(format!("{} as of {}, {age}", capture.machine, say::time(&capture.time)))];
        text.extend(self.plan.lines(capture));
        let word = self.disk().map(PlannedDisk::word).unwrap_or_default();
        text.push(Line::gap());
        if self.wrong {
            text.push(Line::bad(format!("That is not {word}. Nothing was written.")));
        }
        let of = if self.plan.disks.len() > 1 {
            self.disk().map(|disk| format!(" for {}", disk.path))
        } else {
            None
        };
        let agree = format!("If this is right{}, type {word}", of.unwrap_or_default());
        text.push(Line::strong(agree));
        let page = Page::question("The plan: nothing is written yet", text, "Name of the disk", "");
        page.command(known.restore(Some(&self.plan.hash)).line())
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Typed(typed) = answer else { return Next::Back };
        let Some(disk) = self.disk() else { return Next::Back };
        self.wrong = !typed.trim().eq_ignore_ascii_case(disk.word());
        if self.wrong {
            return Next::Anew;
        }
        self.agreed = self.agreed.saturating_add(1);
        if self.agreed < self.plan.disks.len() {
            return Next::Anew;
        }
        // Whoever comes back here agrees anew.
        self.agreed = 0;
        Next::go(Running::restore(known.restore(Some(&self.plan.hash))))
    }
}
