//! One station's connection, from the end of the handshake to its own end.
//!
//! One task for each: it takes a message, handles it, sends the answer, and only then reads on. It
//! never leaves a message half handled. Whatever ends it has a name, which goes into the log and
//! into the `StationDisconnected` event.

use std::future::{pending, ready};

use pipelet_domain::events::StationId;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    call_handler::{CallHandler, Incoming, Opening},
    command_queue::{Command, Control, End},
    commands::CommandError,
    connection_stats::ReasonCounts,
    ended::Ended,
    link::{Link, LinkEvent},
    outbox::{Outbox, Wakeup},
    wire,
};

/// So many messages that have come by the deadline of a CALL of ours are still read before it is
/// given up: its answer may be among them.
const LAST_LOOK: u32 = 64;

/// Tens of thousands of these live at once, and rest nearly all the time. So what happens once in a
/// connection's life, or seldom, is on the heap while it happens: the task of an async function has
/// room for the largest thing that it ever waits for.
#[derive(Debug)]
pub(super) struct Session<L> {
    link: L,
    /// What has come before it began.
    unanswered: Option<Utf8Bytes>,
    call_handler: CallHandler,
    outbox: Outbox,
    opening: Opening,
    /// Cancelled when the station may no longer be here; `None` where that can't be.
    revoked: Option<CancellationToken>,
    /// None where the gateway counts.
    ended: Option<ReasonCounts>,
}

/// A station's connection that has no session.
#[derive(Debug)]
pub(super) struct Unserved<L> {
    pub(super) link: L,
    pub(super) opening: Opening,
    pub(super) station: StationId,
    /// A message that has come, and is not answered.
    pub(super) unanswered: Option<Utf8Bytes>,
}

/// What became of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    Ended,
    HandedOver,
}

impl<L: Link> Session<L> {
    pub(super) fn new(
        unserved: Unserved<L>,
        call_handler: CallHandler,
        revoked: Option<CancellationToken>,
        ended: Option<ReasonCounts>,
    ) -> Self {
        let Unserved {
            link,
            opening,
            unanswered,
            ..
        } = unserved;
        Self {
            link,
            unanswered,
            outbox: Outbox::new(call_handler.lease().queue().clone()),
            call_handler,
            opening,
            revoked,
            ended,
        }
    }

    /// Asks the session to end.
    pub(super) fn end(&self, end: End) {
        self.call_handler.lease().queue().end(end);
    }

    /// Serves the station until one of the two ends it, or another node is to go on with it: then
    /// nothing has ended for the station.
    pub(super) async fn run(&mut self) -> Served {
        Box::pin(self.begin()).await;
        let ended = self.converse().await;
        Box::pin(self.finish(&ended)).await;
        match ended {
            Ended::HandedOver => Served::HandedOver,
            _ => Served::Ended,
        }
    }

    /// What is left of a session that was handed over.
    pub(super) fn into_parts(self) -> Unserved<L> {
        let station = self.call_handler.lease().station().clone();
        let resumed = true;
        Unserved {
            link: self.link,
            opening: Opening {
                resumed,
                ..self.opening
            },
            station,
            unanswered: None,
        }
    }

    async fn begin(&self) {
        let (station, peer) = (self.call_handler.lease().station(), self.opening.peer);
        let profile = self.opening.profile.number();
        tracing::info!(%station, %peer, profile, "station connected");
        self.call_handler.opened(&self.opening).await;
    }

    async fn finish(&mut self, ended: &Ended) {
        self.link.let_go(ended).await;
        let (station, peer) = (self.call_handler.lease().station(), self.opening.peer);
        tracing::info!(%station, %peer, reason = ended.reason(), detail = %ended, "connection ended");
        self.outbox.close();
        if let Some(unanswered) = self.outbox.give_up(CommandError::ConnectionLost) {
            self.call_handler.persist(unanswered).await;
        }
        if let Ended::HandedOver = ended {
            return self.link.hand_over().await;
        }
        if let Some(counts) = &self.ended {
            counts.count(ended.reason());
        }
        self.call_handler.closed(ended.reason()).await;
        self.link.close(ended).await;
    }

    async fn converse(&mut self) -> Ended {
        // While a CALL of ours is overdue: how many messages may still be read that are here already.
        let mut last_look: Option<u32> = None;
        let revoked = self.revoked.take();
        let mut revoked = Box::pin(async move {
            match revoked {
                Some(revoked) => revoked.cancelled_owned().await,
                None => pending().await,
            }
        });
        if let Some(text) = self.unanswered.take()
            && let Err(ended) = Box::pin(self.receive(LinkEvent::Again(text))).await
        {
            return ended;
        }
        loop {
            let heard = tokio::select! {
                biased;
                // Before the station, so that one that floods us can still be sent commands;
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
                heard = self.link.next() => heard,
                () = ready(()), if last_look.is_some() => {
                    last_look = None;
                    Box::pin(self.give_up()).await;
                    continue;
                }
            };
            let handled = match heard {
                Ok(LinkEvent::Due) => {
                    if let Err(ended) = Box::pin(self.link.tend()).await {
                        return ended;
                    }
                    continue;
                }
                Ok(heard) => Box::pin(self.receive(heard)).await,
                Err(ended) => Err(ended),
            };
            if let Err(ended) = handled {
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

    async fn receive(&mut self, heard: LinkEvent) -> Result<(), Ended> {
        self.call_handler.seen();
        let incoming = match heard {
            LinkEvent::Text(text) => self.call_handler.receive(&text, false).await,
            LinkEvent::Again(text) => self.call_handler.receive(&text, true).await,
            LinkEvent::NotText => Incoming::Call(wire::not_text()),
            LinkEvent::Sign | LinkEvent::Due => Incoming::Nothing,
        };
        match incoming {
            Incoming::Call(answer) => self.link.send(answer).await,
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
                self.link.send(text).await
            }
        }
    }

    /// Waits no longer for the answer to a CALL of ours.
    async fn give_up(&mut self) {
        if let Some(overdue) = self.outbox.give_up(CommandError::TimedOut) {
            self.call_handler.persist(overdue).await;
        }
    }
}
