//! The HTTPS share server: any number of repositories below one folder, each behind tokens that cannot destroy it.
//!
//! A request goes one way: connection (TLS, time limits) → target (the path, checked before anything is looked up) →
//! token → scope → the folder's [`netshare_store::DirStore`]. What is refused is refused before the disk is touched, and leaves
//! nothing there. The protocol is in openapi.yaml, what a stolen token can and cannot do in THREATS.md.

#![forbid(unsafe_code)]

mod answer;
mod boot;
mod certificate;
pub mod cli;
mod connection;
mod disk;
mod document;
mod download;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod limits;
mod listing;
mod machines;
mod metrics;
mod paced;
mod private;
mod record;
mod repositories;
mod room;
mod scope;
mod scrape;
mod server;
mod service;
mod target;
mod token;
mod tokens;
mod upload;

pub use boot::Boot;
pub use certificate::Identity;
pub use limits::Limits;
pub use repositories::check_repository;
pub use scope::Scope;
pub use server::{Server, Sockets};
pub use tokens::{Grant, Tokens};
