//! Whole flows, by a person who reads pages and answers, with an `imager` that is a script.

mod pictures;
mod server;

use crate::app::{App, Ticket};
use crate::disk::Disk;
use crate::documents::{Ended, Progress};
use crate::effect::{Effect, News};
use crate::known::{Clock, Known};
use crate::page::{Answer, Ask, Page};
use crate::screen::Step;
pub(crate) use pictures::pictures;
use serde_json::{Value, json};
use server::{disk, failure, well};

/// What `imager` answers to a command.
type Imager = fn(&str) -> (i32, Value);

struct Person {
    app: App,
    imager: Imager,
    disks: Vec<Disk>,
    /// The commands that were run.
    ran: Vec<String>,
    /// What was begun and not answered yet.
    pending: Option<(Ticket, Effect)>,
    /// What the terminal had to do.
    done: Vec<Effect>,
}

impl Person {
    fn sits_down(imager: Imager) -> Self {
        Self::with(imager, |_| ())
    }

    fn with(imager: Imager, prepare: fn(&mut Known)) -> Self {
        let clock = Clock::Standing("2026-11-22T08:00:00Z".parse().expect("a time"));
        let mut known = Known { clock, ..Known::default() };
        prepare(&mut known);
        let (app, first) = App::new(known);
        let disks =
            vec![disk("/dev/sda", "S1", 100), disk("/dev/sdb", "S2", 50), disk("/dev/sdc", "S3", 200)];
        let mut person = Self { app, imager, disks, ran: Vec::new(), pending: first, done: Vec::new() };
        person.wait();
        person
    }

    /// Lets everything happen that was begun, but for what writes.
    fn wait(&mut self) {
        while let Some((ticket, effect)) = self.pending.take() {
            let news = match effect {
                Effect::Run(order)
                    if order.words.iter().any(|word| word == "--confirm" || word == "capture") =>
                {
                    self.ran.push(order.line());
                    self.pending = Some((ticket, Effect::Run(order)));
                    return;
                }
                Effect::Run(order) => {
                    self.ran.push(order.line());
                    self.ended(&order.line())
                }
                Effect::Disks(_) => News::Disks(self.disks.clone()),
                Effect::Network | Effect::Log => News::Text(vec!["eth0: 192.0.2.7".to_owned()]),
                other => {
                    self.done.push(other);
                    return;
                }
            };
            self.pending = self.app.told(ticket, news);
        }
    }

    fn ended(&self, line: &str) -> News {
        let (code, object) = (self.imager)(line);
        News::Ended(Ended { code: Some(code), object, said: String::new() })
    }

    /// What writes ends.
    fn work_ends(&mut self) {
        let Some((ticket, Effect::Run(order))) = self.pending.take() else { panic!("nothing runs") };
        let news = self.ended(&order.line());
        self.pending = self.app.told(ticket, news);
        self.wait();
    }

    fn page(&self) -> Page {
        self.app.page()
    }

    fn reads(&self, words: &str) {
        let page = self.page();
        let all = format!("{} {:?} {:?}", page.title, page.text, page.ask);
        assert!(all.contains(words), "{words:?} is not said: {page:#?}");
    }

    fn answers(&mut self, answer: Answer) {
        if let Some(next) = self.app.answer(answer) {
            // What runs goes on while a person is asked something.
            let running = self.pending.replace(next);
            self.wait();
            self.pending = self.pending.take().or(running);
        }
    }

    fn picks(&mut self, words: &str) {
        let page = self.page();
        let Ask::Choose { items, .. } = &page.ask else { panic!("nothing to choose: {page:#?}") };
        let index = items.iter().position(|item| item.text.contains(words));
        let index = index.unwrap_or_else(|| panic!("no {words:?}: {page:#?}"));
        assert_eq!(items[index].refused, None, "{page:#?}");
        self.answers(Answer::Pick(index));
    }

    fn refused(&self, words: &str) -> String {
        let Ask::Choose { items, .. } = self.page().ask else { panic!("nothing to choose") };
        let item = items.into_iter().find(|item| item.text.contains(words)).expect("it is listed");
        item.refused.unwrap_or_default()
    }

    fn types(&mut self, text: &str) {
        assert!(matches!(self.page().ask, Ask::Type { .. }), "{:#?}", self.page());
        self.answers(Answer::Typed(text.to_owned()));
    }

    fn goes_back(&mut self) {
        self.answers(Answer::Back);
    }

