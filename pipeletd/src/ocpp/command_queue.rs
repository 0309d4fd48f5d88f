//! The queue by which others reach a connection: callers with commands, one after the other, and
//! whoever ends the connection.
//!
//! The invariant: a command that was handed over is taken out by the connection before its
//! deadline, or dropped, at its deadline or when the connection closes the queue; no caller waits
//! for ever. It knows neither what a command asks nor how it is sent.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use pipelet_domain::events::{EventType, Payload};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use super::commands::{Answer, CommandError};

/// How many callers may wait for their turn at one connection; more are refused.
const MAX_CALLERS: usize = 32;

/// A caller that gives up while it waits for its turn leaves nothing behind. Cheap to clone.
///
/// One lock and one waker instead of a channel and tokens: there is a queue for each connection,
/// and a channel has room for 32 commands at once, 2.6 KB. The connection looks here with every
/// message, too.
#[derive(Debug, Clone)]
pub(super) struct CommandQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Held while a caller waits for its turn.
    places: Semaphore,
    /// Held from a caller's turn until its command is settled; it is fair.
    turn: Arc<Semaphore>,
    front: Mutex<Front>,
}

/// The command whose turn it is, and what else there is for the connection.
#[derive(Debug, Default)]
struct Front {
    end: Option<End>,
    command: Option<Command>,
    /// How many commands were handed over so far, which tells a caller's own from a later one.
    handed_over: u64,
    /// No more commands are taken.
    closed: bool,
    /// Of the connection's task.
    waker: Option<Waker>,
}

/// Why a connection shall end; of several, the last of this list counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Another node goes on with it.
    HandedOver,
    /// An operator wants it.
    Dismissed,
    /// A newer connection of the station has come.
    Replaced,
    Shutdown,
}

/// What a connection finds in its queue.
#[derive(Debug)]
pub(super) enum Control {
    End(End),
    Send(Command),
}

/// A command for the connection to send.
#[derive(Debug)]
pub(super) struct Command {
    pub action: EventType,
    pub payload: Payload,
    pub deadline: Instant,
    pub caller: Caller,
}

/// Who waits for what comes of a command. Dropped without a word, nothing was sent.
#[derive(Debug)]
pub(super) struct Caller {
    outcome: oneshot::Sender<Result<Answer, CommandError>>,
    /// Bears the id of its request, for the log.
    span: tracing::Span,
    _turn: OwnedSemaphorePermit,
}

impl Caller {
    pub(super) const fn span(&self) -> &tracing::Span {
        &self.span
    }

    pub(super) fn notify(self, outcome: Result<Answer, CommandError>) {
        // A caller that went away changes nothing.
        let _ = self.outcome.send(outcome);
    }
}

