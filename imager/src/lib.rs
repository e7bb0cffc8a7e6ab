//! The engine: looks at disks, captures them to a repository, puts them back, proves it.
//!
//! Data flows one way: disk → tables → volumes → used map → blocks → frames → packs → store, and back. Everything
//! long reports to a [`monitor::Monitor`] and runs in the one shape of [`pipeline`]; nothing here prints.

#![forbid(unsafe_code)]

pub mod boot_check;
pub mod capture;
pub mod captures;
pub mod clock;
pub mod diff;
pub mod doctor;
pub mod export;
pub mod firmware;
pub mod map;
pub mod monitor;
pub mod mount;
pub mod moved;
pub mod nbd;
pub mod pipeline;
pub mod prune;
pub mod report;
pub mod repository;
pub mod restore;
pub mod schedule;
pub mod share;
pub mod survey;
pub mod verify;
pub mod view;
