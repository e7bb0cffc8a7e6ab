//! `netshare`: serves repositories over HTTPS, and keeps the tokens for it.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    netshare::cli::main()
}
