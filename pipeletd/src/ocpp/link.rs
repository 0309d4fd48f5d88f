//! A station's WebSocket: its messages, how fast they are read, whether anyone is there still, and
//! the memory that all this takes. It knows no OCPP.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Message, Utf8Bytes,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    Config, TimingConfig, ended::Ended, frame_scanner::FrameScanner, unfinished::Unfinished,
};
use crate::system::limits::Bucket;

/// How long a station may take to read what we write.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// So many pings in a row have to stay unanswered by a station that has answered one.
const MISSED_PINGS: u32 = 3;
/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// In bytes. Each connection has one at all times, and for a message that is longer it gets another
/// one for a while. The room
/// behind a message is used before the buffer begins anew, so a smaller one would have more messages
/// read in two pieces.
const READ_BUFFER: usize = 768;
/// So much of what a station still sends after we closed is read and thrown away.
const MAX_REST: u64 = 8 * 1024 * 1024;

/// The way to a station, as a session needs it.
pub(super) trait Link: Send {
    /// What comes next. Loses nothing when it is dropped before.
    fn next(&mut self) -> impl Future<Output = Result<LinkEvent, Ended>> + Send;

    /// Does what [`LinkEvent::Due`] said is to be done.
    fn tend(&mut self) -> impl Future<Output = Result<(), Ended>> + Send;

    fn send(&mut self, text: String) -> impl Future<Output = Result<(), Ended>> + Send;

    /// Nothing more is wanted of the station, which may take its time to go.
    fn let_go(&mut self, ended: &Ended) -> impl Future<Output = ()> + Send;

    /// Nobody handles what comes from now on here.
    fn hand_over(&mut self) -> impl Future<Output = ()> + Send;

    /// Tells the station why, and ends.
    fn close(&mut self, ended: &Ended) -> impl Future<Output = ()> + Send;
}

#[derive(Debug)]
pub(super) enum LinkEvent {
    Text(Utf8Bytes),
    /// The same, which may have come before, and was not answered then.
    Again(Utf8Bytes),
    /// A message that is no text.
    NotText,
    /// It is there.
    Sign,
    /// [`Link::tend`] has something to do.
    Due,
}

