//! Showing progress: bytes, rate, what is left, and which stage everything waits for.

use super::args::{Global, Progress};
use super::failure;
use super::output::tell;
use imager::monitor::{Monitor, Stage};
use imager_units::{ByteLen, Error};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use netshare_store::Watch;
use netshare_store::retry::spell;
use serde_json::json;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often a line is printed.
const EVERY: Duration = Duration::from_secs(3);

/// The bar of this process, and whether it was asked to stop: there is one terminal and one set of signals.
static THIS: OnceLock<(ProgressBar, Arc<AtomicBool>)> = OnceLock::new();

/// A monitor for people and scripts, stopped by SIGINT and SIGTERM.
pub(crate) struct Shown {
    how: Progress,
    bar: ProgressBar,
    state: Mutex<Phase>,
    done: AtomicU64,
    spent: [AtomicU64; 4],
    stop: Arc<AtomicBool>,
}

struct Phase {
    what: String,
    total: Option<ByteLen>,
    started: Instant,
    shown: Instant,
}

/// What was asked to stop has stopped; what is still to be done can be stopped by another signal.
pub(crate) fn has_stopped() {
    if let Some((_, stop)) = THIS.get() {
        stop.store(false, Ordering::Relaxed);
    }
}

impl Shown {
    /// A monitor as the command line asks.
    pub(crate) fn new(global: &Global) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let how =
            if global.progress == Progress::Auto && !on_terminal { Progress::None } else { global.progress };
        let target = match how {
            Progress::Auto => ProgressDrawTarget::stderr_with_hz(4),
            _ => ProgressDrawTarget::hidden(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // A second signal ends the process at once; whatever is half done is never published.
            let again = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
            let first = signal_hook::flag::register(signal, Arc::clone(&stop));
            if let Err(error) = again.and(first) {
                tracing::warn!("signal {signal} will end the program at once: {error}");
            }
        }
        let now = Instant::now();
        let phase = Phase { what: String::new(), total: None, started: now, shown: now };
        let bar = ProgressBar::with_draw_target(None, target);
        drop(THIS.set((bar.clone(), Arc::clone(&stop))));
        Self { how, bar, state: Mutex::new(phase), done: AtomicU64::new(0), spent: Default::default(), stop }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Phase> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stage that took most of the workers' time.
    fn bottleneck(&self) -> &'static str {
        let names = ["disk", "processor", "share", "disk"];
        let times = self.spent.iter().map(|time| time.load(Ordering::Relaxed));
        names.into_iter().zip(times).max_by_key(|(_, time)| *time).map_or("", |(name, _)| name)
    }

    fn line(&self, phase: &Phase) {
        let done = ByteLen::new(self.done.load(Ordering::Relaxed));
        let seconds = phase.started.elapsed().as_secs_f64().max(0.001);
        let rate = done.get() as f64 / seconds;
        let left = phase.total.map(|total| total.saturating_sub(done).get() as f64 / rate.max(1.0));
        if self.how == Progress::Json {
            let line = json!({
                "phase": phase.what, "done_bytes": done.get(), "total_bytes": phase.total.map(ByteLen::get),
                "bytes_per_second": rate.round(), "eta_seconds": left.map(f64::round),
                "bottleneck": self.bottleneck(),
            });
            tell(line);
        } else {
            let total = phase.total.map_or(String::new(), |total| format!(" of {total}"));
            let left = left.map_or(String::new(), |left| format!(", {left:.0} s left"));
            let rate = format!("{:.0} MB/s", rate / 1e6);
            let waits = self.bottleneck();
            tell(format!("{}: {done}{total}, {rate}{left}, waiting for the {waits}", phase.what));
        }
    }
}

impl Monitor for Shown {
    fn phase(&self, what: &str, total: Option<ByteLen>) {
        let mut phase = self.state();
        let now = Instant::now();
        *phase = Phase { what: what.to_owned(), total, started: now, shown: now };
        self.done.store(0, Ordering::Relaxed);
        let template = "{msg} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec}, {eta} left, {prefix}";
        if let (Some(total), Ok(style)) = (total, ProgressStyle::with_template(template)) {
            self.bar.set_style(style);
            self.bar.set_length(total.get());
        }
        self.bar.set_position(0);
        self.bar.set_message(what.to_owned());
    }

    fn advance(&self, done: ByteLen) {
        self.done.fetch_add(done.get(), Ordering::Relaxed);
        self.bar.inc(done.get());
        if matches!(self.how, Progress::Plain | Progress::Json) {
            let mut phase = self.state();
            if phase.shown.elapsed() >= EVERY {
                phase.shown = Instant::now();
                self.line(&phase);
            }
        } else if self.how == Progress::Auto {
            self.bar.set_prefix(format!("waiting for the {}", self.bottleneck()));
        }
    }

    fn spent(&self, stage: Stage, time: Duration) {
        let index = match stage {
            Stage::Read => 0,
            Stage::Compute => 1,
            Stage::Share => 2,
            Stage::Write => 3,
        };
        if let Some(total) = self.spent.get(index) {
            total.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    fn notice(&self, message: &str) {
        self.bar.suspend(|| tell(message));
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Who waits for a share that does not answer: the person at the terminal, or the script that reads the lines.
#[derive(Debug)]
pub(crate) struct Waiting(Progress);

impl Waiting {
    /// As the command line asks.
    pub(crate) fn new(global: &Global) -> Self {
        Self(global.progress)
    }

    fn say(&self, line: &str) {
        match THIS.get() {
            Some((bar, _)) => bar.suspend(|| tell(line)),
            None => tell(line),
        }
    }
}

impl Watch for Waiting {
    fn cancelled(&self) -> bool {
        THIS.get().is_some_and(|(_, stop)| stop.load(Ordering::Relaxed))
    }

    fn waiting(&self, error: &Error, left: Duration) {
        let why = failure::chain(error);
        if self.0 == Progress::Json {
            let line = json!({ "phase": "waiting for the share", "error": why, "patience_left_seconds": left.as_secs() });
            self.say(&line.to_string());
        } else {
            self.say(&format!("the share does not answer, trying again for {}: {why}", spell(left)));
        }
    }

    fn answered(&self) {
        if self.0 == Progress::Json {
            self.say(&json!({ "phase": "the share answers again" }).to_string());
        } else {
            self.say("the share answers again");
        }
    }
}
