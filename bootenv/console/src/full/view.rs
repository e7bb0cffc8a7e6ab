//! What the full screen remembers between two pages: the cursor, what is typed, how far the text is scrolled.

use crate::console::Console;
use crate::page::{Answer, Ask, Page};

/// A key, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Enter,
    Back,
    Erase,
    Clear,
    Letter(char),
}

/// How far PgUp and PgDn go.
const PAGE_LINES: usize = 8;

/// The view of the page.
#[derive(Default)]
pub(crate) struct View {
    turn: Option<u64>,
    /// The page.
    pub(crate) page: Option<Page>,
    /// The item under the cursor.
    pub(crate) cursor: usize,
    /// What is typed.
    pub(crate) typed: String,
    /// How many lines of the text are above the screen.
    pub(crate) scroll: usize,
    /// How many there may be: set by whoever draws.
    pub(crate) scroll_most: usize,
}

impl View {
    /// Takes the console's page. The cursor and the text stay while the question is the same.
    pub(crate) fn follow(&mut self, console: &Console) {
        self.take(console.turns(), console.page());
    }

    /// Takes a page of that turn.
    pub(crate) fn take(&mut self, turn: u64, page: Page) {
        let kind = |page: &Page| std::mem::discriminant(&page.ask);
        let same =
            self.turn == Some(turn) && self.page.as_ref().is_some_and(|before| kind(before) == kind(&page));
        if !same {
            (self.cursor, self.scroll, self.typed) = (0, 0, String::new());
            match &page.ask {
                Ask::Choose { first, .. } => self.cursor = *first,
                Ask::Type { value, secret: false, .. } => self.typed.clone_from(value),
                _ => {}
            }
        }
        (self.turn, self.page) = (Some(turn), Some(page));
    }

    /// Whether letters are text.
    pub(crate) fn is_typing(&self) -> bool {
        matches!(self.page.as_ref().map(|page| &page.ask), Some(Ask::Type { .. }))
    }

    /// Takes what was pasted: one line of it, since Enter is pressed by hand.
    pub(crate) fn paste(&mut self, text: &str) {
        if self.is_typing() {
            self.typed.extend(text.trim().chars().filter(|letter| !letter.is_control()));
        }
    }

    /// Takes a key; an answer, if it is one.
    pub(crate) fn press(&mut self, key: Key) -> Option<Answer> {
        match key {
            Key::Back => return Some(Answer::Back),
            Key::PageUp => self.scroll = self.scroll.saturating_sub(PAGE_LINES),
            Key::PageDown => self.scroll = self.scroll.saturating_add(PAGE_LINES).min(self.scroll_most),
            _ => {}
        }
        match self.page.as_ref().map(|page| page.ask.clone())? {
            Ask::Choose { items, .. } => {
                let last = items.len().saturating_sub(1);
                match key {
                    Key::Up => self.cursor = self.cursor.saturating_sub(1),
                    Key::Down => self.cursor = self.cursor.saturating_add(1).min(last),
                    Key::First => self.cursor = 0,
                    Key::Last => self.cursor = last,
                    Key::Enter | Key::Letter(' ') => {
                        let item = items.get(self.cursor)?;
                        return item.refused.is_none().then_some(Answer::Pick(self.cursor));
                    }
                    Key::Letter(letter) => {
                        // A digit goes to its item; Enter takes it.
                        let number = letter.to_digit(10).and_then(|digit| usize::try_from(digit).ok());
                        let index =
                            number.and_then(|number| number.checked_sub(1)).filter(|index| *index <= last);
                        self.cursor = index.unwrap_or(self.cursor);
                    }
                    _ => {}
                }
            }
            Ask::Type { .. } => match key {
                Key::Letter(letter) => self.typed.push(letter),
                Key::Erase => drop(self.typed.pop()),
                Key::Clear => self.typed.clear(),
                Key::Up => self.scroll = self.scroll.saturating_sub(1),
                Key::Down => self.scroll = self.scroll.saturating_add(1).min(self.scroll_most),
                Key::Enter => return Some(Answer::Typed(self.typed.clone())),
                _ => {}
            },
            Ask::Wait { .. } => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, View};
    use crate::page::{Answer, Ask, Item, Page};

    fn at(page: Page) -> View {
        let mut view = View::default();
        view.take(1, page);
        view
    }

    #[test]
    fn the_cursor_moves_and_takes_only_what_can_be_chosen() {
        let items = vec![Item::new("a").refused(Some("no".to_owned())), Item::new("b"), Item::new("c")];
        let mut view = at(Page::choose("", Vec::new(), items));
        assert_eq!(view.press(Key::Enter), Some(Answer::Pick(1)));
        view.press(Key::Up);
        assert_eq!(view.press(Key::Enter), None, "it cannot be chosen");
        for _ in 0..3 {
            assert_eq!(view.press(Key::Down), None);
        }
        assert_eq!(view.press(Key::Enter), Some(Answer::Pick(2)));
        view.press(Key::Letter('2'));
        assert_eq!((view.cursor, view.press(Key::Back)), (1, Some(Answer::Back)));
    }

    #[test]
    fn what_is_typed_begins_with_what_there_was_and_secrets_begin_empty() {
        let mut page = Page::question("", Vec::new(), "URL", "/old");
        let mut view = at(page.clone());
        view.press(Key::Erase);
        view.paste(" x\r\n");
        view.take(1, page.clone());
        assert_eq!(view.press(Key::Enter), Some(Answer::Typed("/olx".to_owned())));
        view.press(Key::Clear);
        assert_eq!(view.press(Key::Enter), Some(Answer::Typed(String::new())));
        if let Ask::Type { secret, .. } = &mut page.ask {
            *secret = true;
        }
        view.take(2, page);
        assert_eq!(view.typed, "");
    }
}
