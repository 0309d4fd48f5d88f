//! Follows a station's frames below the WebSocket, as their bytes are read.
//!
//! It ignores a bit that some chargers set in every frame. RSV1 says that a message is compressed
//! (RFC 7692, section 6), which we never agree on; RFC 6455, section 5.2, has the connection failed
//! for it. Chargers that set the bit anyway send plain text (ocpp-go#358), and would dial again for
//! ever. So the bit is cleared. A message that really is compressed is then no JSON, and gets its
//! CALLERROR.
//!
//! And it counts what the WebSocket holds of a message whose end has not come: see `unfinished`. The
//! WebSocket makes room for a whole frame when its length is there, so that is when it counts.

use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::unfinished::{self, Message, Unfinished};

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
/// In the opcode of frames that are no part of a message.
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// Lengths that say how many bytes the real length has.
const TWO_BYTES: u8 = 126;
const EIGHT_BYTES: u8 = 127;
/// The masking key's bytes, which stand before the payload.
const KEY: u64 = 4;

/// A stream of frames whose first bytes have RSV1 cleared as they are read.
#[derive(Debug)]
pub(super) struct FrameScanner<S> {
    /// None once it was taken out.
    stream: Option<S>,
    frames: Frames,
    /// None once this connection has to go.
    unfinished: Option<Unfinished>,
    /// The message that is being read, where it is large.
    message: Option<Box<Counted>>,
    /// A large frame has passed, and nothing after it.
    rests: bool,
}

#[derive(Debug)]
struct Counted {
    message: Message,
    dropped: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Unfinished messages were too many bytes, and this connection's was the largest.
#[derive(Debug, thiserror::Error)]
#[error("unfinished messages take too much memory, and this one is the largest")]
pub(super) struct TooMuchUnfinished;

impl TooMuchUnfinished {
    pub(super) fn is_cause(cause: &(dyn Error + Send + Sync + 'static)) -> bool {
        cause.is::<Self>()
    }
}

impl<S> FrameScanner<S> {
    /// `rest` was read from the stream before, and is the beginning of its frames.
    pub(super) fn new(stream: S, rest: &mut [u8], unfinished: Unfinished) -> Self {
        let mut this = Self {
            stream: Some(stream),
            frames: Frames::default(),
            unfinished: Some(unfinished),
            message: None,
            rests: false,
        };
        this.pass(rest);
        this
    }

    /// The buffer of the WebSocket above has grown for a frame, and nothing that was read is in it.
    pub(super) const fn rests_after_large_frame(&self) -> bool {
        self.rests
    }

    /// Leaves nothing behind that could be read or written.
    pub(super) fn take_out(&mut self) -> Option<Self> {
        let stream = self.stream.take()?;
        Some(Self {
            stream: Some(stream),
            frames: self.frames,
            unfinished: self.unfinished.clone(),
            message: self.message.take(),
            rests: false,
        })
    }

    /// What still comes is thrown away, and counts no more.
    pub(super) fn stop_counting(&mut self) {
        (self.message, self.unfinished) = (None, None);
    }

    fn pass(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        let in_large = self.frames.left_of_large() > 0;
        self.frames.pass(bytes);
        self.rests = in_large && self.frames == Frames::default();
        let bytes = self.frames.unfinished;
        if bytes <= unfinished::FREE {
            self.message = None;
        } else if let Some(unfinished) = &self.unfinished {
            let counted = self.message.get_or_insert_with(|| {
                let message = unfinished.begin();
                let dropped = Box::pin(message.dropped());
                Box::new(Counted { message, dropped })
            });
            counted.message.grow(bytes);
        }
    }
}

/// Where in the frames (RFC 6455, section 5.2) the next byte stands, and what it is part of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Frames {
    position: Position,
    /// The first byte of the frame.
    first: u8,
    /// In bytes: the message whose end has not come, with all of a frame once its length is there.
    unfinished: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Position {
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
    /// What is still to come of a frame that the WebSocket's buffer has grown for.
    fn left_of_large(&self) -> usize {
        match self.position {
            Position::Content(left) if self.unfinished > unfinished::FREE => {
                usize::try_from(left).unwrap_or(usize::MAX)
            }
            Position::Content(_)
            | Position::FirstByte
            | Position::Length
            | Position::ExtendedLength { .. } => 0,
        }
    }

    /// Follows the frames through `bytes`, and clears the bit where one begins.
    pub(super) fn pass(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if let Position::Content(left) = self.position {
                let there = bytes.len() - at;
                let skipped = usize::try_from(left).map_or(there, |left| left.min(there));
                self.goes_on(left - skipped as u64);
                at += skipped;
            } else {
                self.take(&mut bytes[at]);
                at += 1;
            }
        }
    }

