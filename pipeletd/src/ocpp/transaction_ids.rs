//! Transaction ids: durable, never given twice, and not to be guessed from one another.
//!
//! The store hands out numbers in blocks, so that a transaction costs no write of its own; what
//! is left of a block when the daemon stops is lost, not reused. A number becomes an id by a
//! permutation that only this store's key knows, so different numbers have different ids.

use std::{fmt, ops::Range, sync::Arc};

use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use crate::store::{ConfigurationStore, Counter, StoreError};

/// How many numbers are reserved at once.
const BLOCK: u32 = 1_000;

#[derive(Debug)]
pub(super) struct TransactionIds {
    store: Arc<dyn ConfigurationStore>,
    permutation: Permutation,
    reserved: Mutex<Range<u32>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TransactionIdError {
    #[error("no transaction number could be reserved")]
    Store(#[source] StoreError),
    #[error("all transaction numbers have been given out")]
    Exhausted,
}

impl TransactionIds {
    pub(super) async fn open(store: Arc<dyn ConfigurationStore>) -> Result<Self, StoreError> {
        let permutation = Permutation::new(store.transaction_key().await?);
        Ok(Self {
            store,
            permutation,
            reserved: Mutex::new(0..0),
        })
    }

    /// An id that was never given out before: 1 to 2³¹ − 1, as OCPP's integer wants.
    pub(super) async fn next(&self) -> Result<i32, TransactionIdError> {
        // Held across the reservation on purpose: whoever else needs a number meanwhile needs
        // this very reservation.
        let mut reserved = self.reserved.lock().await;
        if reserved.is_empty() {
            *reserved = self.reserve().await?;
        }
        let number = reserved.next().ok_or(TransactionIdError::Exhausted)?;
        drop(reserved);
        self.permutation
            .apply(number)
            .ok_or(TransactionIdError::Exhausted)
    }

    async fn reserve(&self) -> Result<Range<u32>, TransactionIdError> {
        let reserved = self.store.reserve(Counter::Transaction, BLOCK).await;
        let first = reserved.map_err(TransactionIdError::Store)?;
        let first = u32::try_from(first).map_err(|_| TransactionIdError::Exhausted)?;
        Ok(first..first.saturating_add(BLOCK))
    }
}

/// A keyed permutation of 1 to 2³¹ − 1: a balanced Feistel network over 32 bits, walked until it
/// is back in the range.
struct Permutation {
    key: [u8; 16],
}

impl Permutation {
    const ROUNDS: u8 = 8;

    const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// Numbers count from 0; the last, 2³¹ − 2, is the end of all ids.
    fn apply(&self, number: u32) -> Option<i32> {
        let mut id = i32::try_from(number).ok()?.checked_add(1)?.cast_unsigned();
        loop {
            id = self.feistel(id);
            if let Some(id) = i32::try_from(id).ok().filter(|id| *id > 0) {
                return Some(id);
            }
        }
    }

    fn feistel(&self, block: u32) -> u32 {
        let [a, b, c, d] = block.to_be_bytes();
        let (mut left, mut right) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for round in 0..Self::ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        u32::from(left) << 16 | u32::from(right)
    }

    fn round(&self, round: u8, half: u16) -> u16 {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update([round]);
        hash.update(half.to_be_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        u16::from_be_bytes([hash[0], hash[1]])
    }
}

impl fmt::Debug for Permutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permutation(secret)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn different_numbers_have_different_positive_ids() {
        let permutation = Permutation::new([7; 16]);
        let numbers = (0..5_000).chain(i32::MAX.cast_unsigned() - 5_000..i32::MAX.cast_unsigned());
        let ids: Vec<i32> = numbers.map(|n| permutation.apply(n).unwrap()).collect();
        assert!(ids.iter().all(|id| *id > 0));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }

    #[test]
    fn ids_end_with_the_range() {
        let permutation = Permutation::new([7; 16]);
        assert!(permutation.apply(i32::MAX.cast_unsigned() - 1).is_some());
        assert_eq!(permutation.apply(i32::MAX.cast_unsigned()), None);
        assert_eq!(permutation.apply(u32::MAX), None);
    }

    #[test]
    fn the_key_decides_and_no_step_comes_twice() {
        let (one, other) = (Permutation::new([1; 16]), Permutation::new([2; 16]));
        let ids = |permutation: &Permutation| -> Vec<i32> {
            (0..100).filter_map(|n| permutation.apply(n)).collect()
        };
        assert_eq!(ids(&one), ids(&Permutation::new([1; 16])));
        let same = ids(&one)
            .iter()
            .zip(ids(&other))
            .filter(|(a, b)| **a == *b)
            .count();
        assert_eq!(same, 0);
        let ids = ids(&one);
        let steps = ids.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
        assert_eq!(steps.collect::<HashSet<_>>().len(), ids.len() - 1);
    }

    proptest::proptest! {
        /// A Feistel network can be run backwards, so it is a permutation: here it is run.
        #[test]
        fn the_network_leads_back(key: [u8; 16], block: u32) {
            let permutation = Permutation::new(key);
            let out = permutation.feistel(block);
            let (mut left, mut right) = ((out >> 16) as u16, (out & 0xffff) as u16);
            for round in (0..Permutation::ROUNDS).rev() {
                (left, right) = (right ^ permutation.round(round, left), left);
            }
            proptest::prop_assert_eq!(u32::from(left) << 16 | u32::from(right), block);
        }
    }
}