    fn opens_the_share(&mut self) {
        self.picks("Restore a server");
        self.picks("share server");
        self.types("h:1/d#ab");
        self.types("token");
    }

    fn comes_to_the_plan(&mut self) {
        self.opens_the_share();
        self.picks("web1");
        self.picks("2026-11-22");
        self.picks("The operating system");
        self.picks("S1");
    }
}

#[test]
fn a_server_is_restored_by_answering_questions() {
    let mut person = Person::sits_down(well);
    person.reads("eth0: 192.0.2.7");
    person.comes_to_the_plan();
    person.reads("Onto DISK, serial S1");
    person.reads("leave  3  name3");
    person.reads("warning: mind the gap");
    let command = person.page().command.expect("it teaches");
    assert_eq!(command, "imager restore id:2web1 --to 1=serial:S1 --confirm cafe --repo 'https://h:1/d#ab'");
    person.types(" s1 ");
    assert_eq!(person.ran.last(), Some(&command));
    person.reads("Under way");
    person.work_ends();
    person.reads("web1 is restored as of 2026-11-22");
    person.reads("volume 3 was not touched; proven");
    person.picks("Main menu");
    assert!(person.app.is_at(Step::Menu));
    assert!(!format!("{:?}", person.page()).contains("Reboot"), "this is an ordinary system");
}

#[test]
fn in_the_rescue_environment_protection_is_lifted_and_a_report_left_and_the_reboot_offered() {
    let mut person = Person::with(well, |known| known.place.release = Some("Halfhour 1".to_owned()));
    person.comes_to_the_plan();
    person.types("S1");
    assert!(person.ran.last().expect("it runs").contains("--unprotect --confirm cafe --report"));
    person.work_ends();
    person.picks("Reboot");
    assert_eq!(person.done, [Effect::Reboot]);
}

#[test]
fn a_wrong_word_writes_nothing_and_is_asked_again() {
    let mut person = Person::sits_down(well);
    person.comes_to_the_plan();
    for wrong in ["", "yes", "S2"] {
        person.types(wrong);
        person.reads("That is not S1. Nothing was written.");
    }
    assert!(!person.ran.iter().any(|line| line.contains("--confirm")));
    person.types("S1");
    person.reads("Under way");
}

#[test]
fn back_leads_to_each_screen_before_and_keeps_what_was_chosen() {
    let mut person = Person::sits_down(well);
    person.comes_to_the_plan();
    for title in ["Onto which disk?", "What is to be put back?", "Which point in time", "which machine?"] {
        person.goes_back();
        person.reads(title);
    }
    person.goes_back();
    assert!(matches!(person.page().ask, Ask::Type { secret: true, .. }));
    person.reads("Enter alone keeps");
    person.goes_back();
    assert!(matches!(person.page().ask, Ask::Type { value, .. } if value == "https://h:1/d#ab"));
    person.goes_back();
    person.goes_back();
    assert!(person.app.is_at(Step::Menu));
    person.goes_back();
    assert!(person.app.is_at(Step::Menu), "there is nothing behind it");
    person.picks("Restore a server");
    person.picks("The share that is set");
    person.reads("which machine?");
}

#[test]
fn the_newest_sound_capture_is_under_the_cursor_and_the_other_says_what_it_is() {
    let mut person = Person::sits_down(well);
    person.opens_the_share();
    person.picks("web1");
    person.reads("INCONSISTENT");
    assert!(matches!(person.page().ask, Ask::Choose { first: 1, .. }));
    person.reads("3 hours ago");
}

#[test]
fn a_disk_that_cannot_be_it_is_shown_with_the_reason_and_the_captured_one_is_marked() {
    let mut person = Person::sits_down(well);
    person.opens_the_share();
    person.picks("web1");
    person.picks("2026-11-22");
    person.picks("The operating system");
    person.reads("the captured disk itself; GPT");
    assert!(person.refused("S2").contains("too small"));
    assert_eq!(person.refused("S3"), "");
}

#[test]
fn a_target_that_imager_refuses_is_not_offered_again() {
    let imager: Imager = |line| match line.contains("--plan") {
        true => failure(4, "/dev/sdc is divided otherwise"),
        false => well(line),
    };
    let mut person = Person::sits_down(imager);
    person.opens_the_share();
    person.picks("web1");
    person.picks("2026-11-22");
    person.picks("The operating system");
    person.picks("S3");
    person.reads("divided otherwise");
    person.reads("Nothing was written.");
    person.picks("Choose another disk");
    assert!(person.refused("S3").contains("divided otherwise"));
    person.picks("Look at the disks again");
    assert_eq!(person.refused("S3"), "", "it may be another one now");
}

