//! Drawing a page: title, text, question, the command, the keys. No boxes: they cost a serial line time and say nothing.

use super::Look;
use super::view::View;
use crate::page::{Ask, Item, Line, Page, Tone, printable};
use crate::wrap::wrap;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Row, Span};
use ratatui::widgets::{Clear, Paragraph};
use std::ops::Range;

/// The command takes no more lines than this.
const COMMAND_LINES: usize = 3;

/// Draws the page of `view`.
pub(crate) fn draw(frame: &mut Frame<'_>, view: &mut View, look: Look) {
    let area = frame.area();
    frame.render_widget(Clear, area);
    let Some(page) = view.page.clone() else { return };
    let width = usize::from(area.width);
    let (command, keys) = (command(&page, width), keys(&page));
    let foot = height(command.len().saturating_add(2));
    let body = Rect { y: 1, height: area.height.saturating_sub(1).saturating_sub(foot), ..area };
    put(frame, Rect { height: 1, ..area }, vec![title(&page, width)]);
    draw_body(frame, body, &page, view, look);
    let mut rows = vec![rule(width, look)];
    rows.extend(command);
    rows.push(Row::styled(keys, dim()));
    put(frame, Rect { y: body.bottom(), height: foot, ..area }, rows);
}

fn draw_body(frame: &mut Frame<'_>, area: Rect, page: &Page, view: &mut View, look: Look) {
    let width = usize::from(area.width).saturating_sub(2).max(10);
    let text: Vec<_> = page.text.iter().flat_map(|line| text_rows(line, width, look)).collect();
    let (question, focus) = question(page, view, width, look);
    let room = usize::from(area.height).saturating_sub(1);
    // The question is never crowded out by the text, nor the text by a long list.
    let least = question.len().min(room / 2);
    let text_height = text.len().min(room.saturating_sub(least)).min(if question.len() > room / 2 {
        room / 2
    } else {
        room
    });
    let question_height = room.saturating_sub(text_height);
    view.scroll_most = text.len().saturating_sub(text_height);
    view.scroll = view.scroll.min(view.scroll_most);
    let is_more = view.scroll < view.scroll_most;
    let at = |y: usize, rows: usize| Rect {
        x: area.x.saturating_add(1),
        y: area.y.saturating_add(height(y)),
        width: area.width.saturating_sub(2),
        height: height(rows),
    };
    put(frame, at(0, text_height), text.into_iter().skip(view.scroll).collect());
    if is_more || view.scroll > 0 {
        let more = if is_more { "-- more: PgDn --" } else { "-- the end; PgUp goes back --" };
        put(frame, at(text_height, 1), vec![Row::styled(more, dim().add_modifier(Modifier::BOLD))]);
    }
    // The item under the cursor is seen whole, with a line of what follows where there is room.
    let last = focus.end.saturating_add(1).min(question.len());
    let skipped = last.saturating_sub(question_height).min(focus.start);
    put(
        frame,
        at(text_height.saturating_add(1), question_height),
        question.into_iter().skip(skipped).collect(),
    );
}

fn put(frame: &mut Frame<'_>, area: Rect, rows: Vec<Row<'static>>) {
    let area = area.intersection(frame.area());
    frame.render_widget(Paragraph::new(rows), area);
}

fn height(rows: usize) -> u16 {
    u16::try_from(rows).unwrap_or(u16::MAX)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn title(page: &Page, width: usize) -> Row<'static> {
    let text = format!(" Halfhour   {}", page.title);
    let text: String = text.chars().chain(std::iter::repeat(' ')).take(width).collect();
    Row::styled(text, Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD))
}

fn rule(width: usize, look: Look) -> Row<'static> {
    Row::styled(if look.ascii { "-" } else { "\u{2500}" }.repeat(width), dim())
}

