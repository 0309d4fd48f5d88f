//! How many wrong passwords or keys an address may send.
//!
//! Right ones cost nothing. Of keys, the address alone is counted, and it is for the caller to look
//! at a key before it asks here: see [`Guesses`]. Of passwords, guesses at a station are counted by
//! station and address together, so that no guess keeps out another station behind the same proxy:
//! see [`PasswordGuesses`]. The memory is bounded: where too many guess at once, some of them are
//! forgotten.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    network::network,
    rate::{Bucket, Rate},
};

/// Wrong keys of one address.
const KEYS: Rate = Rate::new(1.0, 20.0);
/// Wrong passwords of one address for one station.
const PASSWORDS: Rate = Rate::new(0.1, 20.0);
/// Wrong passwords of one address for all stations, before it has to spread them.
const ALL_PASSWORDS: Rate = Rate::new(10.0, 100.0);
const MAX_ADDRESSES: usize = 10_000;
/// Stations with their addresses; about 60 bytes each.
const MAX_PAIRS: usize = 100_000;

/// The address has sent too many wrong ones: when the next may come.
#[derive(Debug)]
pub struct TooMany {
    pub retry_after: Duration,
}

/// Of keys, by address.
#[derive(Debug)]
pub struct Guesses(Mutex<Buckets<IpAddr>>);

impl Default for Guesses {
    fn default() -> Self {
        Self(Mutex::new(Buckets::new(KEYS, MAX_ADDRESSES)))
    }
}

impl Guesses {
    /// Counts a wrong one.
    pub fn spend(&self, from: IpAddr, now: Instant) -> Result<(), TooMany> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = buckets.bucket(network(from), now).take(KEYS, now);
        taken.map_err(|retry_after| TooMany { retry_after })
    }
}

/// Of passwords, by what they are for and by address.
///
/// An address that tries one station after the other has a limit, too. Beyond it, a password is
/// still looked at where the address has sent no wrong one for that station in the last ten seconds,
/// so a right one comes through whatever is guessed at other stations.
#[derive(Debug)]
pub struct PasswordGuesses {
    counts: Mutex<Counts>,
    /// Names are counted by their hash, which keeps the memory bounded, by one that nobody outside
    /// can foresee.
    hasher: RandomState,
}

#[derive(Debug)]
struct Counts {
    pairs: Buckets<(IpAddr, u64)>,
    addresses: Buckets<IpAddr>,
}

/// What was paid for the look at a password.
#[derive(Debug, Clone, Copy)]
#[must_use = "a right password costs nothing"]
pub struct Guess {
    pair: (IpAddr, u64),
    by_address: bool,
}

impl Default for PasswordGuesses {
    fn default() -> Self {
        Self {
            counts: Mutex::new(Counts {
                pairs: Buckets::new(PASSWORDS, MAX_PAIRS),
                addresses: Buckets::new(ALL_PASSWORDS, MAX_ADDRESSES),
            }),
            hasher: RandomState::new(),
        }
    }
}

impl PasswordGuesses {
    /// Pays for a look at the password that this address shows for `name`. It is paid before the
    /// look, so that many at once can't look for the price of one.
    pub fn spend(&self, from: IpAddr, name: &impl Hash, now: Instant) -> Result<Guess, TooMany> {
        let address = network(from);
        let pair = (address, self.hasher.hash_one(name));
        let mut counts = self.counts();
        let of_all = counts
            .addresses
            .bucket(address, now)
            .take(ALL_PASSWORDS, now);
        let bucket = counts.pairs.bucket(pair, now);
        let taken = match of_all {
            Err(retry_after) if !bucket.is_full(PASSWORDS, now) => Err(retry_after),
            Ok(()) | Err(_) => bucket.take(PASSWORDS, now),
        };
        let by_address = of_all.is_ok();
        match taken {
            Ok(()) => Ok(Guess { pair, by_address }),
            Err(retry_after) => {
                // It was not looked at, so there was no guess.
                if by_address {
                    let bucket = counts.addresses.bucket(address, now);
                    bucket.give_back(ALL_PASSWORDS);
                }
                Err(TooMany { retry_after })
            }
        }
    }

