//! What can be said on the command line.

use crate::Scope;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The address that is listened on unless told otherwise.
pub(crate) const LISTEN: &str = "0.0.0.0:7443";
/// The address that machines boot from unless told otherwise.
const BOOT_LISTEN: &str = "0.0.0.0:7080";

const FIRST_STEPS: &str = "\
First steps:
  netshare serve /srv/share
      prints the URL for imager's --repo
  netshare token add boss --dir /srv/share --scope admin
      for imager init, hold and prune
  netshare token add web-1 --dir /srv/share --scope machine:web-1
      for imager capture --machine web-1
  netshare token add rescue --dir /srv/share --scope restore
      for imager restore and verify
Whoever uses a token sets IMAGER_TOKEN to it, or IMAGER_TOKEN_FILE to a file.";

/// The HTTPS share server: repositories below one folder, behind tokens.
#[derive(Debug, Parser)]
#[command(name = "netshare", version, max_term_width = 100, after_help = FIRST_STEPS)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the repositories below a folder; prints the URL on stdout, logs on stderr (NETSHARE_LOG=warn for less)
    Serve(Serve),
    /// Make, list and revoke tokens; a running server follows at once
    #[command(subcommand)]
    Token(Token),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The folder; each repository is a folder in it
    pub(crate) dir: PathBuf,
    /// Where to listen [default: the sockets that systemd passed, or 0.0.0.0:7443]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// `self-signed` (made at the first start and kept in DIR/.netshare), or the files of a certificate and its key
    #[arg(long, value_name = "self-signed|CERT,KEY", default_value = "self-signed")]
    pub(crate) tls: Tls,
    /// Serve figures for Prometheus there, over plain HTTP and without a token (so use 127.0.0.1:PORT)
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Also hand out the files of this folder, made by `bootenv build --boot-files`, to machines that boot over the network:
    /// over plain HTTP and without a token, so put no secret there
    #[arg(long, value_name = "DIR")]
    pub(crate) boot: Option<PathBuf>,
    /// Where to listen for them
    #[arg(long, value_name = "ADDR", default_value = BOOT_LISTEN, requires = "boot")]
    pub(crate) boot_listen: SocketAddr,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print its secret, once
    Add(Add),
    /// Show the tokens, without their secrets
    List(Where),
    /// End a token
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The folder that is served
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// One JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// A name for it, shown in lists and in the log
    pub(crate) name: String,
    /// The folder that is served
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// machine:NAME (capture this machine and read its captures), restore (read), restore:NAME,… (read these machines)
    /// or admin (everything: init, prune)
    #[arg(long)]
    pub(crate) scope: Scope,
    /// The repositories it is for [default: every one]
    #[arg(long = "repo", value_name = "NAME")]
    pub(crate) repositories: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Its name
    pub(crate) name: String,
    /// The folder that is served
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    SelfSigned,
    Files { certificate: PathBuf, key: PathBuf },
}

impl FromStr for Tls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(',') {
            None if text == "self-signed" => Ok(Self::SelfSigned),
            Some((certificate, key)) if !certificate.is_empty() && !key.is_empty() => {
                Ok(Self::Files { certificate: certificate.into(), key: key.into() })
            }
            _ => Err("self-signed, or two files: CERT,KEY".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, LISTEN, Tls};
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        assert!(LISTEN.parse::<std::net::SocketAddr>().is_ok());
        assert!("a.pem,b.pem".parse::<Tls>().is_ok() && "a.pem".parse::<Tls>().is_err());
    }
}
