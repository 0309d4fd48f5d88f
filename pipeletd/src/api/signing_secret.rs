//! Signing secrets that are made for a caller, and shown in that one answer.

use pipelet_domain::webhooks::{Field, Secret, SigningSecret};

use super::error::ApiError;

/// What a caller says of a signing secret.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) given: Field<Secret>,
    /// Whether one is to be made.
    pub(super) generate: bool,
}

impl Said {
    /// What a draft says then, and the secret that was made.
    pub(super) fn settle(self) -> Result<(Field<Secret>, Option<Secret>), ApiError> {
        if !self.generate {
            return Ok((self.given, None));
        }
        if self.given != Field::Absent {
            let message = "give a signing_secret, or have one made, but not both";
            let pointer = "/generate_signing_secret";
            return Err(ApiError::fault(pointer, "contradictory", message));
        }
        let made = make()?.expose();
        Ok((Field::Value(made.clone()), Some(made)))
    }
}

/// The secret that takes the place of another: the given one, or one that is made, which is to be
/// shown.
pub(super) fn given_or_made(
    given: Option<Secret>,
) -> Result<(SigningSecret, Option<Secret>), ApiError> {
    let Some(given) = given else {
        let made = make()?;
        let shown = made.expose();
        return Ok((made, Some(shown)));
    };
    let parsed = SigningSecret::parse(&given).map_err(|error| {
        let message = error.to_string();
        ApiError::fault("/signing_secret", "invalid_signing_secret", message)
    });
    Ok((parsed?, None))
}

fn make() -> Result<SigningSecret, ApiError> {
    SigningSecret::generate().map_err(ApiError::internal)
}
