//! One station's connection, from the end of the handshake to the end of the socket.
//!
//! One task for each: it reads a frame, handles the message, sends the answer, and only then reads
//! on. It never leaves a message half handled. Whatever ends it has a name, which goes into the
//! log and into the `StationDisconnected` event.

use std::{
    future::{pending, ready},
    str,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Bytes, Message,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Services, TimingConfig,
    call_handler::{CallHandler, Incoming, LOST, Opening, REPLACED},
    command_queue::{Command, Control, End},
    commands::CommandError,
    connection_stats::ReasonCounts,
    frame_scanner::{FrameScanner, TooMuchUnfinished},
    outbox::{Outbox, Wakeup},
    unfinished::Unfinished,
    wire,
};
use crate::system::limits::Bucket;

/// How long a station may take to read what we write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
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
/// So many messages that have come by the deadline of a CALL of ours are still read before it is
/// given up: its answer may be among them.
const LAST_LOOK: u32 = 64;

/// The socket after a handshake; `rest` is what came with the request.
pub(super) async fn websocket<S>(
    stream: S,
    mut rest: Vec<u8>,
    config: &Config,
    unfinished: Unfinished,
) -> WebSocketStream<FrameScanner<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Thousands of stations are idle most of the time: small buffers, and nothing kept back.
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(config.max_frame))
        .max_frame_size(Some(config.max_frame));
    let stream = FrameScanner::new(stream, &mut rest, unfinished);
    WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(limits)).await
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the station closed it with {}", .0.as_ref().map_or(1005, |frame| frame.code.into()))]
    ByStation(Option<CloseFrame>),
    #[error("the daemon is going down")]
    Shutdown,
    #[error("a newer connection of the station has come")]
    Replaced,
    #[error("an operator ended it")]
    Dismissed,
    #[error("the station is no longer registered")]
    Unregistered,
    #[error("nothing came for so long that nobody can be there")]
    Silent,
    #[error("a message is larger than the limit")]
    TooLarge,
    #[error("{TooMuchUnfinished}")]
    TooMuchUnfinished,
    #[error("a text message is not UTF-8")]
    NotUtf8,
    #[error("{0}")]
    Violation(ProtocolError),
    #[error("the station offered other subprotocols only")]
    NoSubprotocol,
    #[error("the station does not read what we write")]
    Stalled,
    #[error("the connection broke off")]
    BrokenOff,
    #[error("{0}")]
    Failed(tungstenite::Error),
}

impl Ended {
    /// All that a station's connection may end for.
    pub(super) const REASONS: [&str; 12] = [
        "closed_by_station",
        "connection_lost",
        "disconnected_by_operator",
        "frame_too_large",
        "not_utf8",
        "protocol_violation",
        "replaced",
        "shutdown",
        "silent",
        "stalled",
        "too_much_unfinished",
        "unregistered",
    ];

    /// A word that never changes: it is in the disconnection's event.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::ByStation(_) => "closed_by_station",
            Self::Shutdown => "shutdown",
            Self::Replaced => REPLACED,
            Self::Dismissed => "disconnected_by_operator",
            Self::Unregistered => "unregistered",
            Self::Silent => "silent",
            Self::TooLarge => "frame_too_large",
            Self::TooMuchUnfinished => "too_much_unfinished",
            Self::NotUtf8 => "not_utf8",
            Self::Violation(_) => "protocol_violation",
            Self::NoSubprotocol => "no_common_subprotocol",
            Self::Stalled => "stalled",
            Self::BrokenOff | Self::Failed(_) => LOST,
        }
    }

    /// Whether the rest of a message may still be coming, of which nothing is wanted: what was read
    /// of it is let go at once, because a station can take its time to go.
    const fn is_within_message(&self) -> bool {
        match self {
            Self::TooLarge | Self::TooMuchUnfinished | Self::NotUtf8 | Self::Violation(_) => true,
            Self::ByStation(_)
            | Self::Shutdown
            | Self::Replaced
            | Self::Dismissed
            | Self::Unregistered
            | Self::Silent
            | Self::NoSubprotocol
            | Self::Stalled
            | Self::BrokenOff
            | Self::Failed(_) => false,
        }
    }

    fn close_frame(&self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Shutdown => (CloseCode::Away, "the central system is going down"),
            Self::Replaced => (CloseCode::Normal, "a newer connection has come"),
            Self::Dismissed => (CloseCode::Normal, "an operator ended the connection"),
            Self::Unregistered => (CloseCode::Policy, "the station is not registered"),
            Self::Silent => (CloseCode::Away, "nothing was heard for too long"),
            Self::TooLarge => (CloseCode::Size, "the message is too large"),
            Self::TooMuchUnfinished => (CloseCode::Again, "too many unfinished messages"),
            Self::NotUtf8 => (CloseCode::Invalid, "the message is not UTF-8"),
            Self::Violation(_) => (CloseCode::Protocol, "not a valid WebSocket frame"),
            Self::NoSubprotocol => (CloseCode::Protocol, "only ocpp1.6 is spoken here"),
            Self::ByStation(_) | Self::Stalled | Self::BrokenOff | Self::Failed(_) => return None,
        };
        Some(CloseFrame {
            code,
            reason: reason.into(),
        })
    }
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        match end {
            End::Dismissed => Self::Dismissed,
            End::Replaced => Self::Replaced,
            End::Shutdown => Self::Shutdown,
        }
    }
}

