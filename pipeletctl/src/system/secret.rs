//! A secret that the user hands over.
//!
//! Invariant: it never shows in a `Debug`. Whether it is acceptable, the daemon decides.

use std::{
    convert::Infallible,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

/// More than any header may hold, so whatever is longer was the wrong file.
const MAX_BYTES: u64 = 64 * 1024;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

#[derive(Debug, thiserror::Error)]
#[error("cannot read the secret from {}", path.display())]
pub(crate) struct SecretError {
    path: PathBuf,
    source: io::Error,
}

impl Secret {
    /// The secret itself, or what is in the file.
    pub(crate) fn given(
        value: Option<Self>,
        file: Option<PathBuf>,
    ) -> Result<Option<Self>, SecretError> {
        match (value, file) {
            (Some(value), _) => Ok(Some(value)),
            (None, Some(path)) => match Self::read(&path) {
                Ok(secret) => Ok(Some(secret)),
                Err(source) => Err(SecretError { path, source }),
            },
            (None, None) => Ok(None),
        }
    }

    /// Reads a file, or standard input where it is called `-`. One line break at the end is the
    /// editor's, not the secret's.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            Self::read_from(io::stdin().lock())
        } else {
            Self::read_from(File::open(path)?)
        }
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }

    pub(crate) fn as_text(&self) -> &str {
        &self.0
    }

    fn read_from(source: impl Read) -> io::Result<Self> {
        let mut text = String::new();
        source.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "longer than 64 KiB",
            ));
        }
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        Ok(Self(line.to_owned()))
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_dropped() {
        for (file, secret) in [
            ("s3cret", "s3cret"),
            ("s3cret\n", "s3cret"),
            ("s3cret\r\n", "s3cret"),
            ("s3cret\n\n", "s3cret\n"),
            (" s3cret ", " s3cret "),
        ] {
            let read = Secret::read_from(file.as_bytes()).unwrap();
            assert_eq!(read.as_text(), secret, "{file:?}");
        }
    }

    #[test]
    fn a_huge_file_is_refused() {
        let error = Secret::read_from(io::repeat(b'x')).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", Secret("s3cret".into())), "Secret(…)");
    }
}