fn text_rows(line: &Line, width: usize, look: Look) -> Vec<Row<'static>> {
    let style = match line.tone {
        Tone::Plain => Style::new(),
        Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
        Tone::Warning if look.colour => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
        Tone::Warning => Style::new().add_modifier(Modifier::BOLD),
        Tone::Quiet => dim(),
    };
    wrap(&line.text, width).into_iter().map(|row| Row::styled(row, style)).collect()
}

/// The rows of what is asked, and which of them must be seen.
fn question(page: &Page, view: &View, width: usize, look: Look) -> (Vec<Row<'static>>, Range<usize>) {
    match &page.ask {
        Ask::Choose { items, .. } => choice(items, view.cursor, width),
        Ask::Type { label, value, secret } => (field(label, value, *secret, view, width, look), 0..0),
        Ask::Wait { done, .. } => {
            let rows = done.map(|(done, total)| Row::raw(gauge(done, total, width, look)));
            (rows.into_iter().collect(), 0..0)
        }
    }
}

fn choice(items: &[Item], cursor: usize, width: usize) -> (Vec<Row<'static>>, Range<usize>) {
    let (mut rows, mut focus) = (Vec::new(), 0..0);
    for (index, item) in items.iter().enumerate() {
        let is_here = index == cursor;
        let start = rows.len();
        let style = match (&item.refused, is_here) {
            (Some(_), _) => dim(),
            (None, true) => Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD),
            (None, false) => Style::new(),
        };
        let mark = if is_here { "> " } else { "  " };
        for (number, text) in wrap(&item.text, width.saturating_sub(3)).into_iter().enumerate() {
            let mark = if number == 0 { mark } else { "  " };
            rows.push(Row::from(vec![Span::raw(mark), Span::styled(text, style)]));
        }
        let why = item.refused.as_ref().map(|why| format!("not possible: {why}"));
        for more in why.into_iter().chain((!item.detail.is_empty()).then(|| item.detail.clone())) {
            rows.extend(wrap(&format!("    {more}"), width).into_iter().map(|row| Row::styled(row, dim())));
        }
        if is_here {
            focus = start..rows.len();
        }
    }
    (rows, focus)
}

fn field(label: &str, value: &str, secret: bool, view: &View, width: usize, look: Look) -> Vec<Row<'static>> {
    let typed = printable(&view.typed, look.ascii);
    let shown = match (secret, view.typed.is_empty(), value.is_empty()) {
        (true, true, false) => "(as before)".to_owned(),
        (true, _, _) => "*".repeat(view.typed.chars().count()),
        (false, _, _) => typed,
    };
    // Broken where the line ends: what is typed has no words.
    let letters: Vec<_> = format!("{label}: {shown}_").chars().collect();
    let rows = letters.chunks(width).map(|row| row.iter().collect::<String>());
    rows.map(|row| Row::styled(row, Style::new().add_modifier(Modifier::BOLD))).collect()
}

fn gauge(done: u64, total: u64, width: usize, look: Look) -> String {
    let (full, empty) = if look.ascii { ('#', '.') } else { ('\u{2588}', '\u{2591}') };
    let parts =
        |of: u64| u64::try_from(u128::from(done.min(total)) * u128::from(of) / u128::from(total.max(1)));
    let room = width.saturating_sub(8);
    let filled =
        u64::try_from(room).ok().and_then(|room| parts(room).ok()).and_then(|n| usize::try_from(n).ok());
    let filled = filled.unwrap_or(0);
    let bar: String = std::iter::repeat_n(full, filled)
        .chain(std::iter::repeat_n(empty, room.saturating_sub(filled)))
        .collect();
    format!("{bar} {:>3} %", parts(100).unwrap_or(0))
}

fn command(page: &Page, width: usize) -> Vec<Row<'static>> {
    let Some(command) = &page.command else { return Vec::new() };
    let mut rows = wrap(&format!("$ {command}"), width);
    if rows.len() > COMMAND_LINES {
        rows.truncate(COMMAND_LINES);
        if let Some(last) = rows.last_mut() {
            *last = format!("{} ...", last.chars().take(width.saturating_sub(4)).collect::<String>());
        }
    }
    rows.into_iter().map(|row| Row::styled(row, dim())).collect()
}

