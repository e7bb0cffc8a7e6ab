//! Telling another program's server something, once. Not a share: nothing is read but whether it was heard.

use super::tls;
use super::url::Fingerprint;
use crate::Nobody;
use crate::rt::Waiter;
use imager_units::{Error, ErrorKind, Result};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, redirect};
use std::sync::Arc;
use std::time::Duration;

/// Posts JSON to a URL, `http` or `https`, and waits at most so long for its answer. Errors never name the URL: it may
/// hold a secret.
///
/// # Errors
/// `Invalid` when it is no such URL; `Denied` when its server cannot be trusted; `Io` when it is not heard.
pub fn post_json(url: &str, body: Vec<u8>, patience: Duration) -> Result<()> {
    let trust = match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("https") => tls::config(None)?,
        // Nobody's certificate is asked for.
        Some("http") => tls::config(Some(Fingerprint([0; 32])))?,
        _ => return Err(Error::new(ErrorKind::Invalid, "a webhook is an http:// or https:// URL")),
    };
    let failed = |error: reqwest::Error| {
        let error = error.without_url();
        let kind = if error.is_builder() { ErrorKind::Invalid } else { ErrorKind::Io };
        Error::with_source(kind, "posting to it", error)
    };
    let client = Client::builder().tls_backend_preconfigured(trust).redirect(redirect::Policy::none());
    let client = client.timeout(patience).build().map_err(failed)?;
    let request = client.post(url).header(CONTENT_TYPE, "application/json").body(body);
    let answer = Waiter::new(Arc::new(Nobody)).wait(async move { request.send().await })?.map_err(failed)?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(Error::new(ErrorKind::Io, format!("it answered {status}"))),
    }
}