    /// A byte that is none of a frame's content.
    const fn take(&mut self, byte: &mut u8) {
        match self.position {
            Position::FirstByte => {
                *byte &= !RSV1;
                self.first = *byte;
                self.position = Position::Length;
            }
            Position::Length => {
                let key = if *byte & MASKED == 0 { 0 } else { KEY };
                let left = match *byte & LENGTH {
                    TWO_BYTES => 2,
                    EIGHT_BYTES => 8,
                    length => return self.begins(length as u64, key),
                };
                self.position = Position::ExtendedLength {
                    left,
                    length: 0,
                    key,
                };
            }
            Position::ExtendedLength { left, length, key } => {
                let length = length << 8 | *byte as u64;
                if left <= 1 {
                    return self.begins(length, key);
                }
                self.position = Position::ExtendedLength {
                    left: left - 1,
                    length,
                    key,
                };
            }
            Position::Content(left) => self.goes_on(left.saturating_sub(1)),
        }
    }

    /// A frame's length is there.
    const fn begins(&mut self, length: u64, key: u64) {
        if self.first & CONTROL == 0 {
            self.unfinished = self.unfinished.saturating_add(length);
        }
        self.goes_on(length.saturating_add(key));
    }

    /// So many bytes of the frame are left.
    const fn goes_on(&mut self, left: u64) {
        if left > 0 {
            self.position = Position::Content(left);
            return;
        }
        let ends = self.first & FIN != 0 && self.first & CONTROL == 0;
        self.position = Position::FirstByte;
        self.first = 0;
        if ends {
            self.unfinished = 0;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameScanner<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(counted) = &mut self.message
            && counted.dropped.as_mut().poll(context).is_ready()
        {
            self.stop_counting();
            return Poll::Ready(Err(io::Error::other(TooMuchUnfinished)));
        }
        let left = self.frames.left_of_large();
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        if left == 0 || left >= buffer.remaining() {
            let before = buffer.filled().len();
            let polled = Pin::new(stream).poll_read(context, buffer);
            self.pass(&mut buffer.filled_mut()[before..]);
            return polled;
        }
        // Not beyond a large frame, so that the WebSocket's buffer is empty after it.
        let mut frame = ReadBuf::new(buffer.initialize_unfilled_to(left));
        let polled = Pin::new(stream).poll_read(context, &mut frame);
        let read = frame.filled().len();
        self.pass(frame.filled_mut());
        buffer.advance(read);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameScanner<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

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
            prop_assert_eq!(state, Frames::default());
            prop_assert!(read == plain);
        }

        #[test]
        fn random_bytes_never_panic(mut bytes: Vec<u8>) {
            Frames::default().pass(&mut bytes);
        }
    }

    /// What is left of the message after each of these frames.
    #[test]
    fn a_message_is_unfinished_until_its_last_frame_has_ended() {
        const PING: u8 = 0x89;
        let mut frames = Frames::default();
        let mut after = |first, len| {
            frames.pass(&mut frame(first, len));
            frames.unfinished
        };
        assert_eq!(after(0x81, 10_000), 0);
        assert_eq!(after(0x01, 10_000), 10_000);
        assert_eq!(after(PING, 100), 10_000);
        assert_eq!(after(0x00, 70_000), 80_000);
        assert_eq!(after(0x80, 0), 0);
        // Announced, and not come.
        frames.pass(&mut frame(0x81, 70_000)[..10]);
        assert_eq!(frames.unfinished, 70_000);
        assert_eq!(frames.left_of_large(), 70_000 + 4);
    }

    #[tokio::test]
    async fn nothing_is_read_beyond_a_large_frame() {
        let mut bytes = [frame(0x81, 5_000), frame(0x81, 10)].concat();
        let whole = bytes.clone();
        let unfinished = Unfinished::new(1 << 20);
        let first = bytes.split_off(100);
        let mut stream = FrameScanner::new(&first[..], &mut bytes, unfinished.clone());
        assert_eq!(unfinished.bytes(), 5_000);
        let mut read = bytes;
        while !stream.rests_after_large_frame() {
            stream.read_buf(&mut read).await.unwrap();
        }
        assert_eq!(
            (read.len(), unfinished.bytes()),
            (frame(0x81, 5_000).len(), 0)
        );
        let mut stream = stream.take_out().unwrap();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, whole);
    }

    #[tokio::test]
    async fn who_has_to_go_learns_it_while_nothing_comes() {
        let unfinished = Unfinished::new(100_000);
        let (ours, mut theirs) = duplex(64 * 1024);
        let mut stream = FrameScanner::new(ours, &mut [], unfinished.clone());
        theirs.write_all(&frame(0x81, 60_000)[..10]).await.unwrap();
        stream.read_exact(&mut [0; 10]).await.unwrap();
        let mut other = unfinished.begin();
        other.grow(50_000);
        let error = stream.read_u8().await.unwrap_err();
        assert!(error.get_ref().unwrap().is::<TooMuchUnfinished>());
        // The rest can still be read, so that it can be thrown away.
        theirs.write_all(&vec![0; 30_000]).await.unwrap();
        stream.read_exact(&mut vec![0; 30_000]).await.unwrap();
        assert_eq!(unfinished.bytes(), 50_000);
    }
}
