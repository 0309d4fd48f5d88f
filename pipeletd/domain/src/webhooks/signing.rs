//! Signatures by which a receiver knows that a delivery is ours and was not changed: Standard
//! Webhooks (github.com/standard-webhooks, specification 1.0), with symmetric secrets.
//!
//! A secret that was replaced signs beside the new one for a while, so that a receiver can change
//! over without losing a delivery. Secrets are never shown but by [`SigningSecret::expose`], which
//! has three callers: the store, the signature, and the answer to whoever had it made.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use ring::hmac;

use super::Secret;

/// What a delivery is signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret {
    bytes: Box<[u8]>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a signing secret is \"whsec_\" and {} to {} bytes in base64",
    SigningSecret::MIN_LEN,
    SigningSecret::MAX_LEN
)]
pub struct InvalidSigningSecret;

/// The secrets of one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    current: SigningSecret,
    /// The latest first.
    retired: Vec<Retired>,
}

/// A secret that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    pub secret: SigningSecret,
    /// It signs up to then.
    pub until: Timestamp,
}

impl SigningSecret {
    const PREFIX: &str = "whsec_";
    /// In bytes, as the specification has them.
    const MIN_LEN: usize = 24;
    const MAX_LEN: usize = 64;
    /// Of one that is made here: as many as the signature has.
    const MADE_LEN: usize = 32;

    pub fn parse(text: &Secret) -> Result<Self, InvalidSigningSecret> {
        let bytes = text
            .expose()
            .strip_prefix(Self::PREFIX)
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .filter(|bytes| (Self::MIN_LEN..=Self::MAX_LEN).contains(&bytes.len()));
        let bytes = bytes.ok_or(InvalidSigningSecret)?.into();
        Ok(Self { bytes })
    }

    /// A random one.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; Self::MADE_LEN];
        getrandom::fill(&mut bytes)?;
        Ok(Self {
            bytes: bytes.into(),
        })
    }

    /// As receivers' libraries take it.
    pub fn expose(&self) -> Secret {
        Secret::new(format!("{}{}", Self::PREFIX, STANDARD.encode(&self.bytes)))
    }

    /// Ready to sign, so that a signature doesn't begin with the key's own hashing.
    pub fn signer(&self) -> Signer {
        Signer(hmac::Key::new(hmac::HMAC_SHA256, &self.bytes))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

/// Signs with one secret.
#[derive(Debug, Clone)]
pub struct Signer(hmac::Key);

impl Signer {
    /// The signature of a message that is sent at this second, as in `v1,K5oZfzN95Z9UVu1E…`.
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl Signing {
    /// How long a secret that was replaced still signs.
    pub const GRACE: Duration = Duration::from_hours(24);
    /// So many that were replaced sign at most: each makes the header longer.
    const MAX_RETIRED: usize = 3;

    pub fn new(secret: SigningSecret) -> Self {
        Self {
            current: secret,
            retired: Vec::new(),
        }
    }

    /// As a store has it.
    pub fn from_parts(current: SigningSecret, retired: Vec<Retired>) -> Self {
        Self { current, retired }
    }

    pub const fn current(&self) -> &SigningSecret {
        &self.current
    }

    pub fn retired(&self) -> &[Retired] {
        &self.retired
    }

    /// With a new secret, the present one signing beside it for [`Self::GRACE`].
    #[must_use]
    pub fn rotated(&self, new: SigningSecret, now: Timestamp) -> Self {
        let retired = Retired {
            secret: self.current.clone(),
            until: now + Self::GRACE,
        };
        let still_sign = self.retired.iter().filter(|old| old.until > now);
        Self {
            current: new,
            retired: [retired]
                .into_iter()
                .chain(still_sign.cloned())
                .take(Self::MAX_RETIRED)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SigningSecret {
        SigningSecret::parse(&Secret::new(text)).unwrap()
    }

    /// The specification's own example.
    #[test]
    fn signatures_are_the_standards() {
        let secret = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let signed = secret
            .signer()
            .sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_a_secret() {
        let of = |len: usize| format!("whsec_{}", STANDARD.encode(vec![7; len]));
        for text in [of(24), of(64)] {
            assert_eq!(secret(&text).expose().expose(), text);
        }
        let made = SigningSecret::generate().unwrap();
        assert_eq!(secret(made.expose().expose()), made);
        for text in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_no base64",
            &of(23),
            &of(65),
        ] {
            let refused = SigningSecret::parse(&Secret::new(text));
            assert_eq!(refused, Err(InvalidSigningSecret), "{text}");
        }
        assert_eq!(format!("{made:?}"), "SigningSecret(…)");
    }

    #[test]
    fn what_was_replaced_signs_for_a_day() {
        let made = |byte: u8| secret(&format!("whsec_{}", STANDARD.encode([byte; 32])));
        let now = Timestamp::UNIX_EPOCH;
        let mut signing = Signing::new(made(0)).rotated(made(1), now);
        assert_eq!(signing.current(), &made(1));
        let day = Retired {
            secret: made(0),
            until: now + Signing::GRACE,
        };
        assert_eq!(signing.retired(), [day]);
        // Those whose day is over are forgotten with the next rotation.
        signing = signing.rotated(made(2), now + Signing::GRACE);
        assert_eq!(signing.retired().len(), 1);
        for byte in 3..20 {
            signing = signing.rotated(made(byte), now + Signing::GRACE);
        }
        let retired = signing.retired().iter().map(|old| old.secret.clone());
        assert!(retired.eq([18, 17, 16].map(made)));
    }
}
