//! What `imager --json` says, read with patience: a field that is not there is empty, because a newer `imager` may say
//! more and an older one less.

pub(crate) mod captures;
pub(crate) mod inspected;
pub(crate) mod manifest;
pub(crate) mod plan;
mod progress;

pub(crate) use progress::Progress;
use serde_json::Value;

/// How an `imager` command ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ended {
    /// Its exit status; `None` when a signal ended it or it could not be started.
    pub(crate) code: Option<i32>,
    /// The object it printed.
    pub(crate) object: Value,
    /// The last lines it said beside.
    pub(crate) said: String,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Its exit status.
    pub(crate) code: Option<i32>,
    /// The chain of causes.
    pub(crate) message: String,
    /// What `imager` advises.
    pub(crate) advice: String,
}

/// Exit status 10: there is no repository.
pub(crate) const NO_REPOSITORY: i32 = 10;
/// Exit status 12: a wrong token, password or passphrase, or none.
pub(crate) const WRONG_SECRET: i32 = 12;
/// Exit status 4: refused for safety.
pub(crate) const REFUSED: i32 = 4;
/// Exit status 5: the share is away; what was begun continues when it is run again.
pub(crate) const LOST: i32 = 5;
/// Exit status 130: stopped.
pub(crate) const STOPPED: i32 = 130;

impl Ended {
    /// What it found, or why it failed.
    ///
    /// # Errors
    /// The failure in `imager`'s words, or what it said last.
    pub(crate) fn result(&self) -> Result<&Value, Failure> {
        let error = &self.object["error"];
        if self.object.is_object() && error.is_null() && self.code.is_some() {
            return Ok(&self.object);
        }
        let mut message = text(error, "message");
        if message.is_empty() {
            let how =
                self.code.map_or_else(|| "was ended".to_owned(), |code| format!("ended with status {code}"));
            let said = self.said.trim();
            message = if said.is_empty() { format!("imager {how}") } else { format!("imager {how}: {said}") };
        }
        Err(Failure { code: self.code, message, advice: text(error, "advice") })
    }
}

/// A text, empty where there is none.
pub(crate) fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

/// A text, if there is one.
pub(crate) fn some_text(object: &Value, field: &str) -> Option<String> {
    object[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A number, 0 where there is none.
pub(crate) fn number(object: &Value, field: &str) -> u64 {
    object[field].as_u64().unwrap_or(0)
}

/// The number of a disk, 0 where there is none.
pub(crate) fn disk_number(object: &Value) -> u32 {
    object["disk"].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// A list, empty where there is none.
pub(crate) fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A list of texts.
pub(crate) fn texts(object: &Value, field: &str) -> Vec<String> {
    list(object, field).iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::Ended;
    use serde_json::{Value, json};

    #[test]
    fn a_failure_is_told_in_imagers_words_or_in_what_it_said() {
        let object = json!({ "error": { "kind": "denied", "message": "no", "advice": "do" } });
        let failure =
            Ended { code: Some(4), object, said: String::new() }.result().cloned().expect_err("failed");
        assert_eq!((failure.message.as_str(), failure.advice.as_str()), ("no", "do"));
        let killed = Ended { code: None, object: Value::Null, said: "oops\n".to_owned() };
        assert!(killed.result().expect_err("killed").message.contains("oops"));
        assert!(Ended { code: Some(2), object: json!({ "a": 1 }), said: String::new() }.result().is_ok());
    }
}