#[test]
fn what_is_on_a_disk_is_given_up_only_by_saying_so() {
    let imager: Imager = |line| match line.contains("--bare-metal") && !line.contains("--erase") {
        true => failure(4, "/dev/sda is not blank: it holds a partition table. --erase S1 gives that up"),
        false => well(line),
    };
    let mut person = Person::sits_down(imager);
    person.opens_the_share();
    person.picks("web1");
    person.picks("2026-11-22");
    person.picks("bare metal");
    assert!(person.refused("S2").contains("too small"));
    person.picks("S1");
    person.reads("is not blank");
    assert!(matches!(person.page().ask, Ask::Choose { first: 0, .. }), "Enter alone erases nothing");
    person.picks("Give up everything on DISK, serial S1");
    assert!(person.ran.last().expect("it ran").contains("--bare-metal --erase S1 --plan"));
    person.reads("type S1");
    person.goes_back();
    person.picks("S3");
    assert!(!person.ran.last().expect("it ran").contains("--erase"), "that was about another disk");
}

#[test]
fn a_wrong_token_is_said_and_asked_again_with_the_rest_kept() {
    let imager: Imager = |_| failure(12, "opening https://h:1/d: the server does not know the token");
    let mut person = Person::sits_down(imager);
    person.opens_the_share();
    person.reads("does not know the token");
    person.picks("Type the token again");
    person.reads("Enter alone keeps");
    person.imager = well;
    person.types("right");
    person.reads("which machine?");
    person.goes_back();
    person.goes_back();
    person.goes_back();
    assert!(matches!(person.page().ask, Ask::Type { value, .. } if value == "https://h:1/d#ab"));
}

#[test]
fn an_encrypted_repository_asks_for_its_passphrase_until_it_is_right() {
    let imager: Imager = |_| failure(12, "a passphrase is needed, and there is nobody to ask");
    let mut person = Person::sits_down(imager);
    person.opens_the_share();
    assert!(matches!(person.page().ask, Ask::Type { label, secret: true, .. } if label == "Passphrase"));
    person.imager = |_| failure(12, "the passphrase opens no key of this repository");
    person.types("wrong");
    person.reads("opens no key");
    person.imager = well;
    person.types("right");
    person.reads("which machine?");
}

#[test]
fn every_failure_of_the_share_leads_on() {
    let imager: Imager = |_| failure(5, "connecting: connection refused");
    let mut person = Person::sits_down(imager);
    person.opens_the_share();
    person.reads("connection refused");
    person.reads("do this");
    person.picks("Try again");
    person.picks("Change the URL");
    person.types("nonsense://x");
    person.reads("that is none of this kind");
    for _ in 0..3 {
        person.goes_back();
    }
    person.picks("A folder of this machine");
    person.imager = |_| (0, json!({ "captures": [], "damaged": ["captures/x: damaged"] }));
    person.types("/mnt");
    person.reads("captures/x: damaged");
    person.picks("Another kind of share");
    person.reads("which share");
}

#[test]
fn stopping_is_asked_and_says_what_it_leaves() {
    let mut person = Person::sits_down(well);
    person.comes_to_the_plan();
    person.types("S1");
    person.goes_back();
    person.reads("incomplete then: do not start it");
    person.picks("Let it go on");
    person.reads("Under way");
    person.goes_back();
    person.picks("Stop it");
    assert_eq!(person.done, [Effect::Stop]);
    person.reads("It is being stopped");
    person.imager = |_| failure(130, "interrupted");
    person.work_ends();
    person.reads("The restore was stopped");
    person.imager = well;
    person.picks("Plan again");
    person.reads("type S1");
}

