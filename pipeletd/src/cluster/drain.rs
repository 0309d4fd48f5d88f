//! What a node is asked about its shards: to let them go and take none, or to take them again.

use bytes::Bytes;

/// What nodes are asked about.
pub const TOPIC: &str = "drain";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainRequest {
    Drain,
    Undrain,
}

impl DrainRequest {
    pub fn parse(message: &[u8]) -> Option<Self> {
        [Self::Drain, Self::Undrain]
            .into_iter()
            .find(|request| request.word() == message)
    }

    pub const fn message(self) -> Bytes {
        Bytes::from_static(self.word())
    }

    const fn word(self) -> &'static [u8] {
        match self {
            Self::Drain => b"drain",
            Self::Undrain => b"undrain",
        }
    }
}
