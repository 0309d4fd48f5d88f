//! The password that a station shows in HTTP Basic.
//!
//! Only a salted SHA-256 is kept. A password has 16 bytes at least, as the whitepaper wants of
//! an `AuthorizationKey`, and is random where it comes from a provisioning tool: there is little
//! to guess that a slower hash would protect, and thousands of stations reconnect in a second.
//!
//! A key may be raw bytes that no text can hold. People then write it as hexadecimal digits, and
//! stations send it either way: both forms are the same password.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// Random bytes that make equal passwords look different.
pub type Salt = [u8; 16];

/// In bytes, of the key itself.
const MIN_LEN: usize = 16;
const MAX_LEN: usize = 64;
/// The keys that are written as hexadecimal digits, in bytes (whitepaper, section 4.1.2).
const KEY_LEN: std::ops::RangeInclusive<usize> = 16..=20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has {MIN_LEN} to {MAX_LEN} bytes; write raw bytes as hexadecimal digits")]
pub struct InvalidPassword;

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    salt: Salt,
    hash: [u8; 32],
}

impl PasswordHash {
    pub fn new(password: &str, salt: Salt) -> Result<Self, InvalidPassword> {
        let key = from_hex(password.as_bytes());
        let key = key.as_deref().unwrap_or(password.as_bytes());
        if !(MIN_LEN..=MAX_LEN).contains(&key.len()) {
            return Err(InvalidPassword);
        }
        Ok(Self {
            salt,
            hash: digest(salt, key),
        })
    }

    pub const fn from_parts(salt: Salt, hash: [u8; 32]) -> Self {
        Self { salt, hash }
    }

    pub const fn salt(&self) -> Salt {
        self.salt
    }

    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Whether this is the password, as raw bytes or as digits. What is compared takes the same
    /// time whatever is in it.
    pub fn matches(&self, shown: &[u8]) -> Choice {
        let raw = digest(self.salt, shown);
        let decoded = from_hex(shown);
        let key = digest(self.salt, decoded.as_deref().unwrap_or(shown));
        self.hash.ct_eq(&raw) | self.hash.ct_eq(&key)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

fn digest(salt: Salt, key: &[u8]) -> [u8; 32] {
    Sha256::new_with_prefix(salt)
        .chain_update(key)
        .finalize()
        .into()
}

/// The key behind hexadecimal digits, where it has a key's length.
fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !KEY_LEN.contains(&(digits.len() / 2)) {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let bytes = digits.chunks(2).map(|pair| {
        let byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        u8::try_from(byte).ok()
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_raw_or_as_digits() {
        let raw: Vec<u8> = (0xf0..=0xff).chain([0, b':']).collect();
        let digits = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff003a";
        let text = "correct horse battery";
        let check = |password: &str, shown: &[u8], expected: bool| {
            let hash = PasswordHash::new(password, [7; 16]).unwrap();
            assert_eq!(bool::from(hash.matches(shown)), expected, "{password}");
        };
        check(digits, &raw, true);
        check(digits, digits.as_bytes(), true);
        check(digits, digits.to_uppercase().as_bytes(), true);
        check(&digits.to_uppercase(), digits.as_bytes(), true);
        check(digits, &raw[1..], false);
        check(digits, b"", false);
        check(text, text.as_bytes(), true);
        check(text, b"correct horse batterx", false);
        check(text, &[text.as_bytes(), b"x"].concat(), false);
        // A text of a key's length, which the station turned into digits by itself.
        check(
            "0123456789abcdeg",
            b"30313233343536373839616263646567",
            true,
        );
    }

    #[test]
    fn a_password_is_neither_short_nor_endless() {
        let check = |password: &str, valid: bool| {
            assert_eq!(PasswordHash::new(password, [0; 16]).is_ok(), valid);
        };
        check("", false);
        check("fifteen letters", false);
        check("sixteen letters!", true);
        check(&"x".repeat(64), true);
        check(&"x".repeat(65), false);
    }

    #[test]
    fn equal_passwords_look_different_and_are_never_shown() {
        let hash = |salt| PasswordHash::new("sixteen letters!", [salt; 16]).unwrap();
        assert_ne!(hash(1).hash(), hash(2).hash());
        assert_eq!(format!("{:?}", hash(1)), "PasswordHash(…)");
    }
}
