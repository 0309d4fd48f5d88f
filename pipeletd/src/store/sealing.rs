//! Secrets at rest: sealed with AES-256-GCM, each bound to the place where it is kept.
//!
//! A sealed secret names its key, so that it can still be opened while a newer key takes over,
//! and it opens in its own place only: whoever can write to the disk, but has no key, can't have
//! one webhook's secret sent to another one's receiver.
//!
//! It knows no files and no records.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pipelet_domain::webhooks::{Secret, WebhookId};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

/// A random key. Its id is derived from it, so that a wrong key is known by its id alone.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SecretKey([u8; SecretKey::LEN]);

/// The first bytes of a hash of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId([u8; KeyId::LEN]);

/// The keys that open secrets; the first is the newest and the only one that seals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SecretKeys {
    newest: SecretKey,
    older: Vec<SecretKey>,
}

/// Where a secret is kept. Its bytes are fixed for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    WebhookSecret(WebhookId),
    SigningSecret(WebhookId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    #[error("the system has no random bytes")]
    Random,
    #[error("it is too long to be sealed")]
    Long,
    #[error("it is sealed with a key that is not in the key file")]
    UnknownKey,
    #[error("it was changed after it was sealed, or belongs elsewhere")]
    Damaged,
}

impl SecretKey {
    /// In bytes.
    pub(super) const LEN: usize = 32;

    pub(super) fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; Self::LEN];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    pub(super) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(super) const fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    pub(super) fn id(&self) -> KeyId {
        let hash = Sha256::new_with_prefix("pipelet secrets key")
            .chain_update(self.0)
            .finalize();
        let mut id = [0; KeyId::LEN];
        id.copy_from_slice(&hash[..KeyId::LEN]);
        KeyId(id)
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.0);
        LessSafeKey::new(key.expect("a key has the cipher's length"))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl KeyId {
    const LEN: usize = 8;

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl SecretKeys {
    /// None where there is no key.
    pub(super) fn new(keys: impl IntoIterator<Item = SecretKey>) -> Option<Self> {
        let mut keys = keys.into_iter();
        let newest = keys.next()?;
        Some(Self {
            newest,
            older: keys.collect(),
        })
    }

    pub(super) const fn newest(&self) -> &SecretKey {
        &self.newest
    }

    pub(super) fn has_older(&self) -> bool {
        !self.older.is_empty()
    }

    pub(super) fn find(&self, id: KeyId) -> Option<&SecretKey> {
        self.iter().find(|key| key.id() == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SecretKey> {
        [&self.newest].into_iter().chain(&self.older)
    }

    /// Text that is worth nothing without the key: key id, nonce, and what AES-256-GCM makes of
    /// the secret, in base64.
    pub(super) fn seal(&self, place: Place, secret: &Secret) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        // Random ones repeat after about 2^48; a key should see no more than 2^32 (NIST SP
        // 800-38D, section 8.3), which changes of webhooks don't reach.
        getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut text = secret.expose().as_bytes().to_vec();
        self.newest
            .cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place.bytes()),
                &mut text,
            )
            .map_err(|_| SealError::Long)?;
        let id = self.newest.id();
        Ok(STANDARD.encode([id.as_bytes(), &nonce, &text].concat()))
    }

    pub(super) fn open(&self, place: Place, sealed: &str) -> Result<Secret, SealError> {
        let bytes = STANDARD.decode(sealed).map_err(|_| SealError::Damaged)?;
        let (id, rest) = split::<{ KeyId::LEN }>(&bytes)?;
        let (nonce, text) = split::<NONCE_LEN>(rest)?;
        let key = self.find(KeyId(id)).ok_or(SealError::UnknownKey)?;
        let mut text = text.to_vec();
        let opened = key.cipher().open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place.bytes()),
            &mut text,
        );
        let opened = opened.map_err(|_| SealError::Damaged)?;
        let opened = std::str::from_utf8(opened).map_err(|_| SealError::Damaged)?;
        Ok(Secret::new(opened))
    }
}

fn split<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), SealError> {
    let split = bytes.split_first_chunk::<N>().ok_or(SealError::Damaged)?;
    Ok((*split.0, split.1))
}

impl Place {
    fn bytes(self) -> Vec<u8> {
        let (kind, id): (&[u8], _) = match self {
            Self::WebhookSecret(id) => (b"webhook/secret_value/", id),
            Self::SigningSecret(id) => (b"webhook/signing_secret/", id),
        };
        [kind, &id.0.to_be_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place::WebhookSecret(WebhookId(1));

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes([byte; SecretKey::LEN])
    }

    fn keys(bytes: &[u8]) -> SecretKeys {
        SecretKeys::new(bytes.iter().copied().map(key)).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        let secret = Secret::new("schlüssel");
        let sealed = keys(&[1]).seal(HERE, &secret).unwrap();
        assert_eq!(keys(&[1]).open(HERE, &sealed), Ok(secret.clone()));
        assert_eq!(keys(&[2, 1]).open(HERE, &sealed), Ok(secret.clone()));
        let refused = keys(&[2, 3]).open(HERE, &sealed);
        assert_eq!(refused, Err(SealError::UnknownKey));
        let elsewhere = keys(&[1]).open(Place::WebhookSecret(WebhookId(2)), &sealed);
        assert_eq!(elsewhere, Err(SealError::Damaged));
        assert_ne!(keys(&[1]).seal(HERE, &secret).unwrap(), sealed);
    }

    #[test]
    fn the_newest_key_seals() {
        let sealed = keys(&[2, 1]).seal(HERE, &Secret::new("s")).unwrap();
        assert!(keys(&[2]).open(HERE, &sealed).is_ok());
        assert_eq!(keys(&[1]).open(HERE, &sealed), Err(SealError::UnknownKey));
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let sealed = keys(&[1]).seal(HERE, &Secret::new("secret")).unwrap();
        let bytes = STANDARD.decode(&sealed).unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            let opened = keys(&[1]).open(HERE, &STANDARD.encode(changed));
            let expected = if index < KeyId::LEN {
                SealError::UnknownKey
            } else {
                SealError::Damaged
            };
            assert_eq!(opened, Err(expected), "byte {index}");
        }
        for length in 0..bytes.len() {
            let cut = STANDARD.encode(&bytes[..length]);
            assert!(keys(&[1]).open(HERE, &cut).is_err(), "{length} bytes");
        }
        let opened = keys(&[1]).open(HERE, "no base64!");
        assert_eq!(opened, Err(SealError::Damaged));
    }

    #[test]
    fn a_key_is_never_shown() {
        assert_eq!(format!("{:?}", key(7)), "SecretKey(…)");
    }

    /// What one version sealed, every later one opens. Sealed with another implementation.
    #[test]
    fn the_bytes_are_fixed_for_ever() {
        let id = key(7).id();
        assert_eq!(id.as_bytes(), b"\x5e\x26\x1d\x4d\x71\xf2\x99\x1f");
        let sealed = "XiYdTXHymR8AAQIDBAUGBwgJCgtw9IcEeHvrnUDJA6Z0EhIJ44+rEpfzpA==";
        assert_eq!(keys(&[7]).open(HERE, sealed), Ok(Secret::new("hunter2")));
    }
}
