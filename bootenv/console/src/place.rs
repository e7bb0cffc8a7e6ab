//! Where the console runs: the rescue environment or not, what the medium was told, what the mainboard calls itself.

use crate::known::{Known, Making, Place};
use crate::share::Share;
use crate::terminal;
use bootenv_init::Settings;
use std::path::Path;

/// There only in the rescue environment.
const RELEASE: &str = "/etc/halfhour/release";
/// What mainboards without a serial number are sold with.
const NO_SERIAL: [&str; 6] =
    ["", "none", "not specified", "system serial number", "to be filled by o.e.m.", "default string"];

/// What is known before anything is asked, and whether lines are wanted instead of a screen.
pub(crate) fn known(settings: &Path) -> (Known, bool) {
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let (settings, trouble) = match bootenv_init::gather(settings, &command_line) {
        Ok(settings) => (settings, None),
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            (Settings::default(), Some(format!("the medium's settings are not used: {error}{cause}")))
        }
    };
    let manner = |name: &str, value: &Option<String>| value.clone().map(|value| [name.to_owned(), value]);
    let manners = [manner("--patience", &settings.patience), manner("--limit", &settings.limit)];
    let place = Place {
        release: std::fs::read_to_string(RELEASE).ok().map(|text| text.trim().to_owned()),
        ascii: terminal::is_ascii(),
        hardware: hardware(&|name| std::fs::read_to_string(Path::new("/sys/class/dmi/id").join(name)).ok()),
        trouble,
        manners: manners.into_iter().flatten().flatten().collect(),
    };
    let making = Making { machine: settings.machine.clone().unwrap_or_default(), ..Making::default() };
    let known = Known { place, share: Share::of(&settings), making, ..Known::default() };
    (known, settings.plain)
}

/// A name by product and serial number, as SMBIOS tells them.
fn hardware(read: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let told = |name: &str| {
        let text = read(name)?.trim().to_owned();
        (!NO_SERIAL.contains(&text.to_ascii_lowercase().as_str())).then_some(text)
    };
    match (told("product_name"), told("product_serial")) {
        (Some(product), Some(serial)) => Some(format!("{product}-{serial}")),
        (product, serial) => product.or(serial),
    }
}

#[cfg(test)]
mod tests {
    use super::{hardware, known};
    use std::io::Write;

    #[test]
    fn what_the_medium_was_told_is_where_questions_begin() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"repo = \"/mnt\"\ntoken = \"t\"\nmachine = \"web1\"\nlimit = \"5M\"\nplain = true\n")
            .expect("writing");
        let (known, plain) = known(file.path());
        assert_eq!((known.share.place(), known.making.machine.as_str(), plain), ("/mnt", "web1", true));
        assert_eq!(known.place.manners, ["--limit", "5M"]);
    }

    #[test]
    fn wrong_settings_are_said_and_the_console_comes_all_the_same() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"repo = \n").expect("writing");
        let trouble = known(file.path()).0.place.trouble.expect("it is said");
        assert!(trouble.contains("line 1"), "{trouble}");
    }

    #[test]
    fn a_mainboard_is_called_by_what_it_says() {
        let board = |product: &'static str, serial: &'static str| {
            hardware(&move |name| Some(if name == "product_name" { product } else { serial }.to_owned()))
        };
        assert_eq!(board("R640\n", "ABC1").as_deref(), Some("R640-ABC1"));
        assert_eq!(board("R640", "To be filled by O.E.M.").as_deref(), Some("R640"));
        assert_eq!(board("None", ""), None);
    }
}
