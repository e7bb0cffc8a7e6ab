//! The share server seen from outside: a running server, real TLS, real files.

mod hostile;
mod objects;
mod scopes;
mod share;
mod slow;