#[test]
fn progress_and_notices_are_shown_while_it_runs() {
    let mut person = Person::sits_down(well);
    person.comes_to_the_plan();
    person.types("S1");
    let (ticket, _) = person.pending.clone().expect("it runs");
    let progress =
        Progress::read(r#"{"phase":"restore","done_bytes":512,"total_bytes":1024,"bottleneck":"disk"}"#);
    person.app.told(ticket, News::Progress(progress.expect("progress")));
    person.app.told(ticket, News::Notice("look out".to_owned()));
    person.reads("512 B of 1.0 KiB");
    person.reads("look out");
    assert!(matches!(person.page().ask, Ask::Wait { done: Some((512, 1024)), .. }));
}

#[test]
fn a_second_console_tells_what_the_first_does() {
    let mut person = Person::sits_down(well);
    person.comes_to_the_plan();
    person.types("S1");
    let (ticket, _) = person.pending.take().expect("it runs");
    person.pending = person.app.told(ticket, News::Busy(vec!["restore of db1".to_owned()]));
    person.wait();
    assert_eq!(person.done, [Effect::Others]);
    person.reads("nothing is begun here");
    person.goes_back();
    person.reads("type S1");
}

#[test]
fn news_of_what_nobody_waits_for_are_not_heard() {
    let mut person = Person::sits_down(well);
    person.picks("Restore a server");
    person.picks("A folder of this machine");
    let (ticket, effect) = person.app.answer(Answer::Typed("/mnt".to_owned())).expect("the share is opened");
    assert!(person.app.is_working());
    let stop = person.app.answer(Answer::Back).expect("it is stopped");
    assert_eq!(stop.1, Effect::Stop);
    let Effect::Run(order) = effect else { panic!("a command") };
    let news = person.ended(&order.line());
    assert!(person.app.told(ticket, news).is_none());
    person.reads("A folder of this machine");
}

#[test]
fn a_server_is_captured_by_answering_questions() {
    let mut person = Person::sits_down(well);
    person.picks("Capture this server");
    person.picks("share server");
    person.types("h:1/d#ab");
    person.types("token");
    assert!(matches!(person.page().ask, Ask::Type { value, .. } if value == "web1"), "as its disk says");
    person.types("Not a name!");
    person.reads("small letters, digits and hyphens");
    person.types("web1");
    person.picks("[x] DISK, serial S3");
    person.picks("Go on");
    person.picks("volume 2 of /dev/sda");
    person.picks("Go on");
    person.reads("volume 2 of /dev/sda is data, as you said");
    person.picks("Begin");
    let command =
        "imager capture serial:S1 serial:S2 --machine web1 --role S1-2=data --repo 'https://h:1/d#ab'";
    assert_eq!(person.ran.last().map(String::as_str), Some(command));
    person.imager =
        |_| failure(4, "\"web1\" is the name of other hardware: choose another --machine, or say --rebind");
    person.work_ends();
    person.picks("take over the name web1");
    person.imager = well;
    person.picks("Begin");
    assert!(person.ran.last().expect("it runs").contains("--rebind"));
    person.work_ends();
    person.reads("not in the image: volume 9 of the data");
}

#[test]
fn a_share_without_a_repository_can_get_one_for_a_capture() {
    let imager: Imager = |line| match line.contains(" init") {
        true => (0, Value::Null),
        false => failure(10, "there is no repository"),
    };
    let mut person = Person::sits_down(imager);
    person.picks("Capture this server");
    person.picks("A folder of this machine");
    person.types("/mnt");
    person.picks("Make a repository there");
    assert!(person.ran.iter().any(|line| line == "imager init --repo /mnt"), "{:?}", person.ran);
}

#[test]
fn captures_disks_and_the_log_can_be_looked_at() {
    let mut person = Person::sits_down(well);
    person.picks("Look");
    person.picks("Disks");
    person.reads("serial S2");
    person.picks("Back");
    person.picks("Log");
    person.goes_back();
    person.picks("Captures");
    person.picks("A folder of this machine");
    person.types("/mnt");
    person.picks("web1");
    person.picks("2026-11-22");
    person.reads("not in the image: volume 4");
    person.picks("Main menu");
    person.picks("Shell");
    assert_eq!(person.done, [Effect::Shell]);
}

#[test]
fn chosen_volumes_alone_are_put_back() {
    let mut person = Person::sits_down(well);
    person.opens_the_share();
    person.picks("web1");
    person.picks("2026-11-22");
    person.picks("Chosen volumes");
    assert!(person.refused("Go on").contains("at least one"));
    person.picks("[ ] 3");
    person.picks("[ ] 1");
    person.picks("[x] 1");
    person.picks("Go on");
    assert!(person.refused("S2").contains("too small"), "volume 3 lies behind its end");
    person.picks("S1");
    assert!(person.ran.last().expect("it ran").contains("--to 1=serial:S1 --volume 3 --plan"));
}
