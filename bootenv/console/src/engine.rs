//! Doing what the console's states ask for, on threads, so that the terminal never waits.

use crate::app::Ticket;
use crate::child::{self, Stop};
use crate::effect::{Effect, News};
use crate::finding;
use crate::lock::{self, Lock};
use crate::network;
use crate::order::{Order, Presence};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often the other console is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// So much of a log is shown.
const LOG_LINES: usize = 500;

/// What the machine has for the console.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    /// The `imager` program.
    pub(crate) imager: PathBuf,
    /// The disks, where somebody named them; otherwise all that the kernel knows.
    pub(crate) disks: Vec<PathBuf>,
    /// Where the lock and the log are.
    pub(crate) state: PathBuf,
}

/// Whoever does it.
pub(crate) struct Engine {
    means: Means,
    sender: Sender<(Ticket, News)>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// With what there is; news come from the receiver.
    pub(crate) fn new(means: Means) -> (Self, Receiver<(Ticket, News)>) {
        let (sender, receiver) = channel();
        (Self { means, sender, stop: Stop::default(), threads: Vec::new() }, receiver)
    }

    /// Begins something.
    pub(crate) fn begin(&mut self, ticket: Ticket, effect: Effect) {
        if effect == Effect::Stop {
            return self.stop.ask();
        }
        self.threads.retain(|thread| !thread.is_finished());
        self.stop = Stop::default();
        match effect {
            Effect::Run(order) => self.run(ticket, order),
            Effect::Disks(repository) => self.spawn(ticket, move |means, stop, tell| {
                let paths = if means.disks.is_empty() { finding::paths() } else { means.disks.clone() };
                let disks = finding::look(&paths, &means.imager, repository.as_deref(), stop, tell);
                tell(News::Disks(disks));
            }),
            Effect::Network => self.spawn(ticket, |_, _, tell| tell(News::Text(network::lines()))),
            Effect::Log => self.spawn(ticket, |means, _, tell| tell(News::Text(log_lines(&means.state)))),
            Effect::Others => self.spawn(ticket, |means, stop, tell| {
                while let Some(lines) = lock::others(&means.state).filter(|_| !stop.is_asked()) {
                    tell(News::Busy(lines));
                    thread::sleep(LOOK);
                }
                tell(News::Text(lock::last(&means.state)));
            }),
            Effect::Reboot => self.end(ticket, "reboot"),
            Effect::PowerOff => self.end(ticket, "poweroff"),
            // The terminal's own affairs.
            Effect::Stop | Effect::Shell | Effect::Leave => {}
        }
    }

    fn spawn(&mut self, ticket: Ticket, work: impl FnOnce(&Means, &Stop, &dyn Fn(News)) + Send + 'static) {
        let (means, stop, sender) = (self.means.clone(), self.stop.clone(), self.sender.clone());
        let tell = move |news| drop(sender.send((ticket, news)));
        let spawned =
            thread::Builder::new().name("work".to_owned()).spawn(move || work(&means, &stop, &tell));
        match spawned {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                let ended = child::not_started(Path::new("a thread"), &error);
                drop(self.sender.send((ticket, News::Ended(ended))));
            }
        }
    }

    fn tell(&self, ticket: Ticket, news: News) {
        drop(self.sender.send((ticket, news)));
    }

    fn run(&mut self, ticket: Ticket, order: Order) {
        if order.presence == Presence::Looks {
            return self.spawn(ticket, move |means, stop, tell| {
                let heard = |news| tell(news);
                match child::start(&means.imager, &order, stop) {
                    Ok(child) => listen(child, stop, &heard),
                    Err(error) => tell(News::Ended(child::not_started(&means.imager, &error))),
                }
            });
        }
        let lock = match Lock::take(&self.means.state) {
            Ok(Some(lock)) => lock,
            Ok(None) => return self.busy(ticket),
            Err(error) => {
                let ended = child::not_started(&self.means.state.join("operation"), &error);
                return self.tell(ticket, News::Ended(ended));
            }
        };
        let line = order.line();
        lock.say(&[order.what.clone(), line.clone()]);
        lock::log(&self.means.state, &line);
        let child = match lock.hand_on(|| child::start(&self.means.imager, &order, &self.stop)) {
            Ok(child) => child,
            Err(error) => {
                return self.tell(ticket, News::Ended(child::not_started(&self.means.imager, &error)));
            }
        };
        self.spawn(ticket, move |means, stop, tell| work(child, &order, &lock, (means, stop), tell));
    }

    fn busy(&self, ticket: Ticket) {
        self.tell(ticket, News::Busy(lock::last(&self.means.state)));
    }

    fn end(&mut self, ticket: Ticket, command: &'static str) {
        if lock::others(&self.means.state).is_some() {
            return self.busy(ticket);
        }
        // The first process does the rest.
        if let Err(error) = Command::new(command).spawn().and_then(|mut child| child.wait()) {
            let ended = child::not_started(Path::new(command), &error);
            self.tell(ticket, News::Ended(ended));
        }
    }

    /// Waits for what runs. Nobody is left to stop it.
    pub(crate) fn finish(self) {
        for thread in self.threads {
            // A thread that panicked has said so.
            drop(thread.join());
        }
    }
}

fn listen(child: std::process::Child, stop: &Stop, tell: &dyn Fn(News)) {
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        let attended = scope.spawn(move || child::attend(child, stop, &|news| drop(sender.send(news))));
        receiver.iter().for_each(tell);
        if let Ok(ended) = attended.join() {
            tell(News::Ended(ended));
        }
    });
}

fn work(
    child: std::process::Child,
    order: &Order,
    lock: &Lock,
    (means, stop): (&Means, &Stop),
    tell: &dyn Fn(News),
) {
    listen(child, stop, &|news| {
        match &news {
            News::Progress(progress) => {
                lock.say(&[vec![order.what.clone()], progress.words()].concat());
            }
            News::Ended(ended) => {
                let how = match ended.result() {
                    Ok(_) => format!("ended with status {}", ended.code.unwrap_or_default()),
                    Err(failure) => format!("failed: {}", failure.message),
                };
                lock.say(&[order.what.clone(), how.clone()]);
                lock::log(&means.state, &format!("{}: {how}", order.what));
            }
            _ => {}
        }
        tell(news);
    });
}

/// The rescue environment's log, or the kernel's.
fn log_lines(state: &Path) -> Vec<String> {
    let file = std::fs::File::open(lock::log_path(state));
    let lines = file.and_then(|file| BufReader::new(file).lines().collect::<io::Result<Vec<_>>>());
    let mut lines = lines.unwrap_or_default();
    let kernel =
        Command::new("dmesg").output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if let Ok(kernel) = kernel {
        lines.push("The kernel's last lines:".to_owned());
        let all: Vec<_> = kernel.lines().collect();
        let skipped = all.len().saturating_sub(LOG_LINES / 5);
        lines.extend(all.into_iter().skip(skipped).map(str::to_owned));
    }
    lines.split_off(lines.len().saturating_sub(LOG_LINES))
}
