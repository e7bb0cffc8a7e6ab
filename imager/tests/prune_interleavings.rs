//! Captures and prunes at once, call by call: a schedule says whose call to the share comes next.
//!
//! Every way to interrupt one of them once and let the others run to their ends meanwhile is tried; two interruptions of a
//! capture and a prune by each other (all of them where `HALFHOUR_FULL` is set, else a sample); and random schedules of
//! any number. After each, every capture that is listed reads to the last byte, before and after the next prunes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod common;
mod pruned;

use common::fat::FatVolume;
use common::random::Random;
use common::{open, plain};
use imager::prune::Options;
use imager_image::manifest::Kind;
use imager_units::{ByteLen, ErrorKind, Extent, Result};
use netshare_store::{Entry, MemoryStore, ObjectName, Put, Store};
use pruned::{assert_sound, fill, last, noise, settle, take, try_capture, try_prune, try_unchanged};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Whose turn it is, and for how many calls.
struct State {
    schedule: VecDeque<(usize, usize)>,
    current: (usize, usize),
    ended: Vec<bool>,
    calls: Vec<usize>,
}

struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

impl Turns {
    fn new(actors: usize, schedule: &[(usize, usize)]) -> Arc<Self> {
        let (ended, calls) = (vec![false; actors], vec![0; actors]);
        let mut state = State { schedule: schedule.iter().copied().collect(), current: (0, 0), ended, calls };
        state.advance();
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Waits for the actor's turn; the call is made before another's turn can come.
    fn call<T>(&self, actor: usize, call: impl FnOnce() -> T) -> T {
        let mut state: MutexGuard<'_, State> = self.state.lock().unwrap();
        while state.current.0 != actor {
            state = self.changed.wait(state).unwrap();
        }
        let result = call();
        state.calls[actor] += 1;
        state.current.1 -= 1;
        if state.current.1 == 0 {
            state.advance();
            self.changed.notify_all();
        }
        result
    }

    fn end(&self, actor: usize) {
        let mut state = self.state.lock().unwrap();
        state.ended[actor] = true;
        if state.current.0 == actor {
            state.advance();
        }
        self.changed.notify_all();
    }
}

impl State {
    fn advance(&mut self) {
        while let Some((actor, calls)) = self.schedule.pop_front() {
            if !self.ended[actor] && calls > 0 {
                self.current = (actor, calls);
                return;
            }
        }
        let next = self.ended.iter().position(|ended| !ended).unwrap_or(usize::MAX);
        self.current = (next, usize::MAX);
    }
}

/// The share as one actor sees it.
struct Actor {
    number: usize,
    turns: Arc<Turns>,
    store: Arc<MemoryStore>,
}

impl Store for Actor {
    fn location(&self) -> String {
        self.store.location()
    }
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.turns.call(self.number, || self.store.put(name, bytes))
    }
    fn get(&self, name: &ObjectName) -> Result<Vec<u8>> {
        self.turns.call(self.number, || self.store.get(name))
    }
    fn get_range(&self, name: &ObjectName, part: Extent) -> Result<Vec<u8>> {
        self.turns.call(self.number, || self.store.get_range(name, part))
    }
    fn len(&self, name: &ObjectName) -> Result<Option<ByteLen>> {
        self.turns.call(self.number, || self.store.len(name))
    }
    fn list(&self, folder: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        // What is listed is as of one instant; what is done with it is not.
        let mut entries = Vec::new();
        self.turns.call(self.number, || {
            self.store.list(folder, &mut |entry| {
                entries.push(entry);
                Ok(())
            })
        })?;
        entries.into_iter().try_for_each(each)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.turns.call(self.number, || self.store.delete(name))
    }
}

