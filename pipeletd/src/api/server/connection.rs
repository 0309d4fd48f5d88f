//! A caller's connection: its bytes, its place among all of them, and a limit to what it may let
//! us wait.
//!
//! What is written must leave in time. The clock starts when the caller's end takes no more, and
//! stops when all that was to be written is gone, so a reader that takes a byte now and then does
//! not hold its place for longer than one that takes none.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep, timeout},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::super::{authenticator::Peer, key_places::KeyPlaces};
use crate::system::limits::Pending;

/// From the moment that a caller does not take what is written, to its having taken it all.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection whose handshake is over.
#[derive(Debug)]
pub(in crate::api) struct Connection<S = crate::system::tls::Stream> {
    stream: S,
    address: SocketAddr,
    /// Its turn, and whether it was dropped for another one.
    pending: Arc<Pending>,
    keys: KeyPlaces,
    dropped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// What was read already, and is to be read again.
    beginning: Vec<u8>,
    patience: Duration,
    /// Runs while what is written does not leave.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Its room among all connections.
    _place: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> Connection<S> {
    pub(super) fn new(
        stream: S,
        address: SocketAddr,
        pending: Arc<Pending>,
        keys: KeyPlaces,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            stream,
            address,
            dropped: Box::pin(pending.dropped()),
            pending,
            keys,
            beginning: Vec::new(),
            patience: WRITE_TIMEOUT,
            stalled: None,
            _place: place,
        }
    }

    pub(in crate::api) fn peer(&self) -> Peer {
        Peer::new(self.address, &self.pending, self.keys.clone())
    }

    /// Waits for the first `count` bytes, which are then read like any others.
    pub(in crate::api) async fn begun(
        mut self,
        count: usize,
        within: Duration,
    ) -> io::Result<Self> {
        let mut beginning = vec![0; count];
        timeout(within, self.read_exact(&mut beginning)).await??;
        self.beginning = beginning;
        Ok(self)
    }
}

impl<S> Connection<S> {
    /// What came of trying to write, or the end of our patience.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        tried: Poll<io::Result<T>>,
        all_gone: impl FnOnce(&T) -> bool,
    ) -> Poll<io::Result<T>> {
        match tried {
            Poll::Ready(Ok(done)) => {
                if all_gone(&done) {
                    self.stalled = None;
                }
                Poll::Ready(Ok(done))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let patience = self.patience;
                let stalled = self
                    .stalled
                    .get_or_insert_with(|| Box::pin(sleep(patience)));
                ready!(stalled.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.pending.is_settled() && self.dropped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.beginning.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.beginning.len().min(buffer.remaining());
        buffer.put_slice(&self.beginning[..count]);
        self.beginning.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, tried, |written| *written == bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_flush(cx);
        self.in_time(cx, tried, |()| true)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.in_time(cx, tried, |()| true)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncWriteExt as _, DuplexStream, duplex},
        sync::Semaphore,
    };

    use super::*;
    use crate::system::limits::Turns;

    /// Our end, which takes 8 bytes before it waits, and the caller's.
    fn pair() -> (Connection<DuplexStream>, DuplexStream) {
        let (ours, theirs, _) = among(&Turns::new(1));
        (ours, theirs)
    }

    fn among(turns: &Turns) -> (Connection<DuplexStream>, DuplexStream, Arc<Pending>) {
        let (ours, theirs) = duplex(8);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let pending = Arc::new(turns.arrive(address.ip()));
        let connection = Connection::new(
            ours,
            address,
            Arc::clone(&pending),
            KeyPlaces::new(1),
            place,
        );
        (connection, theirs, pending)
    }

    async fn gives_up(mut ours: Connection<DuplexStream>) {
        ours.patience = Duration::from_millis(50);
        let error = ours.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up() {
        let (ours, _theirs) = pair();
        gives_up(ours).await;
    }

    #[tokio::test]
    async fn who_takes_a_byte_now_and_then_is_given_up_too() {
        let (ours, mut theirs) = pair();
        tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        gives_up(ours).await;
    }

    #[tokio::test]
    async fn who_was_late_and_has_taken_all_may_be_late_again() {
        let (mut ours, mut theirs) = pair();
        let mut taken = [0; 16];
        for _ in 0..3 {
            let (written, read) =
                tokio::join!(ours.write_all(&[0; 16]), theirs.read_exact(&mut taken));
            written.unwrap();
            read.unwrap();
            assert!(ours.stalled.is_none());
        }
    }

    #[tokio::test]
    async fn the_beginning_is_waited_for_and_read_again() {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"abcdef").await.unwrap();
        let mut ours = ours.begun(4, WRITE_TIMEOUT).await.unwrap();
        let mut read = [0; 6];
        ours.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"abcdef");
        assert!(ours.begun(1, Duration::from_millis(1)).await.is_err());
    }

    #[tokio::test]
    async fn who_shows_no_key_makes_room_for_others() {
        let turns = Turns::new(2);
        let (mut first, _first, _) = among(&turns);
        let (mut second, mut caller, pending) = among(&turns);
        assert!(pending.settle());
        turns.drop_one();
        turns.drop_one();
        let error = first.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        caller.write_u8(7).await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), 7);
    }
}
