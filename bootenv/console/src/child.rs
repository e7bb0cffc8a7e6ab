//! An `imager` that runs: its progress while it does, its object when it ends.

use crate::documents::{Ended, Progress};
use crate::effect::News;
use crate::order::{Order, Presence};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// So much of what it says beside is kept for a failure without an object.
const SAID_LINES: usize = 20;

/// How a process is stopped from another thread. What has ended is never signalled: its number may be another's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    running: Option<(Pid, Signal)>,
    is_asked: bool,
}

impl Stop {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks it to end.
    pub(crate) fn ask(&self) {
        let mut state = self.state();
        state.is_asked = true;
        state.running.iter().for_each(|(pid, signal)| end(*pid, *signal));
    }

    /// Whether somebody asked.
    pub(crate) fn is_asked(&self) -> bool {
        self.state().is_asked
    }

    fn begun(&self, child: &Child, presence: Presence) {
        // What only looks leaves nothing behind; what writes ends in order.
        let signal = if presence == Presence::Looks { Signal::SIGKILL } else { Signal::SIGTERM };
        let Ok(pid) = i32::try_from(child.id()) else { return };
        let mut state = self.state();
        state.running = Some((Pid::from_raw(pid), signal));
        if state.is_asked {
            end(Pid::from_raw(pid), signal);
        }
    }

    fn over(&self) {
        self.state().running = None;
    }
}

/// Whatever it runs itself goes with it, but where it ends in order, which it sees to. It may be just about to end.
fn end(pid: Pid, signal: Signal) {
    let _over = if signal == Signal::SIGKILL { killpg(pid, signal) } else { kill(pid, signal) };
}

/// Starts it, in a process group of its own: Ctrl-C is the console's.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn start(imager: &Path, order: &Order, stop: &Stop) -> io::Result<Child> {
    let mut command = Command::new(imager);
    command.args(order.arguments()).args(["--json", "--progress", "json"]);
    command.envs(order.share.iter().flat_map(crate::share::Share::variables));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn()?;
    stop.begun(&child, order.presence);
    Ok(child)
}

/// Waits for its end, telling what it says meanwhile.
pub(crate) fn attend(mut child: Child, stop: &Stop, tell: &(dyn Fn(News) + Sync)) -> Ended {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (object, said) = thread::scope(|scope| {
        let said = scope.spawn(|| stderr.map(|stderr| listen(stderr, tell)).unwrap_or_default());
        let mut text = String::new();
        if let Some(mut stdout) = stdout
            && let Err(error) = stdout.read_to_string(&mut text)
        {
            text = error.to_string();
        }
        let object = serde_json::from_str(&text).unwrap_or(Value::Null);
        (object, said.join().unwrap_or_default())
    });
    // Its number is its own until it is waited for, so nobody may signal it from here on.
    stop.over();
    let code = child.wait().ok().and_then(|status| status.code());
    Ended { code, object, said }
}

fn listen(stderr: ChildStderr, tell: &(dyn Fn(News) + Sync)) -> String {
    let mut said = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        match Progress::read(&line) {
            Some(progress) => tell(News::Progress(progress)),
            None => {
                said.push(line.clone());
                tell(News::Notice(line));
            }
        }
    }
    let skipped = said.len().saturating_sub(SAID_LINES);
    said.split_off(skipped).join("\n")
}

/// Runs an order that only looks, to its end.
pub(crate) fn run(imager: &Path, order: &Order, stop: &Stop) -> Ended {
    match start(imager, order, stop) {
        Ok(child) => attend(child, stop, &|_| ()),
        Err(error) => not_started(imager, &error),
    }
}

/// It could not even be started.
pub(crate) fn not_started(imager: &Path, error: &io::Error) -> Ended {
    Ended { code: None, object: Value::Null, said: format!("{} cannot be run: {error}", imager.display()) }
}

#[cfg(test)]
mod tests {
    use super::{Stop, attend, run, start};
    use crate::effect::News;
    use crate::order::{Order, Presence};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::Mutex;

    fn script(folder: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = folder.path().join("imager");
        let mut file = std::fs::File::create(&path).expect("a file");
        write!(file, "#!/bin/sh\n{text}\n").expect("writing");
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).expect("a script");
        path
    }

    #[test]
    fn what_it_says_arrives_and_its_object_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let text =
            r#"echo '{"phase":"restore","done_bytes":1}' >&2; echo careful >&2; echo '{"a":1}'; exit 2"#;
        let imager = script(&folder, text);
        let (order, stop, heard) = (Order::look("", &["x"], None), Stop::default(), Mutex::new(Vec::new()));
        let child = start(&imager, &order, &stop).expect("it starts");
        let ended = attend(child, &stop, &|news| heard.lock().expect("a list").push(news));
        assert_eq!((ended.code, ended.object["a"].as_u64()), (Some(2), Some(1)));
        let heard = heard.into_inner().expect("a list");
        assert!(matches!(heard.as_slice(), [News::Progress(_), News::Notice(line)] if line == "careful"));
    }

    #[test]
    fn it_is_stopped_in_order_even_when_that_is_asked_too_early() {
        let folder = tempfile::tempdir().expect("a folder");
        let imager = script(&folder, "trap 'echo {}; exit 130' TERM; sleep 60 & wait");
        let order = Order { presence: Presence::Looks, ..Order::look("", &[], None) };
        let stop = Stop::default();
        stop.ask();
        assert_eq!(run(&imager, &order, &stop).code, None, "what only looks is ended at once");
        let imager =
            script(&folder, "trap 'echo {}; exit 130' TERM; echo go >&2; while :; do sleep 0.1; done");
        let (order, stop) = (Order { presence: Presence::Works, ..order }, Stop::default());
        let child = start(&imager, &order, &stop).expect("it starts");
        let ended = attend(child, &stop, &|news| {
            if matches!(news, News::Notice(line) if line == "go") {
                stop.ask();
            }
        });
        assert_eq!(ended.code, Some(130), "what writes ends as it sees fit");
        let missing = run(&folder.path().join("none"), &order, &Stop::default());
        assert!(missing.result().expect_err("it failed").message.contains("cannot be run"));
    }
}
