//! Other people's programs: what they say, in the C locale.

use std::process::Command;

/// Where programs are looked for; administrators' tools are not on every user's path.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command in the C locale that finds administrators' tools.
pub fn command(program: &str) -> Command {
    let path = std::env::var("PATH").map_or_else(|_| PATH.to_owned(), |path| format!("{path}:{PATH}"));
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("PATH", path).env("MTOOLS_SKIP_CHECK", "1").env("MTOOLSRC", "/dev/null");
    command
}

/// Runs a program that has to succeed; what it printed.
pub fn tool<S: AsRef<str>>(program: &str, arguments: &[S]) -> String {
    match try_tool(program, arguments) {
        Ok(output) => output,
        Err(failure) => panic!("{failure}"),
    }
}

/// Runs a program; what it printed.
///
/// # Errors
/// What it said when it could not be run or failed.
pub fn try_tool<S: AsRef<str>>(program: &str, arguments: &[S]) -> Result<String, String> {
    let (status, output) = judge(program, arguments);
    if status == Some(0) { Ok(output) } else { Err(output) }
}

/// Runs a program whose exit status is an answer: the status, and what it printed (with its errors when it failed).
pub fn judge<S: AsRef<str>>(program: &str, arguments: &[S]) -> (Option<i32>, String) {
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    match command(program).args(&arguments).stdin(std::process::Stdio::null()).output() {
        Err(error) => (None, format!("{program}: {error}")),
        Ok(done) => {
            let out = String::from_utf8_lossy(&done.stdout).into_owned();
            if done.status.success() {
                return (Some(0), out);
            }
            let said = String::from_utf8_lossy(&done.stderr);
            let what = format!("{program} {}: {}: {said}{out}", arguments.join(" "), done.status);
            (done.status.code(), what)
        }
    }
}
