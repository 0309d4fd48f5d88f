//! A socket to a receiver, with or without TLS, and how much may come over it.
//!
//! A receiver says little, so there is an [`Allowance`] of bytes for each exchange, beyond which
//! reading fails: whatever it is that comes without end (interim answers, pings, TLS records), it
//! ends there. And one that sends fast is read in portions, between which other tasks have their
//! turn.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// So much is read at a stretch, in bytes. Most answers are smaller.
const PORTION: usize = 1024;

/// What may still be read from a socket, in bytes. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// For a handshake, or for one exchange: several times of what the largest answer needs that
    /// is read, its head included, even where each line of it comes in a TLS record of its own.
    pub(super) const EXCHANGE: usize = 512 * 1024;
    /// For one exchange over a connection that has others, too.
    pub(super) const STREAM: usize = 64 * 1024;

    /// Allows at least so much from now on.
    pub(super) fn at_least(&self, bytes: usize) {
        self.0.fetch_max(bytes, Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct Metered {
    socket: TcpStream,
    left: Allowance,
    /// Read since the socket had nothing, or others had their turn.
    at_a_stretch: usize,
}

impl Metered {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            left: Allowance(Arc::new(AtomicUsize::new(Allowance::EXCHANGE))),
            at_a_stretch: 0,
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.at_a_stretch >= PORTION {
            this.at_a_stretch = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let left = this.left.0.load(Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        let room = PORTION.min(buffer.remaining());
        let mut portion = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let Poll::Ready(read) = Pin::new(&mut this.socket).poll_read(context, &mut portion) else {
            this.at_a_stretch = 0;
            return Poll::Pending;
        };
        read?;
        let read = portion.filled().len();
        buffer.advance(read);
        this.at_a_stretch += read;
        // An attempt may have allowed more meanwhile.
        let less = |left: usize| Some(left.saturating_sub(read));
        let _ = this.left.0.fetch_update(Relaxed, Relaxed, less);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

#[derive(Debug)]
pub(super) enum Stream {
    Plain(Metered),
    Tls(Box<TlsStream<Metered>>),
}

impl Stream {
    pub(super) fn allowance(&self) -> Allowance {
        self.metered().left.clone()
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.metered().socket
    }

    /// Whether both sides chose HTTP/2 (RFC 7301).
    pub(super) fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    fn metered(&self) -> &Metered {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
