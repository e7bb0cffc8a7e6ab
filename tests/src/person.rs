//! A person at a console, whatever the terminal: reads what stands there, waits for words, and presses keys.

/// Enter, as terminals send it.
pub const ENTER: &str = "\r";
/// Escape; alone, it is followed by nothing.
pub const ESC: &str = "\u{1b}";
/// The cursor's key.
pub const DOWN: &str = "\u{1b}[B";

/// So often a cursor is moved before it is given up.
const MOVES: u32 = 40;

/// Whoever sits at a terminal.
pub trait Person: Sized {
    /// The screen as it is.
    fn screen(&self) -> String;

    /// What was printed since the last line that was typed, for a program that prints lines.
    fn printed(&self) -> String;

    /// Presses keys.
    fn press(&mut self, keys: &str);

    /// Types a line.
    fn enters(&mut self, line: &str);

    /// Waits until that is so. Fails, telling what was waited for, when it does not come.
    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool);

    /// Waits for these words on the screen.
    fn shows(&mut self, words: &str) {
        self.wait_until(words, |person| holds(&person.screen(), words));
    }

    /// Waits until these words are gone.
    fn shows_no_more(&mut self, words: &str) {
        self.wait_until(words, |person| !holds(&person.screen(), words));
    }

    /// Waits for these words among the lines since the last that was typed.
    fn says(&mut self, words: &str) {
        self.wait_until(words, |person| holds(&person.printed(), words));
    }

    /// The line under the cursor.
    fn cursor(&self) -> Option<String> {
        self.screen().lines().find(|line| line.trim_start().starts_with("> ")).map(str::to_owned)
    }

    /// Moves the cursor to the item with these words, and takes it.
    fn picks(&mut self, words: &str) {
        self.shows(words);
        self.wait_until("a cursor", |person| person.cursor().is_some());
        for _ in 0..MOVES {
            let before = self.cursor();
            if before.as_ref().is_some_and(|line| line.contains(words)) {
                self.press(ENTER);
                return;
            }
            self.press(DOWN);
            let moved = |person: &Self| person.cursor().is_some_and(|line| Some(line) != before);
            self.wait_until("the cursor moves", moved);
        }
        panic!("the cursor does not reach {words:?}:\n{}", self.screen());
    }

    /// Enters the number of the line with these words.
    fn picks_line(&mut self, words: &str) {
        self.says("Number (");
        let printed = self.printed();
        let line = printed.lines().find(|line| line.contains(words) && line.starts_with("  "));
        let number = line.and_then(|line| line.split_whitespace().next()).map(str::to_owned);
        let number = number.unwrap_or_else(|| panic!("no line {words:?}: {printed}"));
        self.enters(&number);
    }
}

/// Whether a text has these words, wherever its lines are broken.
fn holds(text: &str, words: &str) -> bool {
    let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    joined(text).contains(&joined(words))
}
