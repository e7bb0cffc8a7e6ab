//! What has to be typed to open a share, one question a screen. What was typed stays when one comes back.

use super::opening;
use crate::known::Known;
use crate::page::{Answer, Ask, Line, Page};
use crate::screen::{Next, Screen, Step};
use crate::share::{Field, Kind};

/// A question about a share.
pub(crate) struct ShareField {
    kind: Kind,
    fields: Vec<Field>,
    wrong: Option<String>,
}

impl ShareField {
    /// The question of that index, and those that follow it.
    pub(crate) fn new(kind: Kind, index: usize) -> Self {
        Self { kind, fields: kind.fields().get(index..).unwrap_or_default().to_vec(), wrong: None }
    }

    /// The passphrase of an encrypted repository, perhaps after a wrong one.
    pub(crate) fn passphrase(kind: Kind, wrong: Option<String>) -> Self {
        Self { kind, fields: vec![Field::Passphrase], wrong }
    }

    fn field(&self) -> Field {
        self.fields.first().copied().unwrap_or(Field::Place)
    }
}

impl Screen for ShareField {
    fn step(&self) -> Step {
        Step::Field
    }

    fn page(&self, known: &Known) -> Page {
        let (field, (name, form)) = (self.field(), self.kind.words());
        let hint = if field == Field::Place { form } else { field.hint() };
        let mut text = vec![Line::plain(hint)];
        if field != Field::Place {
            text.push(Line::quiet(known.share.place()));
        }
        let value = known.share.get(field);
        if field.is_secret() {
            text.push(Line::quiet("It is not shown while you type."));
            if !value.is_empty() {
                text.push(Line::plain("Enter alone keeps the one that was given before."));
            }
        }
        text.extend(self.wrong.iter().map(|wrong| Line::bad(wrong.clone())));
        let of_this_kind = field != Field::Place || Kind::of(value) == self.kind;
        let value = if of_this_kind { value } else { "" };
        let mut page = Page::question(name, text, field.label(), value);
        if let Ask::Type { secret, .. } = &mut page.ask {
            *secret = field.is_secret();
        }
        page
    }

    fn answer(&mut self, answer: Answer, known: &mut Known) -> Next {
        let Answer::Typed(typed) = answer else { return Next::Back };
        let field = self.field();
        let keeps = field.is_secret() && typed.is_empty();
        match field {
            Field::Place => {
                if let Err(wrong) = known.share.set_place(self.kind, &typed) {
                    self.wrong = Some(wrong);
                    return Next::Stay;
                }
            }
            _ if keeps => {}
            // A passphrase may begin or end with a space; what is pasted from elsewhere does not.
            Field::Passphrase | Field::SharePassword => known.share.set(field, &typed),
            _ => known.share.set(field, typed.trim()),
        }
        self.wrong = None;
        match self.fields.get(1..) {
            Some(rest) if !rest.is_empty() => {
                Next::go(Self { kind: self.kind, fields: rest.to_vec(), wrong: None })
            }
            _ => Next::go(opening::screen(known)),
        }
    }
}
