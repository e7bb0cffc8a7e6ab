//! Breaking text into lines of a width, with the indent that it has.

/// The lines; at least one. Words that are too long are broken.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let indent: String = text.chars().take_while(|letter| *letter == ' ').take(width / 2).collect();
    let mut lines = Vec::new();
    let mut line = indent.clone();
    let mut len = indent.len();
    let mut is_empty = true;
    // Runs of spaces inside stay: they line columns up.
    for word in text.trim_start_matches(' ').split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let gap = usize::from(!is_empty);
        // A word that fits on no line begins where it stands.
        let fits_below = indent.len().saturating_add(2).saturating_add(word.len()) <= width;
        let fits_here = len.saturating_add(gap).saturating_add(word.len()) <= width;
        let has_room = len.saturating_add(gap).saturating_add(1) < width;
        if !is_empty && !fits_here && (fits_below || !has_room) {
            lines.push(std::mem::replace(&mut line, format!("{indent}  ")));
            len = indent.len().saturating_add(2);
        } else if gap == 1 {
            line.push(' ');
            len = len.saturating_add(1);
        }
        while len.saturating_add(word.len()) > width.max(len.saturating_add(1)) {
            let rest = word.split_off(width.saturating_sub(len).clamp(1, word.len()));
            line.extend(&word);
            lines.push(std::mem::replace(&mut line, format!("{indent}  ")));
            len = indent.len().saturating_add(2);
            word = rest;
        }
        len = len.saturating_add(word.len());
        line.extend(&word);
        is_empty = false;
    }
    lines.push(line);
    lines.iter_mut().for_each(|line| line.truncate(line.trim_end().len()));
    lines
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn text_is_broken_at_words_and_keeps_its_indent() {
        assert_eq!(wrap("one two three", 8), ["one two", "  three"]);
        assert_eq!(wrap("  one two three", 10), ["  one two", "    three"]);
        assert_eq!(wrap("a    b", 20), ["a    b"]);
        assert_eq!(wrap("URL: https://host/default", 12), ["URL: https:/", "  /host/defa", "  ult"]);
        assert_eq!(wrap("", 20), [""]);
    }

    #[test]
    fn nothing_is_lost_and_no_line_is_too_long() {
        let text = format!("  https://host/{} and {} end", "x".repeat(200), "größe".repeat(20));
        for width in [1, 2, 10, 40, 79] {
            let lines = wrap(&text, width);
            let letters = |text: &str| text.chars().filter(|letter| *letter != ' ').collect::<String>();
            assert_eq!(letters(&lines.concat()), letters(&text), "{width}");
            if width >= 10 {
                assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:?}");
            }
        }
    }
}
