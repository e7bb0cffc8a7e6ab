//! Which disk it is.
