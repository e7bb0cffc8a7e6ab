//! The program, run as a person or a script runs it.

use crate::binary;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program with a repository and a state of its own, so that tests know nothing of each other.
#[derive(Clone, Debug)]
pub struct Imager {
    /// Where it keeps its state.
    pub state: PathBuf,
    /// Where the repository lies.
    pub repository: PathBuf,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// The exit status.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said beside.
    pub stderr: String,
    /// What was run.
    pub command: String,
}

impl Imager {
    /// With this state and repository.
    pub fn new(state: PathBuf, repository: PathBuf) -> Self {
        Self { state, repository, variables: Vec::new() }
    }

    /// The same with another repository.
    #[must_use]
    pub fn with_repository(&self, repository: &Path) -> Self {
        Self { repository: repository.to_owned(), ..self.clone() }
    }

    /// The same with one more variable in its environment.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.variables.push((name.to_owned(), value.to_owned()));
        other
    }

    /// The command, ready to run: nothing to ask, nothing from the caller's environment.
    pub fn command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(binary::imager());
        for name in ["PASSWORD", "PASSWORD_FILE", "PASSWORD_COMMAND", "TOKEN", "TOKEN_FILE", "LOG"] {
            command.env_remove(format!("IMAGER_{name}"));
        }
        command.env("IMAGER_STATE_DIR", &self.state).env("IMAGER_REPO", &self.repository);
        // A share that a test breaks stays broken, unless it says otherwise.
        command.env("IMAGER_PATIENCE", "0");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(arguments.iter().map(AsRef::as_ref)).stdin(Stdio::null());
        command
    }

    /// Runs it. Whatever happens, it must not panic.
    pub fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Ran {
        let output = self.command(arguments).output().expect("the program starts");
        let words: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        Ran::new(format!("imager {}", words.join(" ")), &output)
    }

    /// Runs it, expecting success.
    pub fn ok<S: AsRef<str>>(&self, arguments: &[S]) -> Ran {
        let ran = self.run(arguments);
        ran.expect_code(0);
        ran
    }

    /// Runs it with `--json`, expecting success; the object.
    pub fn json<S: AsRef<str>>(&self, arguments: &[S]) -> Value {
        self.run_json(arguments).expect_code(0).json()
    }

    /// Runs it with `--json`.
    pub fn run_json<S: AsRef<str>>(&self, arguments: &[S]) -> Ran {
        let mut with: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        with.push("--json");
        self.run(&with)
    }

    /// Runs it with `--json`, expecting a refusal or failure that explains itself. The object's `error`.
    pub fn fails<S: AsRef<str>>(&self, code: i32, arguments: &[S]) -> Value {
        let ran = self.run_json(arguments);
        ran.expect_code(code);
        let error = ran.json()["error"].clone();
        let says = |field: &str| error[field].as_str().is_some_and(|text| !text.is_empty());
        assert!(says("kind") && says("message") && says("advice"), "it does not explain itself: {ran:?}");
        println!("{}: {} ({})", ran.command, error["message"], error["advice"]);
        error
    }
}

impl Ran {
    /// What a finished process came to.
    pub fn new(command: String, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ran = Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            command,
        };
        assert!(!ran.stderr.contains("panicked at") && ran.code != 101, "it panicked: {ran:?}");
        assert!(output.status.code().is_some(), "it was killed: {:?}: {ran:?}", output.status);
        ran
    }

    /// Fails the test unless it ended so.
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{}\n{}\n{}", self.command, self.stdout, self.stderr);
        self
    }

    /// The object it printed; there must be exactly one.
    pub fn json(&self) -> Value {
        let found = serde_json::from_str(&self.stdout);
        assert!(found.is_ok(), "not one JSON object: {self:?}");
        found.expect("checked")
    }

    /// Everything it said.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}
