//! What a connection sends on our own account: one CALL outstanding, the others in their order.
//!
//! Invariant: what was sent is settled exactly once, by its answer, its deadline or the end of the
//! connection, and goes out as a [`Settled`] that holds its event. Knows no socket.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use pipelet_domain::events::Event;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    command_queue::{Caller, CommandQueue, Control},
    commands::{Answer, CommandError},
    wire,
};

#[derive(Debug)]
pub(super) struct Outbox {
    queue: CommandQueue,
    /// On the heap, because there is none nearly all the time.
    outstanding: Option<Box<Outstanding>>,
}

#[derive(Debug)]
struct Outstanding {
    event: Event,
    deadline: Pin<Box<Sleep>>,
    caller: Caller,
}

/// What there is to do.
#[derive(Debug)]
pub(super) enum Wakeup {
    Control(Control),
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
    pub(super) const fn new(queue: CommandQueue) -> Self {
        Self {
            queue,
            outstanding: None,
        }
    }

    /// Waits until there is something to do, deadlines aside where they don't count now. Loses
    /// nothing when it is dropped before.
    pub(super) async fn wakeup(&mut self, deadlines_count: bool) -> Wakeup {
        poll_fn(|context| self.poll_wakeup(deadlines_count, context)).await
    }

    pub(super) const fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    fn poll_wakeup(&mut self, deadlines_count: bool, context: &mut Context<'_>) -> Poll<Wakeup> {
        let is_outstanding = self.outstanding.is_some();
        if let Poll::Ready(control) = self.queue.poll_control(is_outstanding, context) {
            return Poll::Ready(Wakeup::Control(control));
        }
        match &mut self.outstanding {
            Some(outstanding) if deadlines_count => {
                let deadline = outstanding.deadline.as_mut();
                deadline.poll(context).map(|()| Wakeup::Overdue)
            }
            Some(_) | None => Poll::Pending,
        }
    }

    /// The text to send for a command, which is outstanding from now on.
    pub(super) fn send(&mut self, event: Event, deadline: Instant, caller: Caller) -> String {
        let id = event.message_id.as_deref().unwrap_or_default();
        let payload = String::from_utf8_lossy(event.payload.as_bytes());
        let text = wire::call(id, event.kind.name(), &payload);
        self.outstanding = Some(Box::new(Outstanding {
            event,
            deadline: Box::pin(sleep_until(deadline)),
            caller,
        }));
        text
    }

    /// Takes in an answer; `None` where nobody waits for it, or not any more.
    pub(super) fn answered(
        &mut self,
        message_id: &str,
        answer: Result<Answer, CommandError>,
    ) -> Option<Settled> {
        self.outstanding
            .take_if(|outstanding| outstanding.event.message_id.as_deref() == Some(message_id))
            .map(|outstanding| outstanding.settle(answer))
    }

    /// Waits no longer for what is outstanding.
    pub(super) fn give_up(&mut self, why: CommandError) -> Option<Settled> {
        self.outstanding
            .take()
            .map(|outstanding| outstanding.settle(Err(why)))
    }

    /// Takes no more commands; whoever has one here learns that nothing was sent.
    pub(super) fn close(&self) {
        self.queue.close();
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
