//! Captures that are made by themselves: when, of which kind, and what is said when they are not.
//!
//! Time is divided into slots, which follow from the period alone and not from what ran when: a slot is served by one
//! capture, so whoever is woken twice does nothing, and whoever slept through ten slots catches up with one capture. What
//! was captured is read from the share. What this machine remembers ([`Last`]) says how its runs went, and stands in
//! only for captures that were pruned since.

mod alarm;
mod every;
mod kind;
mod last;
mod settings;
mod standing;
mod unit;

pub use alarm::{Event, after};
pub use every::{Clock, Every};
pub use kind::{Cadence, Choice, Past, choose};
pub use last::{Alarm, Last, Newest, Outcome, read, write};
pub use settings::{AlarmSettings, Keep, Settings};
pub use standing::Standing;
pub use unit::{SERVICE, TIMER, service, timer};
