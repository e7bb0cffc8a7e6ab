//! The screens, one a file, in the order in which a person meets them.

pub(crate) mod busy;
pub(crate) mod done;
pub(crate) mod fields;
pub(crate) mod looking;
pub(crate) mod machine;
pub(crate) mod menu;
pub(crate) mod moment;
pub(crate) mod name;
pub(crate) mod opening;
pub(crate) mod plan;
pub(crate) mod planning;
pub(crate) mod reading;
pub(crate) mod roles;
pub(crate) mod running;
pub(crate) mod scope;
pub(crate) mod share_kind;
pub(crate) mod sources;
pub(crate) mod start;
pub(crate) mod target;
pub(crate) mod trouble;
pub(crate) mod volumes;
pub(crate) mod waiting;
