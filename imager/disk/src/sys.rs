//! The kernel calls that are not safe Rust.