impl From<tungstenite::Error> for Ended {
    fn from(error: tungstenite::Error) -> Self {
        use tungstenite::Error;
        match error {
            Error::Capacity(_) => Self::TooLarge,
            Error::Utf8(_) => Self::NotUtf8,
            Error::Io(error) if error.get_ref().is_some_and(TooMuchUnfinished::is_cause) => {
                Self::TooMuchUnfinished
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::BrokenOff,
            Error::Protocol(violation) => Self::Violation(violation),
            error => Self::Failed(error),
        }
    }
}

/// Tens of thousands of these live at once, and rest nearly all the time. So what happens once in a
/// connection's life, or seldom, is on the heap while it happens: the task of an async function has
/// room for the largest thing that it ever waits for.
#[derive(Debug)]
pub(super) struct Session<S> {
    socket: WebSocketStream<FrameScanner<S>>,
    call_handler: CallHandler,
    outbox: Outbox,
    opening: Opening,
    timing: TimingConfig,
    timing_changes: watch::Receiver<TimingConfig>,
    /// Then unanswered ones tell that it is gone.
    answers_pings: bool,
    /// Cancelled when the station may no longer be here; `None` where that can't be.
    revoked: Option<CancellationToken>,
    clock: crate::system::clock::Clock,
    ended: ReasonCounts,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(super) fn new(
        socket: WebSocketStream<FrameScanner<S>>,
        call_handler: CallHandler,
        opening: Opening,
        revoked: Option<CancellationToken>,
        services: &Services,
    ) -> Self {
        let mut timing_changes = services.timing.subscribe();
        let timing = *timing_changes.borrow_and_update();
        Self {
            socket,
            outbox: Outbox::new(call_handler.lease().queue().clone()),
            call_handler,
            opening,
            timing,
            timing_changes,
            answers_pings: false,
            revoked,
            clock: services.clock,
            ended: services.stats.ended.clone(),
        }
    }

    /// Asks the session to end.
    pub(super) fn end(&self, end: End) {
        self.call_handler.lease().queue().end(end);
    }

    /// Serves the station until one of the two ends it.
    pub(super) async fn run(&mut self) {
        Box::pin(self.begin()).await;
        let ended = self.converse().await;
        Box::pin(self.finish(&ended)).await;
    }

    async fn begin(&self) {
        let (station, peer) = (self.call_handler.lease().station(), self.opening.peer);
        let profile = self.opening.profile.number();
        tracing::info!(%station, %peer, profile, "station connected");
        self.call_handler.opened(&self.opening).await;
    }

    async fn finish(&mut self, ended: &Ended) {
        if ended.is_within_message() {
            self.socket.get_mut().stop_counting();
            self.renew().await;
        }
        let (station, peer) = (self.call_handler.lease().station(), self.opening.peer);
        tracing::info!(%station, %peer, reason = ended.reason(), detail = %ended, "connection ended");
        self.ended.count(ended.reason());
        self.outbox.close();
        if let Some(unanswered) = self.outbox.give_up(CommandError::ConnectionLost) {
            self.call_handler.persist(unanswered).await;
        }
        self.call_handler.closed(ended.reason()).await;
        close(&mut self.socket, ended).await;
    }

