//! `netshare token`.

use super::args::{Add, Revoke, Token, Where};
use super::failure::Failure;
use crate::{Grant, Tokens};
use imager_units::{Error, ErrorKind};
use serde_json::json;
use std::io::{self, Write};
use std::path::Path;

pub(crate) fn run(command: &Token) -> Result<(), Failure> {
    match command {
        Token::Add(options) => add(options),
        Token::List(options) => list(options),
        Token::Revoke(Revoke { name, dir }) => revoke(name, dir),
    }
}

fn revoke(name: &str, dir: &Path) -> Result<(), Failure> {
    tokens(dir)?.revoke(name).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            Failure::new(error, "netshare token list shows the names; is it the right --dir?")
        }
        _ => error.into(),
    })
}

fn tokens(dir: &Path) -> Result<Tokens, Failure> {
    super::check_folder(dir)?;
    Ok(Tokens::of(dir))
}

fn add(options: &Add) -> Result<(), Failure> {
    let tokens = tokens(&options.dir)?;
    let created = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())
        .map_or_else(|_| String::new(), |now| now.to_string());
    let only = options.repositories.iter().cloned().collect();
    let grant = Grant {
        name: options.name.clone(),
        scope: options.scope.clone(),
        repositories: if options.repositories.is_empty() { None } else { Some(only) },
        created,
    };
    let secret = tokens.add(&grant)?;
    let mut out = io::stdout().lock();
    let shown = writeln!(out, "{secret}").and_then(|()| out.flush());
    if let Err(error) = shown {
        // Nobody has seen it, and nobody ever will.
        tokens.revoke(&grant.name)?;
        return Err(Failure::new(Error::io("printing the token", error), "it was revoked: make it again"));
    }
    Ok(())
}

fn list(options: &Where) -> Result<(), Failure> {
    let grants = tokens(&options.dir)?.list()?;
    let text = if options.json { as_json(&grants) } else { as_table(&grants) };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("printing", error).into()),
        _ => Ok(()),
    }
}

fn as_json(grants: &[Grant]) -> String {
    let tokens: Vec<_> = grants
        .iter()
        .map(|Grant { name, scope, repositories, created }| {
            json!({
                "name": name, "scope": scope.to_string(), "repositories": repositories, "created": created,
            })
        })
        .collect();
    format!("{}\n", json!({ "tokens": tokens }))
}

fn as_table(grants: &[Grant]) -> String {
    let longest = |of: fn(&Grant) -> usize| grants.iter().map(of).max().unwrap_or_default();
    let name_width = longest(|grant| grant.name.len());
    let scope_width = longest(|grant| grant.scope.to_string().len());
    let line = |grant: &Grant| {
        let Grant { name, scope, repositories, created } = grant;
        let only = repositories.as_ref().map_or_else(
            || "every repository".to_owned(),
            |only| only.iter().map(String::as_str).collect::<Vec<_>>().join(","),
        );
        let scope = scope.to_string();
        format!("{name:name_width$}  {scope:scope_width$}  {created}  {only}\n")
    };
    grants.iter().map(line).collect()
}