/// What an actor does.
#[derive(Clone)]
enum Act {
    Capture(&'static str, Kind, Arc<FatVolume>),
    /// One that keeps what the parent has because a journal says that nothing changed.
    Journal(&'static str, Kind, Arc<FatVolume>),
    Prune(Options),
}

/// Where it starts, and who does what.
struct Scene {
    name: &'static str,
    store: MemoryStore,
    acts: Vec<Act>,
}

impl Scene {
    /// Plays it; says how many calls each made.
    fn play(&self, schedule: &[(usize, usize)]) -> Vec<usize> {
        let store = Arc::new(self.store.clone());
        let turns = Turns::new(self.acts.len(), schedule);
        std::thread::scope(|scope| {
            for (number, act) in self.acts.iter().enumerate() {
                let actor = Actor { number, turns: Arc::clone(&turns), store: Arc::clone(&store) };
                let turns = Arc::clone(&turns);
                scope.spawn(move || {
                    let done = match act {
                        Act::Capture(machine, kind, volume) => {
                            try_capture(actor, machine, volume, Some(*kind)).map(drop)
                        }
                        Act::Journal(machine, kind, volume) => {
                            try_unchanged(actor, machine, volume, Some(*kind)).map(drop)
                        }
                        Act::Prune(options) => try_prune(actor, options).map(drop),
                    };
                    turns.end(number);
                    // A capture whose lease was broken has lost; nobody else may fail.
                    let lost = |error: &imager_units::Error| error.kind() == ErrorKind::Exists;
                    assert!(done.as_ref().is_ok_and(|()| true) || done.as_ref().is_err_and(lost), "{done:?}");
                });
            }
        });
        let what = format!("{} by {schedule:?}", self.name);
        assert_sound(&store, &what);
        settle(&store);
        assert_sound(&store, &format!("{what}, settled"));
        let left = pruned::objects(&*store);
        assert!(!left.keys().any(|name| name.starts_with("trash/")), "{what}: {left:?}");
        let state = turns.state.lock().unwrap();
        state.calls.clone()
    }
}

/// A machine whose full capture is to go, of which a differential one can make use; in between, other content.
/// After `prunes` prunes, of which the first removes it.
fn scenes() -> Vec<Scene> {
    let (one, two, three) = (Arc::new(noise(1, 9)), Arc::new(noise(1, 9)), Arc::new(noise(1, 9)));
    // Of the second nothing is in packs of the first but what lies before the clusters; of the third half.
    fill(&two, 2, 2..11);
    fill(&three, 3, 5..11);
    let make = |then: &Arc<FatVolume>, prunes: u32| {
        let store = plain();
        take(Arc::clone(&store), "m", &one);
        take(Arc::clone(&store), "m", then);
        (0..prunes).for_each(|_| drop(pruned::prune(Arc::clone(&store), &last(1))));
        (*store).clone()
    };
    // Compared with the full one, which goes, and whose packs it finds sound as long as they have no tombstones.
    let differential = || Act::Capture("m", Kind::Differential, Arc::clone(&one));
    let incremental = || Act::Capture("m", Kind::Incremental, Arc::clone(&one));
    let other = || Act::Capture("n", Kind::Full, Arc::clone(&one));
    let journal = || Act::Journal("m", Kind::Differential, Arc::clone(&one));
    let prune = || Act::Prune(last(1));
    let scene =
        |name, then, prunes, acts: [Act; 3]| Scene { name, store: make(then, prunes), acts: acts.to_vec() };
    vec![
        scene("the first prune", &two, 0, [differential(), incremental(), prune()]),
        scene("one that deletes", &two, 1, [incremental(), other(), prune()]),
        scene("two prunes, the first", &two, 0, [differential(), prune(), prune()]),
        scene("two prunes, half of it", &three, 0, [differential(), prune(), prune()]),
        scene("two prunes, later", &two, 1, [incremental(), prune(), prune()]),
        scene("the first prune, by the journal", &two, 0, [journal(), incremental(), prune()]),
        scene("two prunes, by the journal", &two, 0, [journal(), prune(), prune()]),
        scene("two prunes, half of it by the journal", &three, 0, [journal(), prune(), prune()]),
        scene("one that deletes, by the journal", &two, 1, [journal(), other(), prune()]),
        scene("three prunes", &two, 0, [prune(), prune(), prune()]),
    ]
}

fn full() -> bool {
    std::env::var_os("HALFHOUR_FULL").is_some()
}

#[test]
fn every_single_interruption_leaves_every_capture_whole() {
    let mut played = 0;
    for scene in scenes() {
        let calls = scene.play(&[]);
        println!("{}: {calls:?} calls", scene.name);
        for (actor, calls) in calls.iter().enumerate() {
            let others: Vec<_> = (0..scene.acts.len()).filter(|other| *other != actor).collect();
            // At every call of a capture; those of a prune are more.
            let step = if full() || *calls < 25 { 1 } else { 5 };
            for at in (1..=*calls).step_by(step) {
                for order in [[others[0], others[1]], [others[1], others[0]]] {
                    scene.play(&[(actor, at), (order[0], usize::MAX), (order[1], usize::MAX)]);
                    // One of them ends, and then the one that was interrupted.
                    scene.play(&[(actor, at), (order[0], usize::MAX), (actor, usize::MAX)]);
                    played += 2;
                }
            }
        }
    }
    println!("{played} schedules with one interruption");
}

#[test]
fn interruptions_of_interruptions_leave_every_capture_whole() {
    let mut played = 0;
    for scene in scenes() {
        let calls = scene.play(&[]);
        let (step, then_step) = if full() { (1, 1) } else { (4, 3) };
        for (first, second) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
            for at in (1..=calls[first]).step_by(step) {
                for then in (1..=calls[second]).step_by(then_step) {
                    let third = 3 - first - second;
                    let end = usize::MAX;
                    scene.play(&[(first, at), (second, then), (first, end), (third, end)]);
                    played += 1;
                }
            }
        }
    }
    println!("{played} schedules with two interruptions");
}

#[test]
fn a_capture_with_a_whole_prune_at_any_two_of_its_calls_is_whole() {
    let (mut played, end) = (0, usize::MAX);
    for scene in scenes().into_iter().filter(|scene| scene.name.starts_with("two prunes")) {
        let calls = scene.play(&[])[0];
        for first in 0..calls {
            for second in 1..=calls - first {
                scene.play(&[(0, first), (1, end), (0, second), (2, end), (0, end)]);
                played += 1;
            }
        }
    }
    println!("{played} schedules of a capture and two prunes");
}

#[test]
fn a_hold_that_was_confirmed_holds_at_any_two_calls_of_a_prune() {
    let (start, volume) = (plain(), noise(1, 9));
    let first = take(Arc::clone(&start), "m", &volume);
    fill(&volume, 2, 2..11);
    take(Arc::clone(&start), "m", &volume);
    let play = |schedule: &[(usize, usize)]| {
        let store = Arc::new((*start).clone());
        let turns = Turns::new(2, schedule);
        let actor = |number| Actor { number, turns: Arc::clone(&turns), store: Arc::clone(&store) };
        let (pruned, held) = std::thread::scope(|scope| {
            let prune = scope.spawn(|| {
                let done = try_prune(actor(0), &last(1));
                turns.end(0);
                done
            });
            let hold = scope.spawn(|| {
                let done = open(actor(1)).and_then(|repository| imager::prune::hold(&repository, &first));
                turns.end(1);
                done
            });
            (prune.join().unwrap(), hold.join().unwrap())
        });
        let is_there = common::names(&*store, "captures").contains(&imager::captures::name_of(&first.header));
        assert_eq!(held.is_ok(), is_there, "{schedule:?}: {pruned:?}, {held:?}");
        settle(&store);
        assert_sound(&store, &format!("{schedule:?}"));
        assert_eq!(common::names(&*store, "holds").len(), usize::from(is_there), "{schedule:?}");
        let state = turns.state.lock().unwrap();
        (state.calls.clone(), is_there)
    };
    let (calls, _) = play(&[]);
    let (mut outcomes, step) = ([0, 0], if full() { 1 } else { 3 });
    for at in 0..=calls[0] {
        for some in 1..=calls[1] {
            for more in (0..=calls[0] - at).step_by(step) {
                let end = usize::MAX;
                let (_, is_there) = play(&[(0, at), (1, some), (0, more), (1, end), (0, end)]);
                outcomes[usize::from(is_there)] += 1;
            }
        }
    }
    println!("the capture went in {} schedules and was held in {}", outcomes[0], outcomes[1]);
    assert!(outcomes.iter().all(|count| *count > 0));
}

#[test]
fn random_schedules_leave_every_capture_whole() {
    let given = std::env::var("HALFHOUR_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(1);
    let mut random = Random::new(seed);
    let (scenes, count) = (scenes(), if full() { 3000 } else { 150 });
    println!("HALFHOUR_SEED={seed}, {count} schedules");
    for run in 0..count {
        let scene = &scenes[run % scenes.len()];
        let most = random.pick(&[2, 5, 20]);
        let actors = scene.acts.len() as u64;
        let schedule: Vec<_> = (0..200)
            .map(|_| {
                let actor = usize::try_from(random.below(actors)).unwrap();
                (actor, usize::try_from(1 + random.below(most)).unwrap())
            })
            .collect();
        scene.play(&schedule);
    }
}
