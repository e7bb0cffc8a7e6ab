//! Where settings come from: the medium's file, and over it the kernel's command line.

use crate::Settings;
use imager_units::{Context, Error, ErrorKind, Result};
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// The file on the medium.
pub const FILE: &str = "/etc/halfhour/rescue.toml";
/// What our words on the command line begin with.
const PREFIX: &str = "halfhour.";

/// The settings of this start: those of `file`, if there is one, under those of `command_line`.
///
/// # Errors
/// `Invalid` with the line or the word that is wrong; `Io` when the file cannot be read.
pub fn gather(file: &Path, command_line: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        text => {
            let say = || format!("reading {}", file.display());
            settings = parse_file(&text.context(say)?).map_err(|error| error.within(say()))?;
        }
    }
    parse_command_line(command_line, &mut settings)?;
    Ok(settings)
}

/// The settings of a file: TOML, one `name = "value"` or `name = ["value", …]` a line.
///
/// # Errors
/// `Invalid` with the number of the line that is wrong.
pub fn parse_file(text: &str) -> Result<Settings> {
    let line = |at: usize| {
        let before = text.as_bytes().get(..at).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count().saturating_add(1)
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Error::new(ErrorKind::Invalid, format!("line {}: {}", line(at), error.message()))
    })?;
    let mut settings = Settings::default();
    for (name, value) in table.get_ref() {
        let set = values(value.get_ref()).and_then(|values| settings.set(name.get_ref(), &values));
        set.map_err(|error| error.within(format!("line {}: {}", line(name.span().start), name.get_ref())))?;
    }
    Ok(settings)
}

fn values(value: &DeValue<'_>) -> Result<Vec<String>> {
    let single = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        _ => Err(Error::new(ErrorKind::Invalid, "a text, a number, true or false is expected")),
    };
    match value {
        DeValue::Array(all) => all.iter().map(|value| single(value.get_ref())).collect(),
        value => single(value).map(|value| vec![value]),
    }
}

/// Sets what the kernel's command line says: `halfhour.NAME=VALUE`, lists with commas, in double quotes what has spaces.
///
/// # Errors
/// `Invalid` with the word that is wrong.
pub fn parse_command_line(line: &str, settings: &mut Settings) -> Result<()> {
    for word in words(line) {
        let Some(word) = word.strip_prefix(PREFIX) else { continue };
        let (name, values) = match word.split_once('=') {
            Some((name, value)) if is_list(name) => (name, value.split(',').map(str::to_owned).collect()),
            Some((name, value)) => (name, vec![value.to_owned()]),
            None => (word, Vec::new()),
        };
        settings.set(name, &values).map_err(|error| error.within("the kernel's command line"))?;
    }
    Ok(())
}

fn is_list(name: &str) -> bool {
    ["target", "volume", "erase", "erase_volume", "disk", "role", "dns", "bond"].contains(&name)
}

/// The words, split as the kernel does (`next_arg` in lib/cmdline.c): a quote may begin anywhere in a word.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    for letter in line.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            _ if letter.is_whitespace() && !is_quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(letter),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

#[cfg(test)]
mod tests {
    use super::{gather, parse_command_line, parse_file};
    use crate::{After, Settings};
    use std::io::Write;

    #[test]
    fn a_file_sets_texts_lists_and_flags() {
        let text =
            "repo = \"https://h:1/d#f\"\ntarget = [\"serial:A\", \"serial:B\"]\nvlan = 7\nplain = true\n";
        let settings = parse_file(text).expect("a right file");
        assert_eq!(settings.repo.as_deref(), Some("https://h:1/d#f"));
        assert_eq!((settings.target.len(), settings.vlan, settings.plain), (2, Some(7), true));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told_with_its_line() {
        for (text, line, why) in [
            ("# first\nrepo = \n", "line 2", ""),
            ("plain = true\ntokn = \"x\"\n", "line 2", "tokn"),
            ("\n\nafter = \"never\"\n", "line 3", "reboot"),
            ("[restore]\ncapture = \"x\"\n", "line 1", "restore"),
            ("vlan = 1.5\n", "line 1", ""),
        ] {
            let error = parse_file(text).expect_err(text);
            let chain = format!("{error}: {:?}", std::error::Error::source(&error));
            assert!(chain.contains(line) && chain.contains(why), "{text:?}: {chain}");
        }
    }

    #[test]
    fn the_command_line_goes_over_the_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"repo = \"/mnt\"\nafter = \"reboot\"\n").expect("writing");
        let line =
            "quiet halfhour.after=poweroff halfhour.ssh_key=\"ssh-ed25519 AAAA me\" halfhour.plain root=x";
        let settings = gather(file.path(), line).expect("right settings");
        assert_eq!((settings.repo.as_deref(), settings.after), (Some("/mnt"), After::PowerOff));
        assert_eq!((settings.ssh_key.as_deref(), settings.plain), (Some("ssh-ed25519 AAAA me"), true));
        let none = gather(std::path::Path::new("/nonexistent/rescue.toml"), "").expect("no settings");
        assert!(none == Settings::default());
    }

    #[test]
    fn lists_on_the_command_line_have_commas() {
        let mut settings = Settings::default();
        let line =
            "halfhour.target=1=serial:A,2=wwn:B halfhour.confirm=abc halfhour.ip=192.0.2.7/24,192.0.2.1";
        parse_command_line(line, &mut settings).expect("a right line");
        assert_eq!(settings.target, ["1=serial:A", "2=wwn:B"]);
        parse_command_line("halfhour.nothing=1", &mut settings).expect_err("there is no such setting");
    }
}
