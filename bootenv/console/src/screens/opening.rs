//! Opening the share: its captures are listed. What fails is said as `imager` says it, and asked again.

use super::fields::ShareField;
use super::looking;
use super::machine::Machines;
use super::name::Name;
use super::trouble::{Fix, Trouble};
use super::waiting::Waiting;
use crate::documents::{Ended, Failure, NO_REPOSITORY, WRONG_SECRET, captures};
use crate::known::{Known, Task};
use crate::order::{Order, Presence};
use crate::page::Line;
use crate::screen::{Next, Step};
use crate::share::{Field, Kind};

/// Nobody wants to sit through ten minutes of patience because of a mistyped name.
const PATIENCE: &str = "20s";

/// Lists the captures.
pub(crate) fn screen(known: &Known) -> Waiting {
    Waiting::new(order(known), opened)
}

fn order(known: &Known) -> Order {
    Order::look("Opening the share", &["list", "--patience", PATIENCE], Some(&known.share))
}

fn opened(ended: &Ended, known: &mut Known) -> Next {
    let object = match ended.result() {
        Ok(object) => object,
        Err(failure) => return failed(&failure, known),
    };
    (known.captures, known.damaged) = captures::read(object);
    match known.task {
        Task::Capture => Next::instead(looking::Disks::new(|_| Next::instead(Name::default()))),
        Task::Restore | Task::Look if known.captures.is_empty() => nothing(known),
        Task::Restore | Task::Look => Next::instead(Machines),
    }
}

fn nothing(known: &Known) -> Next {
    let what = match known.damaged.as_slice() {
        [] => "There is a repository, and no capture in it yet.".to_owned(),
        damaged => format!("No capture in the repository can be read: {}", damaged.join("; ")),
    };
    let failure = Failure { code: None, message: what, advice: String::new() };
    let fixes = vec![another_place(), another_kind(), again("Look again")];
    Next::instead(Trouble::new("Nothing to restore", &failure, fixes).command(order(known).line()))
}

fn failed(failure: &Failure, known: &Known) -> Next {
    let kind = Kind::of(known.share.place());
    let is_secret = failure.code == Some(WRONG_SECRET);
    if is_secret && failure.message.contains("passphrase") {
        let wrong = !known.share.get(Field::Passphrase).is_empty();
        return Next::instead(ShareField::passphrase(kind, wrong.then(|| failure.message.clone())));
    }
    let mut fixes = Vec::new();
    let secret = kind.fields().iter().position(|field| *field != Field::Place);
    if let Some((index, field)) = secret.and_then(|index| Some((index, kind.fields().get(index)?))) {
        let text = format!("Type the {} again", field.label().to_lowercase());
        fixes.push(Fix::new(text, move |_| Next::instead(ShareField::new(kind, index))));
    }
    if failure.code == Some(NO_REPOSITORY) && known.task == Task::Capture {
        let make = |known: &mut Known| Next::instead(Waiting::new(making(known), made));
        fixes.insert(0, Fix::new("Make a repository there (not encrypted)", make));
    }
    let place = if is_secret { fixes.len() } else { 0 };
    fixes.insert(place, another_place());
    fixes.push(again("Try again"));
    fixes.push(another_kind());
    let mut trouble = Trouble::new("The share cannot be opened", failure, fixes).command(order(known).line());
    if is_secret && kind == Kind::Https {
        trouble = trouble.saying(Line::plain("On the server, netshare token list shows whose tokens are valid, and netshare token add makes one."));
    }
    if failure.code == Some(NO_REPOSITORY) && known.task == Task::Capture {
        trouble = trouble
            .saying(Line::plain("An encrypted one is made at the shell: imager init --encrypt --repo URL"));
    }
    Next::instead(trouble)
}

fn making(known: &Known) -> Order {
    let order = Order::look("Making a repository", &["init"], Some(&known.share));
    Order { presence: Presence::Works, ..order }
}

fn made(ended: &Ended, known: &mut Known) -> Next {
    // It prints words, not an object, unless it fails.
    if ended.code == Some(0) {
        return Next::instead(screen(known));
    }
    match ended.result() {
        Ok(_) => Next::instead(screen(known)),
        Err(failure) => failed(&Failure { code: Some(1), ..failure }, known),
    }
}

fn another_place() -> Fix {
    Fix::new("Change the URL", |known| Next::instead(ShareField::new(Kind::of(known.share.place()), 0)))
}

fn another_kind() -> Fix {
    Fix::new("Another kind of share", |_| Next::BackTo(Step::Kind))
}

fn again(text: &str) -> Fix {
    Fix::new(text, |known| Next::instead(screen(known)))
}