    async fn converse(&mut self) -> Ended {
        let mut pings = pings(&self.timing);
        let mut last_frame = Instant::now();
        let mut bucket = Bucket::full(self.timing.station_rate, last_frame);
        // A station that floods is read slowly, so that it has to wait; nothing is thrown away.
        let mut read_from = None;
        // While a CALL of ours is overdue: how many messages may still be read that are here already.
        let mut last_look: Option<u32> = None;
        let revoked = self.revoked.take();
        let mut revoked = Box::pin(async move {
            match revoked {
                Some(revoked) => revoked.cancelled_owned().await,
                None => pending().await,
            }
        });
        loop {
            let message = tokio::select! {
                biased;
                // Before the socket, so that a station that floods us can still be sent commands;
                // as only one CALL is outstanding, they can't keep its messages waiting.
                wakeup = self.outbox.wakeup(last_look.is_none()) => {
                    match wakeup {
                        Wakeup::Control(control) => {
                            if let Err(ended) = Box::pin(self.handle_control(control)).await {
                                return ended;
                            }
                        }
                        // An answer that came while this task was busy came in time.
                        Wakeup::Overdue => last_look = Some(LAST_LOOK),
                    }
                    continue;
                }
                () = &mut revoked => return Ended::Unregistered,
                message = async {
                    if let Some(time) = read_from {
                        Box::pin(sleep_until(time)).await;
                    }
                    self.socket.next().await
                } => message,
                () = ready(()), if last_look.is_some() => {
                    last_look = None;
                    Box::pin(self.give_up()).await;
                    continue;
                }
                due = pings.tick() => {
                    // A process that was suspended has neither asked nor received anything.
                    if due.elapsed() > self.timing.ping_interval {
                        last_frame = Instant::now();
                    }
                    if last_frame.elapsed() > self.silence_limit() {
                        return Ended::Silent;
                    }
                    if let Err(ended) = Box::pin(self.send(Message::Ping(Bytes::new()))).await {
                        return ended;
                    }
                    if self.timing_changes.has_changed().unwrap_or(false) {
                        self.timing = *self.timing_changes.borrow_and_update();
                        pings = self::pings(&self.timing);
                        read_from = None;
                        // Who was slower has not been silent.
                        last_frame = Instant::now();
                    }
                    continue;
                }
            };
            last_frame = Instant::now();
            read_from = bucket.owe(self.timing.station_rate, last_frame);
            self.call_handler.lease().seen(self.clock.now());
            if let Some(Ok(Message::Pong(_))) = message {
                self.answers_pings = true;
            }
            let handled = match message {
                Some(Ok(message)) => Box::pin(self.receive(message)).await,
                Some(Err(error)) => Err(error.into()),
                None => Err(Ended::BrokenOff),
            };
            if let Err(ended) = handled {
                return ended;
            }
            if self.socket.get_ref().rests_after_large_frame()
                && let Err(ended) = Box::pin(self.shrink()).await
            {
                return ended;
            }
            last_look = match last_look {
                Some(left) if self.outbox.is_outstanding() => Some(left - 1),
                Some(_) | None => None,
            };
            if last_look == Some(0) {
                last_look = None;
                Box::pin(self.give_up()).await;
            }
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

    fn silence_limit(&self) -> Duration {
        if self.answers_pings {
            self.timing.ping_interval * MISSED_PINGS
        } else {
            self.timing.silence_limit()
        }
    }

    async fn receive(&mut self, message: Message) -> Result<(), Ended> {
        let incoming = match message {
            Message::Text(text) => self.call_handler.receive(&text).await,
            Message::Binary(bytes) => match str::from_utf8(&bytes) {
                Ok(text) => self.call_handler.receive(text).await,
                Err(_) => Incoming::Call(wire::call_error(
                    wire::MessageId::UNREADABLE,
                    wire::ErrorCode::FormationViolation,
                    "the message is not text",
                )),
            },
            Message::Close(frame) => return Err(Ended::ByStation(frame)),
            // A ping is answered by the WebSocket itself, with the next read.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Incoming::Nothing,
        };
        match incoming {
            Incoming::Call(answer) => self.send(Message::text(answer)).await,
            Incoming::Answer { message_id, answer } => {
                match self.outbox.answered(&message_id, answer) {
                    Some(settled) => Box::pin(self.call_handler.persist(settled)).await,
                    None => self.call_handler.unexpected_answer(&message_id),
                }
                Ok(())
            }
            Incoming::Nothing => Ok(()),
        }
    }

    /// Does what others want of the connection.
    async fn handle_control(&mut self, control: Control) -> Result<(), Ended> {
        match control {
            Control::End(end) => Err(end.into()),
            Control::Send(command) => {
                let Command {
                    action,
                    payload,
                    deadline,
                    caller,
                } = command;
                if let Some(status) = self.call_handler.forbids(action) {
                    let station = self.call_handler.lease().station().clone();
                    caller.notify(Err(CommandError::NotAccepted { station, status }));
                    return Ok(());
                }
                let Some(event) = self.call_handler.begin(action, payload) else {
                    caller.notify(Err(CommandError::NoMessageId));
                    return Ok(());
                };
                let text = self.outbox.send(event, deadline, caller);
                self.send(Message::text(text)).await
            }
        }
    }

    /// Waits no longer for the answer to a CALL of ours.
    async fn give_up(&mut self) {
        if let Some(overdue) = self.outbox.give_up(CommandError::TimedOut) {
            self.call_handler.persist(overdue).await;
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Ended> {
        match timeout(WRITE_TIMEOUT, self.socket.send(message)).await {
            Ok(sent) => sent.map_err(Ended::from),
            Err(_) => Err(Ended::Stalled),
        }
    }
}

fn pings(timing: &TimingConfig) -> Interval {
    let mut pings = interval_at(Instant::now() + timing.ping_interval, timing.ping_interval);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

/// Tells the station why, and ends the socket without a reset that would overtake the news.
pub(super) async fn close<S>(socket: &mut WebSocketStream<S>, ended: &Ended)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
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
