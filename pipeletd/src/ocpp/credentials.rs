//! The credentials of HTTP Basic (RFC 7617), as bytes: a station's key need not be text.

use std::fmt;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Some stations leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Who a station says it is, and the password that shall show it.
#[derive(Default, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user: Vec<u8>,
    pub(super) password: Vec<u8>,
}

impl Credentials {
    /// Reads an `Authorization` header. What can't be read shows nothing, and matches nobody.
    pub(super) fn parse(header: &[u8]) -> Self {
        Self::read(header.trim_ascii()).unwrap_or_default()
    }

    fn read(header: &[u8]) -> Option<Self> {
        let (scheme, encoded) = header.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let mut user = BASE64.decode(encoded.trim_ascii()).ok()?;
        let colon = user.iter().position(|byte| *byte == b':')?;
        let password = user.split_off(colon + 1);
        user.pop();
        Some(Self { user, password })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_bytes() {
        let check = |header: &str, user: &[u8], password: &[u8]| {
            let (user, password) = (user.to_vec(), password.to_vec());
            let expected = Credentials { user, password };
            assert!(
                Credentials::parse(header.as_bytes()) == expected,
                "{header}"
            );
        };
        // RFC 7617, section 2.
        check(
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            b"Aladdin",
            b"open sesame",
        );
        check(
            " basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ ",
            b"Aladdin",
            b"open sesame",
        );
        check("Basic QTo6/wA=", b"A", b":\xff\0");
        check("Basic Og==", b"", b"");
        for nothing in ["", "Basic", "Basic QQ==", "Basic !", "Bearer QTpC"] {
            check(nothing, b"", b"");
        }
    }

    #[test]
    fn they_are_never_shown() {
        let credentials = Credentials::parse(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(format!("{credentials:?}"), "Credentials(…)");
    }
}
