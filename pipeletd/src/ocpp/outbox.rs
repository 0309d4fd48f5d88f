//! What a connection sends on our own account: one CALL outstanding, the others in their order.
//!
//! Invariant: what was sent is settled exactly once, by its answer, its deadline or the end of the
//! connection, and goes out as a [`Settled`] that holds its event. Knows no socket.

use std::future::pending;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    commands::{Answer, Caller, Command, CommandError},
    wire,
};
use crate::events::Event;

#[derive(Debug)]
pub(super) struct Outbox {
    commands: mpsc::Receiver<Command>,
    outstanding: Option<Outstanding>,
}

#[derive(Debug)]
struct Outstanding {
    event: Event,
    deadline: Instant,
    caller: Caller,
}

/// What there is to do.
#[derive(Debug)]
pub(super) enum Due {
    Send(Command),
    /// The outstanding CALL has had its time.
    Overdue,
}

/// A CALL that was sent, and what came of it.
#[derive(Debug)]
pub(super) struct Settled {
    pub event: Event,
    pub outcome: Result<Answer, CommandError>,
    pub caller: Caller,
}

impl Outbox {
    pub(super) const fn new(commands: mpsc::Receiver<Command>) -> Self {
        Self {
            commands,
            outstanding: None,
        }
    }

    /// Waits until there is something to do. Loses nothing when it is dropped before.
    pub(super) async fn due(&mut self) -> Due {
        if let Some(outstanding) = &self.outstanding {
            sleep_until(outstanding.deadline).await;
            return Due::Overdue;
        }
        match self.commands.recv().await {
            Some(command) => Due::Send(command),
            // A newer connection has the seat, and this one is about to hear of it.
            None => pending().await,
        }
    }

    /// The text to send for a command, which is outstanding from now on.
    pub(super) fn send(&mut self, event: Event, deadline: Instant, caller: Caller) -> String {
        let id = event.message_id.as_deref().unwrap_or_default();
        let payload = String::from_utf8_lossy(event.payload.as_bytes());
        let text = wire::call(id, event.kind.name(), &payload);
        self.outstanding = Some(Outstanding {
            event,
            deadline,
            caller,
        });
        text
    }

    /// Takes in an answer; `None` where nobody waits for it, or not any more.
    pub(super) fn answered(&mut self, message_id: &str, answer: Answer) -> Option<Settled> {
        self.outstanding
            .take_if(|outstanding| outstanding.event.message_id.as_deref() == Some(message_id))
            .map(|outstanding| outstanding.settle(Ok(answer)))
    }

    /// Waits no longer for what is outstanding.
    pub(super) fn give_up(&mut self, why: CommandError) -> Option<Settled> {
        self.outstanding
            .take()
            .map(|outstanding| outstanding.settle(Err(why)))
    }

    /// Takes no more commands; whoever has one here learns that nothing was sent.
    pub(super) fn close(&mut self) {
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
    }
}

impl Outstanding {
    fn settle(self, outcome: Result<Answer, CommandError>) -> Settled {
        Settled {
            event: self.event,
            outcome,
            caller: self.caller,
        }
    }
}
