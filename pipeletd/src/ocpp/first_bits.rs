//! Overlooks a bit that some chargers set in every frame.
//!
//! RSV1 says that a message is compressed (RFC 7692, section 6), which we never agree on; RFC 6455,
//! section 5.2, has the connection failed for it. Chargers that set the bit anyway send plain text
//! (ocpp-go#358), and would dial again for ever. So the bit is cleared below the WebSocket. A
//! message that really is compressed is then no JSON, and gets its CALLERROR.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// Lengths that say how many bytes the real length has.
const TWO_BYTES: u8 = 126;
const EIGHT_BYTES: u8 = 127;
/// The masking key's bytes, which stand before the payload.
const KEY: u64 = 4;

/// A stream of frames whose first bytes have RSV1 cleared as they are read.
#[derive(Debug)]
pub(super) struct Overlooking<S> {
    stream: S,
    frames: Frames,
}

impl<S> Overlooking<S> {
    /// `rest` was read from the stream before, and is the beginning of its frames.
    pub(super) fn new(stream: S, rest: &mut [u8]) -> Self {
        let mut frames = Frames::default();
        frames.pass(rest);
        Self { stream, frames }
    }
}

/// Where in the frames (RFC 6455, section 5.2) the next byte stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Frames {
    #[default]
    FirstByte,
    Length,
    /// So many bytes of an extended length are left.
    ExtendedLength {
        left: u8,
        length: u64,
        key: u64,
    },
    /// So many bytes of masking key and payload are left.
    Content(u64),
}

impl Frames {
    const fn content(length: u64) -> Self {
        if length == 0 {
            Self::FirstByte
        } else {
            Self::Content(length)
        }
    }

    /// Follows the frames through `bytes`, and clears the bit where one begins.
    pub(super) fn pass(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if let Self::Content(left) = *self {
                let there = bytes.len() - at;
                let skipped = usize::try_from(left).map_or(there, |left| left.min(there));
                *self = Self::content(left - skipped as u64);
                at += skipped;
            } else {
                *self = self.after(&mut bytes[at]);
                at += 1;
            }
        }
    }

    /// Where the byte after this one stands, which is none of a frame's content.
    const fn after(self, byte: &mut u8) -> Self {
        match self {
            Self::FirstByte => {
                *byte &= !RSV1;
                Self::Length
            }
            Self::Length => {
                let key = if *byte & MASKED == 0 { 0 } else { KEY };
                match *byte & LENGTH {
                    TWO_BYTES => Self::ExtendedLength {
                        left: 2,
                        length: 0,
                        key,
                    },
                    EIGHT_BYTES => Self::ExtendedLength {
                        left: 8,
                        length: 0,
                        key,
                    },
                    length => Self::content(length as u64 + key),
                }
            }
            Self::ExtendedLength { left, length, key } => {
                let length = length << 8 | *byte as u64;
                match left {
                    0 | 1 => Self::content(length.saturating_add(key)),
                    left => Self::ExtendedLength {
                        left: left - 1,
                        length,
                        key,
                    },
                }
            }
            Self::Content(left) => Self::content(left.saturating_sub(1)),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Overlooking<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.frames.pass(&mut buffer.filled_mut()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overlooking<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's frame: masked, its content all ones, so that a bit cleared there would show.
    fn frame(first: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match u16::try_from(len) {
            Ok(short @ 0..126) => frame.push(MASKED | short.to_le_bytes()[0]),
            Ok(long) => {
                frame.push(MASKED | TWO_BYTES);
                frame.extend(long.to_be_bytes());
            }
            Err(_) => {
                frame.push(MASKED | EIGHT_BYTES);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + 4 + len, 0xff);
        frame
    }

    proptest! {
        #[test]
        fn the_bit_is_cleared_in_first_bytes_and_nothing_else(
            frames in prop::collection::vec((any::<bool>(), prop_oneof![0..130_usize, 65_530..65_540_usize]), 1..6),
            piece in 1..300_usize,
        ) {
            let bytes = |bit: u8| -> Vec<u8> {
                let with = |set: bool| if set { 0x81 | bit } else { 0x81 };
                frames.iter().flat_map(|(set, len)| frame(with(*set), *len)).collect()
            };
            let (mut read, plain) = (bytes(RSV1), bytes(0));
            let mut state = Frames::default();
            read.chunks_mut(piece).for_each(|piece| state.pass(piece));
            prop_assert_eq!(state, Frames::FirstByte);
            prop_assert!(read == plain);
        }

        #[test]
        fn random_bytes_never_panic(mut bytes: Vec<u8>) {
            Frames::default().pass(&mut bytes);
        }
    }
}
