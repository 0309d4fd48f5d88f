//! API keys: `hcpms_live_` and 192 random bits, with what they allow and for how long.
//!
//! Only hashes are kept. Keys are random, so one SHA-256 is enough: there is nothing to guess
//! that a slower hash would protect. Every known hash is compared, each in constant time.

use std::{fmt, io, path::Path};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

pub use self::role::{InvalidRole, Role};
use crate::system::private_file;

mod role;

/// A key in the clear: shown once, when it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an API key is {prefix:?} and at least {min} letters, digits, \"-\" or \"_\"",
    prefix = ApiKey::PREFIX, min = ApiKey::MIN_SECRET
)]
pub struct InvalidApiKey;

impl ApiKey {
    pub const PREFIX: &str = "hcpms_live_";
    /// Characters behind the prefix, in a key that is chosen elsewhere.
    const MIN_SECRET: usize = 16;

    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = [0; 24];
        getrandom::fill(&mut random)?;
        Ok(Self(format!("{}{}", Self::PREFIX, base64url(&random))))
    }

    /// Takes a key that was chosen elsewhere.
    pub fn parse(text: &str) -> Result<Self, InvalidApiKey> {
        let secret = text.strip_prefix(Self::PREFIX).ok_or(InvalidApiKey)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if secret.len() < Self::MIN_SECRET || !secret.bytes().all(allowed) {
            return Err(InvalidApiKey);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// 24 bytes are 32 characters, without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8; 24]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sextets = bytes.chunks(3).flat_map(|three| {
        let bits = three
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 0x3f) as usize])
    });
    sextets.map(char::from).collect()
}

/// SHA-256 of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Takes the same time whatever differs.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyInfo {
    pub id: u64,
    pub name: String,
    pub created_at: Timestamp,
    pub hash: KeyHash,
    /// Never changes; whoever needs another gets another key.
    pub role: Role,
    /// From then on it lets nobody in.
    pub expires_at: Option<Timestamp>,
    /// About: what is stored of it may be a minute old.
    pub last_used_at: Option<Timestamp>,
}

impl ApiKeyInfo {
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether it can make other keys for ever.
    pub fn is_lasting_admin(&self) -> bool {
        self.role == Role::Admin && self.expires_at.is_none()
    }
}

/// Writes the first key where its owner, and nobody else, can read it. It is on disk when this
/// returns: once the store knows the key, it is never written again.
pub fn write_admin_key(path: &Path, key: &ApiKey) -> io::Result<()> {
    private_file::replace(path, format!("{}\n", key.expose()).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_key_is_192_bits_behind_the_prefix() {
        let key = ApiKey::generate().unwrap();
        assert_eq!(key.expose().len(), ApiKey::PREFIX.len() + 32);
        assert_eq!(ApiKey::parse(key.expose()), Ok(key.clone()));
        assert_ne!(ApiKey::generate().unwrap(), key);
        assert!(!format!("{key:?}").contains(key.expose()));
        assert_eq!(base64url(&[0xff; 24]), "_".repeat(32));
        assert_eq!(
            base64url(b"any carnal pleasure.....").as_str(),
            "YW55IGNhcm5hbCBwbGVhc3VyZS4uLi4u"
        );
    }

    #[test]
    fn keys_that_are_none() {
        for text in [
            "",
            "hcpms_live_",
            "hcpms_live_short",
            "live_0123456789abcdef",
            "hcpms_live_0123456789abcde\n",
        ] {
            assert_eq!(ApiKey::parse(text), Err(InvalidApiKey), "{text:?}");
        }
    }

    #[test]
    fn the_admin_key_is_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.key");
        let key = ApiKey::generate().unwrap();
        write_admin_key(&path, &key).unwrap();
        write_admin_key(&path, &key).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().trim(), key.expose());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