fn keys(page: &Page) -> String {
    match &page.ask {
        Ask::Choose { .. } => {
            "Enter choose   Esc back   F2 shell   PgUp/PgDn text   Ctrl-L redraw".to_owned()
        }
        Ask::Type { .. } => "Enter go on   Esc back   Ctrl-U clear   F2 shell   PgUp/PgDn text".to_owned(),
        Ask::Wait { stop: Some(stop), .. } => format!("Esc {stop}   F2 shell   Ctrl-L redraw"),
        Ask::Wait { stop: None, .. } => "F2 shell   Ctrl-L redraw".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{draw, field};
    use crate::flows;
    use crate::full::Look;
    use crate::full::view::View;
    use crate::page::{Item, Line, Page};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn picture(page: Page, (columns, rows): (u16, u16), ascii: bool) -> String {
        let mut view = View::default();
        view.take(1, page);
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a screen");
        terminal.draw(|frame| draw(frame, &mut view, Look { ascii, colour: false })).expect("it draws");
        let buffer = terminal.backend().buffer().clone();
        let width = usize::from(columns);
        let rows = buffer.content().chunks(width);
        let rows = rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
        rows.map(|row| format!("{}\n", row.trim_end())).collect()
    }

    /// `HALFHOUR_BLESS=1 cargo test -p bootenv-console` makes the pictures of the README anew.
    fn assert_is(name: &str, picture: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("screens").join(name);
        if std::env::var_os("HALFHOUR_BLESS").is_some() {
            std::fs::write(&path, picture).expect("a picture");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(picture, kept, "{name} differs");
    }

    #[test]
    fn the_pictures_of_the_readme_are_what_is_drawn() {
        for (name, page) in flows::pictures() {
            assert_is(name, &picture(page, (80, 24), false));
        }
    }

    #[test]
    fn the_readme_shows_the_plan_as_it_is_drawn() {
        let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |name: &str| std::fs::read_to_string(project.join(name)).expect("a file");
        let indented: Vec<_> = read("screens/plan.txt").lines().map(|line| format!("    {line}")).collect();
        let indented: Vec<_> = indented.iter().map(|line| line.trim_end()).collect();
        assert!(read("../../README.md").contains(&indented.join("\n")), "copy screens/plan.txt");
    }

    #[test]
    fn ascii_terminals_get_ascii() {
        for (name, page) in flows::pictures() {
            let drawn = picture(page.printable(true), (80, 24), true);
            assert!(drawn.is_ascii(), "{name}: {drawn}");
        }
    }

    #[test]
    fn every_size_is_drawn_and_the_question_is_always_there() {
        let text: Vec<_> = (0..99).map(|number| Line::plain(format!("line {number}"))).collect();
        let items: Vec<_> = (0..99).map(|number| Item::new(format!("item {number}")).with("more")).collect();
        for size in [(80, 24), (80, 10), (200, 60), (30, 8)] {
            let drawn = picture(Page::choose("title", text.clone(), items.clone()), size, false);
            assert!(drawn.contains("line 0") && drawn.contains("> item 0"), "{drawn}");
        }
        for size in [(1, 1), (5, 3), (80, 2)] {
            picture(Page::choose("title", text.clone(), items.clone()), size, false);
        }
    }

    #[test]
    fn a_secret_is_never_drawn() {
        let mut view = View::default();
        view.typed.push_str("hush");
        let look = Look { ascii: false, colour: true };
        let rows = format!("{:?}", field("Token", "before", true, &view, 78, look));
        assert!(rows.contains("****") && !rows.contains("hush") && !rows.contains("before"), "{rows}");
    }
}