impl CommandQueue {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            places: Semaphore::new(MAX_CALLERS),
            turn: Arc::new(Semaphore::new(1)),
            front: Mutex::default(),
        }))
    }

    /// Waits for the caller's turn; `None` where there are too many before it, or too slow ones.
    pub(super) async fn turn(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let _place = self.0.places.try_acquire().ok()?;
        let turn = timeout_at(deadline, Arc::clone(&self.0.turn).acquire_owned()).await;
        // The semaphore is never closed.
        let turn = turn.ok()?.ok()?;
        // What is sent now would have no time for its answer.
        (Instant::now() < deadline).then_some(turn)
    }

    /// `None` where the connection did not send the command: it ended before, or was busy with
    /// other things until the deadline.
    pub(super) async fn send(
        &self,
        action: EventType,
        payload: Payload,
        deadline: Instant,
        turn: OwnedSemaphorePermit,
    ) -> Option<Result<Answer, CommandError>> {
        let (outcome, mut settled) = oneshot::channel();
        let caller = Caller {
            outcome,
            span: tracing::Span::current(),
            _turn: turn,
        };
        let command = Command {
            action,
            payload,
            deadline,
            caller,
        };
        let number = self.hand_over(command)?;
        if let Ok(outcome) = timeout_at(deadline, &mut settled).await {
            return outcome.ok();
        }
        // One that was sent is the connection's, which settles it.
        self.take_back(number);
        settled.await.ok()
    }

    /// Asks the connection to end.
    pub(super) fn end(&self, end: End) {
        let mut front = self.front();
        front.end = front.end.max(Some(end));
        wake(front);
    }

    /// What there is for the connection, which sends no command while one is outstanding. Only its
    /// own task may ask.
    pub(super) fn poll_control(&self, outstanding: bool, context: &Context<'_>) -> Poll<Control> {
        let mut late = None;
        let mut front = self.front();
        if let Some(end) = front.end {
            return Poll::Ready(Control::End(end));
        }
        if !outstanding && let Some(command) = front.command.take() {
            if Instant::now() < command.deadline {
                return Poll::Ready(Control::Send(command));
            }
            // Its caller, who learns of it now, may be about to take it back. The next one wakes us.
            late = Some(command);
        }
        match &mut front.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        drop(front);
        drop(late);
        Poll::Pending
    }

    /// Takes no more commands; whoever has one here learns that nothing was sent.
    pub(super) fn close(&self) {
        let mut front = self.front();
        front.closed = true;
        let unsent = front.command.take();
        drop(front);
        drop(unsent);
    }

    /// The number of the command among all of this queue.
    fn hand_over(&self, command: Command) -> Option<u64> {
        let mut front = self.front();
        // Whose turn it is finds the place free, because the command before was taken out.
        if front.closed || front.command.is_some() {
            return None;
        }
        front.command = Some(command);
        front.handed_over += 1;
        let number = front.handed_over;
        wake(front);
        Some(number)
    }

    /// Drops a command that still lies here.
    fn take_back(&self, number: u64) {
        let mut front = self.front();
        let late = (front.handed_over == number).then(|| front.command.take());
        drop(front);
        drop(late);
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        let front = self.0.front.lock();
        front.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of the lock, and has the connection look at its queue.
fn wake(mut front: MutexGuard<'_, Front>) {
    let waker = front.waker.take();
    drop(front);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    async fn control(queue: &CommandQueue, outstanding: bool) -> Control {
        poll_fn(|context| queue.poll_control(outstanding, context)).await
    }

    #[tokio::test]
    async fn callers_take_turns_and_leave_nothing_behind() {
        let queue = CommandQueue::new();
        let turn = queue.turn(soon()).await.unwrap();
        // It is taken, so this one waits in vain, and frees its place.
        let at_once = Instant::now() + Duration::from_millis(1);
        assert!(queue.turn(at_once).await.is_none());
        assert_eq!(queue.0.places.available_permits(), MAX_CALLERS);

        let sending = queue.send(EventType::ClearCache, Payload::empty(), soon(), turn);
        let answering = async {
            let Control::Send(command) = control(&queue, false).await else {
                panic!("nobody ends it");
            };
            command.caller.notify(Err(CommandError::TimedOut));
        };
        let (outcome, ()) = tokio::join!(sending, answering);
        assert_eq!(outcome, Some(Err(CommandError::TimedOut)));

        let turn = queue.turn(soon()).await.unwrap();
        queue.close();
        let unsent = queue.send(EventType::ClearCache, Payload::empty(), soon(), turn);
        assert_eq!(unsent.await, None);
    }

    #[tokio::test]
    async fn a_command_that_lies_there_is_dropped_with_the_connection() {
        let queue = CommandQueue::new();
        let turn = queue.turn(soon()).await.unwrap();
        let sending = queue.send(EventType::ClearCache, Payload::empty(), soon(), turn);
        let closing = async { queue.close() };
        let (outcome, ()) = tokio::join!(sending, closing);
        assert_eq!(outcome, None);
    }

    #[tokio::test]
    async fn a_command_is_not_sent_after_its_deadline() {
        let queue = CommandQueue::new();
        let at_once = Instant::now() + Duration::from_millis(1);

        // The connection is busy: the caller does not wait for it any longer than it said.
        let turn = queue.turn(soon()).await.unwrap();
        let sending = queue.send(EventType::ClearCache, Payload::empty(), at_once, turn);
        assert_eq!(sending.await, None);
        assert!(queue.front().command.is_none());

        // The connection is faster than a caller whose time has come.
        let turn = queue.turn(soon()).await.unwrap();
        let (outcome, mut late) = oneshot::channel();
        let command = Command {
            action: EventType::ClearCache,
            payload: Payload::empty(),
            deadline: Instant::now(),
            caller: Caller {
                outcome,
                span: tracing::Span::none(),
                _turn: turn,
            },
        };
        let number = queue.hand_over(command).unwrap();
        let found = poll_fn(|context| Poll::Ready(queue.poll_control(false, context)));
        assert!(found.await.is_pending());
        assert_eq!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed));

        // Who takes back what is gone takes nothing from the next.
        let turn = queue.turn(soon()).await.unwrap();
        let sending = queue.send(EventType::ClearCache, Payload::empty(), soon(), turn);
        let answering = async {
            queue.take_back(number);
            let Control::Send(command) = control(&queue, false).await else {
                panic!("nobody ends it");
            };
            command.caller.notify(Err(CommandError::TimedOut));
        };
        let (outcome, ()) = tokio::join!(sending, answering);
        assert_eq!(outcome, Some(Err(CommandError::TimedOut)));
    }

    #[tokio::test]
    async fn who_waits_is_woken_for_an_end_and_for_a_command() {
        let queue = CommandQueue::new();
        let waiting = queue.clone();
        let waiting = tokio::spawn(async move { control(&waiting, false).await });
        tokio::task::yield_now().await;
        let turn = queue.turn(soon()).await.unwrap();
        let sending = queue.send(EventType::ClearCache, Payload::empty(), soon(), turn);
        let taking = async { drop(waiting.await.unwrap()) };
        let (outcome, ()) = tokio::join!(sending, taking);
        assert_eq!(outcome, None);

        let waiting = queue.clone();
        // An end reaches one with a command outstanding, too.
        let waiting = tokio::spawn(async move { control(&waiting, true).await });
        tokio::task::yield_now().await;
        queue.end(End::Replaced);
        assert!(matches!(
            waiting.await.unwrap(),
            Control::End(End::Replaced)
        ));
    }

    #[tokio::test]
    async fn the_strongest_end_counts() {
        let queue = CommandQueue::new();
        for (end, expected) in [
            (End::Replaced, End::Replaced),
            (End::Dismissed, End::Replaced),
            (End::Shutdown, End::Shutdown),
        ] {
            queue.end(end);
            assert!(matches!(control(&queue, false).await, Control::End(end) if end == expected));
        }
    }
}
