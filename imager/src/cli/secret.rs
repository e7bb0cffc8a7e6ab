//! Passphrases and tokens: from the environment, a file, a command, or asked for; never from the command line.

use super::failure::Failure;
use imager_units::{Context, Error, ErrorKind};
use netshare_store::http::Token;
use netshare_store::mounted::Password;
use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;

type Result<T> = std::result::Result<T, Failure>;

/// The variables that hold our secrets themselves. Those of a bucket stay: a command may fetch a secret with them.
const SECRETS: [&str; 3] = ["IMAGER_PASSWORD", "IMAGER_SHARE_PASSWORD", "IMAGER_TOKEN"];

/// The passphrase, from where it is configured; asked for on a terminal otherwise.
///
/// # Errors
/// Status 12 when there is none and nobody to ask; `Io` when it cannot be read.
pub(crate) fn passphrase(prompt: &str) -> Result<Vec<u8>> {
    match configured()? {
        Some(secret) => Ok(secret),
        None => ask(prompt),
    }
}

/// A new passphrase, asked for twice.
///
/// # Errors
/// As `passphrase`; usage when the two differ or it is empty.
pub(crate) fn new_passphrase() -> Result<Vec<u8>> {
    if let Some(secret) = configured()? {
        return not_empty(secret);
    }
    asked_twice()
}

/// A new passphrase from a file, or asked for twice.
///
/// # Errors
/// As `new_passphrase`.
pub(crate) fn another_passphrase(file: Option<&Path>) -> Result<Vec<u8>> {
    match file {
        Some(file) => not_empty(from_file("passphrase", file)?),
        None => asked_twice(),
    }
}

/// The token for a server, from where it is configured.
///
/// # Errors
/// Status 12 when it cannot be one; `Io` when it cannot be read.
pub(crate) fn token() -> Result<Option<Token>> {
    let text = match (std::env::var_os("IMAGER_TOKEN"), std::env::var_os("IMAGER_TOKEN_FILE")) {
        (Some(token), _) => token.into_encoded_bytes(),
        (None, Some(file)) => {
            let file = Path::new(&file);
            let read =
                std::fs::read(file).context(|| format!("reading the token from {}", file.display()))?;
            first_line(read)
        }
        (None, None) => return Ok(None),
    };
    let token = Token::new(&String::from_utf8_lossy(&text));
    let advice = "it is what netshare token add printed; see IMAGER_TOKEN and IMAGER_TOKEN_FILE";
    token.map(Some).map_err(|error| Failure::new(12, error, advice))
}

fn asked_twice() -> Result<Vec<u8>> {
    let first = ask("New passphrase: ")?;
    if ask("Again: ")? != first {
        return Err(Failure::usage("the two passphrases differ"));
    }
    not_empty(first)
}

fn not_empty(secret: Vec<u8>) -> Result<Vec<u8>> {
    if secret.is_empty() { Err(Failure::usage("an empty passphrase protects nothing")) } else { Ok(secret) }
}

fn configured() -> Result<Option<Vec<u8>>> {
    from_environment("passphrase", "IMAGER_PASSWORD")
}

/// The password of a file server's user, from where it is configured; asked for on a terminal otherwise. `None` when
/// there is none and nobody to ask.
///
/// # Errors
/// Status 12 when a command that should tell it fails; `Io` when it cannot be read.
pub(crate) fn share_password(share: &str) -> Result<Option<Password>> {
    let found = match from_environment("password", "IMAGER_SHARE_PASSWORD")? {
        None if std::io::stdin().is_terminal() => Some(ask(&format!("Password for {share}: "))?),
        found => found,
    };
    Ok(found.map(Password::new))
}

/// A secret from a variable, or from the file or command that a variable of a longer name tells.
fn from_environment(what: &str, name: &str) -> Result<Option<Vec<u8>>> {
    if let Some(secret) = std::env::var_os(name) {
        return Ok(Some(secret.into_encoded_bytes()));
    }
    if let Some(file) = std::env::var_os(format!("{name}_FILE")) {
        return from_file(what, Path::new(&file)).map(Some);
    }
    let name = format!("{name}_COMMAND");
    let Some(command) = std::env::var_os(&name) else { return Ok(None) };
    let mut shell = Command::new("/bin/sh");
    // It is to tell one secret, not to know the others.
    for secret in SECRETS {
        shell.env_remove(secret);
    }
    let output = shell
        .arg("-c")
        .arg(&command)
        .stdin(std::process::Stdio::inherit())
        .stderr(std::process::Stdio::inherit())
        .output()
        .context(|| format!("running {name}"))?;
    if !output.status.success() {
        let what = format!("{name} ended with {}", output.status);
        return Err(Failure::new(
            12,
            Error::new(ErrorKind::Denied, what),
            "run it by hand and see what it says",
        ));
    }
    Ok(Some(first_line(output.stdout)))
}

fn from_file(what: &str, file: &Path) -> Result<Vec<u8>> {
    let read = std::fs::read(file).context(|| format!("reading the {what} from {}", file.display()))?;
    Ok(first_line(read))
}

fn first_line(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn ask(prompt: &str) -> Result<Vec<u8>> {
    if !std::io::stdin().is_terminal() {
        let what = Error::new(ErrorKind::Denied, "a passphrase is needed, and there is nobody to ask");
        let advice = "set IMAGER_PASSWORD_FILE, IMAGER_PASSWORD_COMMAND or IMAGER_PASSWORD";
        return Err(Failure::new(12, what, advice));
    }
    let asked = rpassword::prompt_password(prompt).context(|| "asking for the passphrase".to_owned())?;
    Ok(asked.into_bytes())
}
