//! How many wrong passwords or keys an address may send.
//!
//! Right ones cost nothing, so a site with many stations, or a proxy, is held back only while
//! something behind it guesses. The memory is bounded: where too many addresses guess at once,
//! one of them is forgotten.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    network::network,
    rate::{Bucket, Rate},
};

/// Wrong ones of one address.
const RATE: Rate = Rate::new(1.0, 20.0);
const MAX_ADDRESSES: usize = 10_000;

#[derive(Debug, Default)]
pub struct Guesses(Mutex<HashMap<IpAddr, Bucket>>);

/// The address has sent too many wrong ones: when the next may come.
#[derive(Debug)]
pub struct TooMany {
    pub retry_after: Duration,
}

impl Guesses {
    /// Pays for a look at what this address shows.
    pub fn spend(&self, from: IpAddr, now: Instant) -> Result<(), TooMany> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(from);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            make_room(&mut buckets, now);
        }
        let bucket = buckets
            .entry(address)
            .or_insert_with(|| Bucket::full(RATE, now));
        bucket
            .take(RATE, now)
            .map_err(|retry_after| TooMany { retry_after })
    }

    /// It was the right one.
    pub fn refund(&self, from: IpAddr) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(&network(from)) {
            bucket.give_back(RATE);
        }
    }
}

fn make_room(buckets: &mut HashMap<IpAddr, Bucket>, now: Instant) {
    buckets.retain(|_, bucket| !bucket.is_full(RATE, now));
    if buckets.len() >= MAX_ADDRESSES
        && let Some(any) = buckets.keys().next().copied()
    {
        buckets.remove(&any);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_held_back_and_others_are_not() {
        let guesses = Guesses::default();
        let now = Instant::now();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for _ in 0..1_000 {
            guesses.spend(address("10.0.0.1"), now).unwrap();
            guesses.refund(address("10.0.0.1"));
        }
        for _ in 0..20 {
            guesses.spend(address("2001:db8::1"), now).unwrap();
        }
        assert!(guesses.spend(address("2001:db8::2"), now).is_err());
        assert!(guesses.spend(address("2001:db8:0:1::1"), now).is_ok());
        assert!(guesses.spend(address("10.0.0.1"), now).is_ok());
        let later = now + Duration::from_secs(1);
        assert!(guesses.spend(address("2001:db8::2"), later).is_ok());
    }

    #[test]
    fn few_addresses_are_remembered() {
        let guesses = Guesses::default();
        let now = Instant::now();
        for number in 0..u32::try_from(MAX_ADDRESSES).unwrap() + 50 {
            let address = std::net::Ipv4Addr::from_bits(number);
            guesses.spend(address.into(), now).unwrap();
        }
        assert_eq!(guesses.0.lock().unwrap().len(), MAX_ADDRESSES);
    }
}
