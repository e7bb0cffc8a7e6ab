//! Disks that live no longer than a capture, for a survey, which holds disks for as long as it likes: asked through a
//! channel, and answered by threads that end before the disks do.

use crate::pipeline::Width;
use imager_disk::{Geometry, ReadAt};
use imager_units::{ByteLen, ByteOffset, Error, ErrorKind, Result};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

struct Question {
    disk: usize,
    at: ByteOffset,
    len: usize,
    answer: SyncSender<Result<Vec<u8>>>,
}

/// A disk that asks.
struct Asking {
    disk: usize,
    geometry: Geometry,
    ask: SyncSender<Question>,
}

/// Runs `work` with `disks`.
///
/// # Errors
/// Those of `work`; `Io` when no thread can be started.
pub(super) fn serve<T>(
    disks: &[impl ReadAt],
    work: impl FnOnce(Vec<Arc<dyn ReadAt>>) -> Result<T>,
) -> Result<T> {
    let (ask, questions) = sync_channel(0);
    let questions = Mutex::new(questions);
    std::thread::scope(|scope| {
        let ask: SyncSender<Question> = ask;
        for _ in 0..Width::for_this_machine().workers {
            let answers = std::thread::Builder::new().name("instant".to_owned());
            let started = answers.spawn_scoped(scope, || answer(disks, &questions));
            started.map_err(|e| Error::io("starting a thread", e))?;
        }
        let asking = disks.iter().enumerate().map(|(disk, served)| {
            let asking = Asking { disk, geometry: served.geometry(), ask: ask.clone() };
            Arc::new(asking) as Arc<dyn ReadAt>
        });
        let asking = asking.collect();
        drop(ask);
        work(asking)
    })
}

/// Answers until nobody is left who could ask.
fn answer(disks: &[impl ReadAt], questions: &Mutex<Receiver<Question>>) {
    loop {
        let next = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Question { disk, at, len, answer }) = next else { return };
        let mut bytes = vec![0; len];
        let read = match disks.get(disk) {
            Some(disk) => disk.read_exact_at(at, &mut bytes),
            None => Err(Error::new(ErrorKind::Invalid, "a disk that is not there")),
        };
        // Whoever does not wait any more has failed otherwise.
        drop(answer.send(read.map(|()| bytes)));
    }
}

impl ReadAt for Asking {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_exact_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.geometry.check(offset, ByteLen::of(buf))?;
        let gone = || Error::new(ErrorKind::Cancelled, "the capture has ended");
        let (answer, answered) = sync_channel(1);
        let question = Question { disk: self.disk, at: offset, len: buf.len(), answer };
        self.ask.send(question).map_err(|_| gone())?;
        buf.copy_from_slice(&answered.recv().map_err(|_| gone())??);
        Ok(())
    }
}
