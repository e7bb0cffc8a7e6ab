//! One line in the access log, and one count in the metrics, for each request; never the token.

use crate::limits::Counted;
use crate::metrics::Metrics;
use hyper::{Method, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// How a request went, told when it is dropped: when its answer is out, or its client gone.
#[derive(Debug)]
pub(crate) struct Record {
    metrics: Arc<Metrics>,
    begun: Instant,
    peer: SocketAddr,
    method: &'static str,
    /// The name of the token.
    token: String,
    /// The machine, of a machine's token.
    machine: Option<String>,
    repository: String,
    object: String,
    status: Option<StatusCode>,
    bytes_in: u64,
    bytes_out: u64,
    complete: bool,
    problem: Option<String>,
    /// Given back when the answer is out.
    places: (Option<OwnedSemaphorePermit>, Option<Counted<String>>),
}

impl Record {
    pub(crate) fn begin(metrics: &Arc<Metrics>, peer: SocketAddr, method: &Method) -> Self {
        metrics.begin();
        Self {
            metrics: Arc::clone(metrics),
            begun: Instant::now(),
            peer,
            method: known(method),
            token: String::new(),
            machine: None,
            repository: String::new(),
            object: String::new(),
            status: None,
            bytes_in: 0,
            bytes_out: 0,
            complete: false,
            problem: None,
            places: (None, None),
        }
    }

    pub(crate) fn about(&mut self, repository: Option<&str>, object: &str) {
        self.repository = repository.unwrap_or_default().to_owned();
        self.object = object.to_owned();
    }

    pub(crate) fn by(&mut self, token: &str, machine: Option<&str>) {
        self.token = token.to_owned();
        self.machine = machine.map(str::to_owned);
    }

    pub(crate) fn holds(&mut self, place: OwnedSemaphorePermit, token: Counted<String>) {
        self.places = (Some(place), Some(token));
    }

    pub(crate) fn received(&mut self, bytes: u64) {
        self.bytes_in += bytes;
        self.metrics.received(bytes);
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.bytes_out += bytes;
        self.metrics.sent(bytes);
    }

    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    pub(crate) fn completed(&mut self) {
        self.complete = true;
    }

    pub(crate) fn failed(&mut self, problem: &str) {
        self.problem = Some(problem.to_owned());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let status = self.status.map_or(0, |status| status.as_u16());
        let ms = self.begun.elapsed().as_millis();
        let end = if self.complete { "done" } else { "cut" };
        let machine = self.machine.as_deref().filter(|_| status >= 400 || !self.complete);
        self.metrics.end(self.method, status, &self.repository, machine);
        let problem = self.problem.as_deref().unwrap_or_default();
        tracing::info!(
            target: "access",
            peer = %self.peer, token = self.token, repository = self.repository, method = self.method,
            object = self.object, status, bytes_in = self.bytes_in, bytes_out = self.bytes_out, ms, end, problem,
        );
        if status >= 500 {
            tracing::error!("{} {}/{}: {problem}", self.method, self.repository, self.object);
        }
    }
}

/// A client's own words are not for logs and labels.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    }
}
