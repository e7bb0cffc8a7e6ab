//! The HTTPS share server: any number of repositories below one folder, each behind tokens that cannot destroy it.

#![forbid(unsafe_code)]
