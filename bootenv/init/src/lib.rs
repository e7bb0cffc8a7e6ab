//! What the rescue environment is told to do: by the medium's file, by the kernel's command line. The builder checks the
//! same file, so that a mistake is found where somebody can mend it.

mod settings;
mod sources;
mod task;

pub use settings::{Address, After, Settings};
pub use sources::{FILE, gather, parse_command_line, parse_file};
pub use task::{Agreement, Task};
