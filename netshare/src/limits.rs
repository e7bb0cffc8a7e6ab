//! What one client, and all of them together, may take.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The longest object.
pub(crate) const OBJECT_BYTES_MAX: u64 = 64 << 20;
/// Request line and headers together.
pub(crate) const HEAD_BYTES_MAX: usize = 16 << 10;
/// What is read from the disk or gathered for it at once.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// What one client, and all of them together, may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address (IPv6: from one /64).
    pub connections_per_peer: usize,
    /// Requests under way at once.
    pub requests: usize,
    /// Requests under way at once with one token.
    pub requests_per_token: usize,
    /// Listings under way at once with one token. Each takes a thread for as long as its client takes to read it.
    pub listings_per_token: usize,
    /// Calls to the disk at once, listings aside.
    pub disk_calls: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a request's head, counted from the answer before it; so also how long an idle connection is kept.
    pub head: Duration,
    /// In this time `least_bytes` must get through while a body or an answer is under way.
    pub stall: Duration,
    /// See `stall`.
    pub least_bytes: u64,
    /// How long what a refused client still sends is read, so that the refusal reaches it.
    pub linger: Duration,
    /// How long requests under way may take once the server is told to stop.
    pub shutdown: Duration,
}

impl Limits {
    /// How many threads may have to wait for the disk, or for a client that reads a listing.
    pub fn blocking_threads(&self) -> usize {
        self.disk_calls + self.requests
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_peer: 96,
            requests: 160,
            requests_per_token: 64,
            listings_per_token: 16,
            disk_calls: 24,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            least_bytes: 64 << 10,
            linger: Duration::from_secs(5),
            shutdown: Duration::from_secs(30),
        }
    }
}

/// Whom connections are counted by.
pub(crate) fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // Who has one address of a /64 has all of them.
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

/// How many each of some have under way.
#[derive(Debug)]
pub(crate) struct Counts<K: Eq + Hash> {
    under_way: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

/// One that is under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<K: Eq + Hash> {
    under_way: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Counts<K> {
    pub(crate) fn new(most: usize) -> Self {
        Self { under_way: Arc::default(), most }
    }

    /// One more for `key`, if there are not too many.
    pub(crate) fn enter(&self, key: K) -> Option<Counted<K>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = under_way.get(&key).map_or(1, |count| count + 1);
        if count > self.most {
            return None;
        }
        under_way.insert(key.clone(), count);
        Some(Counted { under_way: Arc::clone(&self.under_way), key })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, peer_of};

    #[test]
    fn each_is_counted_apart_and_until_it_ends() {
        let counts = Counts::new(2);
        let (one, _two) = (counts.enter("a").unwrap(), counts.enter("a").unwrap());
        assert!(counts.enter("a").is_none() && counts.enter("b").is_some());
        drop(one);
        assert!(counts.enter("a").is_some());
        assert_eq!(counts.under_way.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_network_of_one_client_is_one_peer() {
        let peer = |text: &str| peer_of(text.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:127.0.0.1"), peer("127.0.0.1"));
        assert_ne!(peer("127.0.0.1"), peer("127.0.0.2"));
    }
}