/// That of a station which has come in here.
#[derive(Debug)]
pub(super) struct WebSocketLink<S> {
    socket: WebSocketStream<FrameScanner<S>>,
    timing: TimingConfig,
    timing_changes: watch::Receiver<TimingConfig>,
    pings: Interval,
    /// When a ping that has yet to be sent was due.
    ping_due: Option<Instant>,
    /// Then unanswered ones tell that it is gone.
    answers_pings: bool,
    last_frame: Instant,
    bucket: Bucket,
    /// A station that floods is read slowly, so that it has to wait; nothing is thrown away.
    read_from: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketLink<S> {
    /// The socket after a handshake; `rest` is what came with the request.
    pub(super) async fn new(
        stream: S,
        mut rest: Vec<u8>,
        config: &Config,
        unfinished: Unfinished,
        mut timing_changes: watch::Receiver<TimingConfig>,
    ) -> Self {
        // Thousands of stations are idle most of the time: small buffers, and nothing kept back.
        let limits = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(config.max_frame))
            .max_frame_size(Some(config.max_frame));
        let stream = FrameScanner::new(stream, &mut rest, unfinished);
        let socket =
            WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(limits)).await;
        let timing = *timing_changes.borrow_and_update();
        let now = Instant::now();
        Self {
            socket,
            pings: pings(&timing),
            timing,
            timing_changes,
            ping_due: None,
            answers_pings: false,
            last_frame: now,
            bucket: Bucket::full(timing.station_rate, now),
            read_from: None,
        }
    }

    async fn write(&mut self, message: Message) -> Result<(), Ended> {
        match timeout(WRITE_TIMEOUT, self.socket.send(message)).await {
            Ok(sent) => sent.map_err(Ended::from),
            Err(_) => Err(Ended::Stalled),
        }
    }

    /// Gives back the buffer that has grown for a large message: the WebSocket itself would keep it
    /// for as long as the connection lives. Nothing is in it that was not handled.
    async fn shrink(&mut self) -> Result<(), Ended> {
        match timeout(WRITE_TIMEOUT, self.socket.flush()).await {
            Ok(flushed) => flushed?,
            Err(_) => return Err(Ended::Stalled),
        }
        self.renew().await;
        Ok(())
    }

    /// Begins a new WebSocket on the same stream, without what this one has read.
    async fn renew(&mut self) {
        let limits = *self.socket.get_config();
        if let Some(stream) = self.socket.get_mut().take_out() {
            self.socket =
                WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits)).await;
        }
    }

    async fn ping(&mut self, due: Instant) -> Result<(), Ended> {
        // A process that was suspended has neither asked nor received anything.
        if due.elapsed() > self.timing.ping_interval {
            self.last_frame = Instant::now();
        }
        if self.last_frame.elapsed() > self.silence_limit() {
            return Err(Ended::Silent);
        }
        self.write(Message::Ping(Bytes::new())).await?;
        if self.timing_changes.has_changed().unwrap_or(false) {
            self.timing = *self.timing_changes.borrow_and_update();
            self.pings = pings(&self.timing);
            self.read_from = None;
            // Who was slower has not been silent.
            self.last_frame = Instant::now();
        }
        Ok(())
    }

    fn silence_limit(&self) -> Duration {
        if self.answers_pings {
            self.timing.ping_interval * MISSED_PINGS
        } else {
            self.timing.silence_limit()
        }
    }

    fn receive(&mut self, message: Message) -> Result<LinkEvent, Ended> {
        Ok(match message {
            Message::Text(text) => LinkEvent::Text(text),
            Message::Binary(bytes) => {
                Utf8Bytes::try_from(bytes).map_or(LinkEvent::NotText, LinkEvent::Text)
            }
            Message::Close(frame) => return Err(Ended::ByStation(frame)),
            Message::Pong(_) => {
                self.answers_pings = true;
                LinkEvent::Sign
            }
            // A ping is answered by the WebSocket itself, with the next read.
            Message::Ping(_) | Message::Frame(_) => LinkEvent::Sign,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Link for WebSocketLink<S> {
    async fn next(&mut self) -> Result<LinkEvent, Ended> {
        if self.socket.get_ref().rests_after_large_frame() {
            return Ok(LinkEvent::Due);
        }
        let message = tokio::select! {
            biased;
            message = async {
                if let Some(time) = self.read_from {
                    Box::pin(sleep_until(time)).await;
                }
                self.socket.next().await
            } => message,
            due = self.pings.tick() => {
                self.ping_due = Some(due);
                return Ok(LinkEvent::Due);
            }
        };
        self.last_frame = Instant::now();
        self.read_from = self.bucket.owe(self.timing.station_rate, self.last_frame);
        match message {
            Some(message) => self.receive(message?),
            None => Err(Ended::BrokenOff),
        }
    }

    async fn tend(&mut self) -> Result<(), Ended> {
        if self.socket.get_ref().rests_after_large_frame() {
            self.shrink().await?;
        }
        match self.ping_due.take() {
            Some(due) => self.ping(due).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, text: String) -> Result<(), Ended> {
        self.write(Message::text(text)).await
    }

    async fn let_go(&mut self, ended: &Ended) {
        // What was read of the rest of a message is given back at once.
        if ended.is_within_message() {
            self.socket.get_mut().stop_counting();
            self.renew().await;
        }
    }

    async fn hand_over(&mut self) {}

    /// Without a reset, which would overtake the news.
    async fn close(&mut self, ended: &Ended) {
        let socket = &mut self.socket;
        let farewell = async {
            let frame = ended.close_frame();
            if let Some(frame) = frame
                && socket.send(Message::Close(Some(frame))).await.is_err()
            {
                return;
            }
            if ended.is_within_message() {
                let mut rest = socket.get_mut().take(MAX_REST);
                let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
            } else {
                // This also sends the answer to the station's own close.
                while let Some(Ok(_)) = socket.next().await {}
            }
        };
        // Whoever does not finish in time is cut off.
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }
}

fn pings(timing: &TimingConfig) -> Interval {
    let mut pings = interval_at(Instant::now() + timing.ping_interval, timing.ping_interval);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}