    /// It was the right one.
    pub fn refund(&self, guess: Guess, now: Instant) {
        let Guess { pair, by_address } = guess;
        let mut counts = self.counts();
        counts.pairs.bucket(pair, now).give_back(PASSWORDS);
        if by_address {
            let (address, _) = pair;
            counts
                .addresses
                .bucket(address, now)
                .give_back(ALL_PASSWORDS);
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bucket for each of those that have guessed of late.
#[derive(Debug)]
struct Buckets<K> {
    of: HashMap<K, Bucket>,
    rate: Rate,
    max: usize,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    fn new(rate: Rate, max: usize) -> Self {
        Self {
            of: HashMap::new(),
            rate,
            max,
        }
    }

    fn bucket(&mut self, key: K, now: Instant) -> &mut Bucket {
        if self.of.len() >= self.max && !self.of.contains_key(&key) {
            self.make_room(now);
        }
        let full = || Bucket::full(self.rate, now);
        self.of.entry(key).or_insert_with(full)
    }

    /// Forgets who has not guessed of late. Where that are too few, a tenth of the others goes, so
    /// that a crowd does not have all of them looked at for each newcomer.
    fn make_room(&mut self, now: Instant) {
        let rate = self.rate;
        self.of.retain(|_, bucket| !bucket.is_full(rate, now));
        let most = self.max - self.max / 10;
        let mut surplus = self.of.len().saturating_sub(most);
        self.of.retain(|_, _| {
            let goes = surplus > 0;
            surplus -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_held_back_and_others_are_not() {
        let guesses = Guesses::default();
        let now = Instant::now();
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
    fn a_station_is_held_back_at_its_address_and_no_other_is() {
        let guesses = PasswordGuesses::default();
        let now = Instant::now();
        let spend = |from: &str, name: &str| guesses.spend(address(from), &name, now);
        // Right ones cost nothing.
        for _ in 0..1_000 {
            guesses.refund(spend("10.0.0.1", "S1").unwrap(), now);
        }
        let looks = (0..100).filter(|_| spend("10.0.0.1", "S1").is_ok());
        assert_eq!(looks.count(), 20);
        assert!(spend("10.0.0.1", "S2").is_ok());
        assert!(spend("10.0.0.2", "S1").is_ok());
        let later = now + Duration::from_secs(10);
        assert!(guesses.spend(address("10.0.0.1"), &"S1", later).is_ok());
    }

    #[test]
    fn who_tries_one_station_after_the_other_has_a_limit_and_the_right_ones_come_through() {
        let guesses = PasswordGuesses::default();
        let start = Instant::now();
        let from = address("10.0.0.1");
        let mut looks = 0;
        for tenth in 0..600 {
            let now = start + Duration::from_millis(100) * tenth;
            for station in 0..100 {
                looks += u32::from(guesses.spend(from, &station, now).is_ok());
            }
            let right = guesses.spend(from, &"RIGHT", now).unwrap();
            guesses.refund(right, now);
        }
        // Of 60,000 in a minute: a hundred at once and ten a second, and for each of the hundred
        // stations one in ten seconds.
        assert!((600..=1_300).contains(&looks), "{looks}");
    }

    #[test]
    fn few_are_remembered() {
        let mut buckets = Buckets::new(KEYS, 1_000);
        let now = Instant::now();
        for number in 0..1_050_u32 {
            buckets.bucket(number, now).take(KEYS, now).unwrap();
        }
        assert!(buckets.of.len() <= 1_000);
        assert!(buckets.of.len() >= 900);
        buckets.bucket(5_000, now + Duration::from_mins(1));
        assert!(buckets.of.len() <= 1_000);
    }
}
