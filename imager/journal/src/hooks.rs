//! Programs of the administrator that run before a freeze and after the thaw, such as one that has a database write
//! everything back.
//!
//! They lie in a folder, run one after the other in the order of their names before, and in the reverse order after, with
//! the phase as their argument and what is captured as JSON on standard input. One that fails before the freeze, or takes
//! too long, ends the capture; whoever ran before the freeze runs after it, whatever happened in between. They run as
//! the capture does, so one that others may change is refused.

mod run;

use imager_units::{Context, Error, ErrorKind, Result};
use serde_json::{Map, Value};
use std::fs::{self, Metadata};
use std::io::ErrorKind as Os;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where they lie.
pub const HOOKS_FOLDER: &str = "/etc/halfhour/hooks.d";
/// How long each may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What became of a capture, as the hooks are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was held still and copied.
    Frozen,
    /// It was not.
    Failed,
}

/// The programs of a folder.
#[derive(Clone, Debug)]
pub struct Hooks {
    programs: Vec<PathBuf>,
    timeout: Duration,
}

impl Hooks {
    /// Those in `folder`; none where there is no such folder.
    ///
    /// # Errors
    /// `Denied` when the folder or a program in it may be changed by others; `Io` when it cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut programs = Vec::new();
        for path in entries(folder)? {
            let metadata = fs::metadata(&path).context(|| format!("looking at {}", path.display()))?;
            if metadata.is_file() && metadata.mode() & 0o111 != 0 {
                refuse_others(&path, &metadata)?;
                programs.push(path);
            }
        }
        programs.sort();
        Ok(Self { programs, timeout: TIMEOUT })
    }

    /// The same with another limit to how long each may take.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// Runs them before a freeze. `facts` say what is captured: `machine`, `volumes`.
    ///
    /// # Errors
    /// `Denied` when one failed, with its last words, or took too long: then those that ran have run again, for after.
    pub fn before(&self, facts: Map<String, Value>) -> Result<Ran<'_>> {
        let mut ran = Ran { programs: Vec::new(), facts, timeout: self.timeout };
        for program in &self.programs {
            ran.programs.push(program);
            if let Err(error) =
                run::run(program, "before-freeze", &ran.told("before-freeze", None), self.timeout)
            {
                for problem in ran.after(Outcome::Failed) {
                    tracing::warn!("{problem}");
                }
                return Err(error.within("a hook ended the capture"));
            }
        }
        Ok(ran)
    }
}

/// Hooks that ran before a freeze. They run after it when this is dropped, at the latest.
#[derive(Debug)]
pub struct Ran<'h> {
    programs: Vec<&'h Path>,
    facts: Map<String, Value>,
    timeout: Duration,
}

impl Ran<'_> {
    /// Runs them after the thaw; what went wrong with any.
    pub fn after(mut self, outcome: Outcome) -> Vec<String> {
        self.finish(outcome)
    }

    fn finish(&mut self, outcome: Outcome) -> Vec<String> {
        let told = self.told("after-thaw", Some(outcome));
        let programs = std::mem::take(&mut self.programs).into_iter().rev();
        let run = |program| run::run(program, "after-thaw", &told, self.timeout);
        programs.filter_map(|program| run(program).err()).map(|error| chain(&error)).collect()
    }

    fn told(&self, phase: &str, outcome: Option<Outcome>) -> Value {
        let mut told = self.facts.clone();
        told.insert("phase".to_owned(), phase.into());
        if let Some(outcome) = outcome {
            let outcome = if outcome == Outcome::Frozen { "frozen" } else { "failed" };
            told.insert("outcome".to_owned(), outcome.into());
        }
        Value::Object(told)
    }
}

impl Drop for Ran<'_> {
    fn drop(&mut self) {
        for problem in self.finish(Outcome::Failed) {
            tracing::warn!("{problem}");
        }
    }
}

/// What may be a hook: not what editors and package managers leave behind.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let say = || format!("reading {}", folder.display());
    let metadata = match fs::metadata(folder) {
        Err(error) if error.kind() == Os::NotFound => return Ok(Vec::new()),
        metadata => metadata.context(say)?,
    };
    refuse_others(folder, &metadata)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).context(say)? {
        let entry = entry.context(say)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_leftover = name.starts_with('.') || name.ends_with('~') || name.contains(".dpkg-");
        found.extend((!is_leftover).then(|| entry.path()));
    }
    Ok(found)
}

/// Refuses what somebody may change who could not do himself what a hook may.
fn refuse_others(path: &Path, metadata: &Metadata) -> Result<()> {
    let ours = [0, nix::unistd::geteuid().as_raw()].contains(&metadata.uid());
    if ours && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let what = format!("{} may be changed by others, and is not run", path.display());
    Err(Error::new(ErrorKind::Denied, what))
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests;
