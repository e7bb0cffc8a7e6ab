//! The full screen: one page, a cursor or a field, and the keys.

mod draw;
mod view;

use crate::console::{Console, Turn};
use crate::terminal::{self, Screen, Signals};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{Clear, ClearType};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};
use std::io::{self, Stdout, stdout};
use std::time::Duration;
use view::{Key, View};

/// How long one waits for a key before looking for news: the terminal and the work have no common way to wake us.
const LOOK: Duration = Duration::from_millis(100);
/// The same while no news are to be expected.
const REST: Duration = Duration::from_secs(2);

/// Asks until the console is left, or the screen is too small for it.
///
/// # Errors
/// Those of the terminal.
pub(crate) fn run(mut console: Console, signals: &Signals, look: Look) -> io::Result<()> {
    let mut screen = Some(Screen::take()?);
    let mut shown = open(terminal::size().unwrap_or(terminal::LEAST))?;
    let mut view = View::default();
    while !signals.is_ended() {
        let mut turn = console.catch_up(Duration::ZERO);
        view.follow(&console);
        shown.draw(|frame| draw::draw(frame, &mut view, look))?;
        let wait = if console.is_working() { LOOK } else { REST };
        if turn == Turn::Show && event::poll(wait)? {
            turn = match event::read()? {
                Event::Key(key) => press(&mut console, &mut view, key, &mut shown)?,
                Event::Paste(text) => {
                    view.paste(&text);
                    Turn::Show
                }
                Event::Resize(columns, rows) => {
                    shown = open(terminal::size().unwrap_or((columns, rows)))?;
                    Turn::Show
                }
                _ => Turn::Show,
            };
        }
        match turn {
            Turn::Show => {}
            Turn::Leave => break,
            Turn::Shell => {
                drop(screen.take());
                terminal::shell();
                // Ctrl-C at the shell was the shell's.
                signals.was_interrupted();
                screen = Some(Screen::take()?);
                shown = open(terminal::size().unwrap_or(terminal::LEAST))?;
            }
        }
    }
    drop(screen);
    console.finish();
    Ok(())
}

/// What the terminal can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Whether only ASCII may be drawn.
    pub(crate) ascii: bool,
    /// Whether there are colours.
    pub(crate) colour: bool,
}

type Shown = Terminal<CrosstermBackend<Stdout>>;

/// Draws on all of the terminal, from nothing.
fn open((columns, rows): (u16, u16)) -> io::Result<Shown> {
    let viewport = Viewport::Fixed(Rect::new(0, 0, columns, rows));
    // Terminal::clear asks where the cursor is, and not every terminal answers.
    execute!(stdout(), Clear(ClearType::All))?;
    Terminal::with_options(CrosstermBackend::new(stdout()), TerminalOptions { viewport })
}

fn press(console: &mut Console, view: &mut View, key: KeyEvent, shown: &mut Shown) -> io::Result<Turn> {
    if key.kind == KeyEventKind::Release {
        return Ok(Turn::Show);
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let key = match key.code {
        KeyCode::F(2) => return Ok(Turn::Shell),
        KeyCode::Char('!') if !view.is_typing() => return Ok(Turn::Shell),
        // Kernel messages may have been written over it.
        KeyCode::Char('l') if control => {
            *shown = open(terminal::size().unwrap_or(terminal::LEAST))?;
            return Ok(Turn::Show);
        }
        KeyCode::Esc => Key::Back,
        KeyCode::Char('c' | 'g') if control => Key::Back,
        KeyCode::Char('u') if control => Key::Clear,
        KeyCode::Char('h') if control => Key::Erase,
        KeyCode::Char('n') if control => Key::Down,
        KeyCode::Char('p') if control => Key::Up,
        KeyCode::Char('j' | 'm') if control => Key::Enter,
        KeyCode::Enter => Key::Enter,
        KeyCode::Up => Key::Up,
        KeyCode::Down | KeyCode::Tab => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::First,
        KeyCode::End => Key::Last,
        KeyCode::Backspace => Key::Erase,
        KeyCode::Char(letter) if !control => Key::Letter(letter),
        _ => return Ok(Turn::Show),
    };
    Ok(view.press(key).map_or(Turn::Show, |answer| console.answer(answer)))
}
