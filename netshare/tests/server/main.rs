//! The share server seen from outside: a running server, real TLS, real files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod boot;
mod command;
mod hostile;
mod load;
mod objects;
mod protocol;
mod scopes;
mod share;
mod slow;
mod theft;
mod threats;
