//! Where others reach a connection: callers with commands, one after the other, and whoever ends
//! it.
//!
//! The invariant: a command that was handed over is taken out by the connection before its deadline,
//! or dropped, at its deadline or when the connection closes its desk; nobody waits for one that lies
//! there for ever. It knows neither what a command asks nor how it is sent.

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

/// So many callers wait for their turn at one connection; more are refused.
const QUEUE: usize = 32;

/// A caller that gives up while it waits for its turn leaves nothing behind. Cheap to clone.
///
/// One lock and one waker instead of a channel and tokens: there is a desk for each connection, and
/// a channel has room for 32 commands at once, 2.6 KB. The connection looks here with every message,
/// too.
#[derive(Debug, Clone)]
pub(super) struct Desk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Held while a caller waits for its turn.
    places: Semaphore,
    /// Held from a caller's turn until its command is settled; it is fair.
    turn: Arc<Semaphore>,
    top: Mutex<Top>,
}

/// What lies on the desk.
#[derive(Debug, Default)]
struct Top {
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
    /// An operator wants it.
    Dismissed,
    /// A newer connection of the station has come.
    Replaced,
    Shutdown,
}

/// What a connection finds on its desk.
#[derive(Debug)]
pub(super) enum Told {
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

    pub(super) fn tell(self, outcome: Result<Answer, CommandError>) {
        // A caller that went away changes nothing.
        let _ = self.outcome.send(outcome);
    }
}

impl Desk {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            places: Semaphore::new(QUEUE),
            turn: Arc::new(Semaphore::new(1)),
            top: Mutex::default(),
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
        let (outcome, mut told) = oneshot::channel();
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
        if let Ok(outcome) = timeout_at(deadline, &mut told).await {
            return outcome.ok();
        }
        // One that was sent is the connection's, which settles it.
        self.take_back(number);
        told.await.ok()
    }

    /// Asks the connection to end.
    pub(super) fn end(&self, end: End) {
        let mut top = self.top();
        top.end = top.end.max(Some(end));
        wake(top);
    }

    /// What there is for the connection, which sends no command while one is outstanding. Only its
    /// own task may ask.
    pub(super) fn poll_told(&self, outstanding: bool, context: &Context<'_>) -> Poll<Told> {
        let mut late = None;
        let mut top = self.top();
        if let Some(end) = top.end {
            return Poll::Ready(Told::End(end));
        }
        if !outstanding && let Some(command) = top.command.take() {
            if Instant::now() < command.deadline {
                return Poll::Ready(Told::Send(command));
            }
            // Its caller, who learns of it now, may be about to take it back. The next one wakes us.
            late = Some(command);
        }
        match &mut top.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        drop(top);
        drop(late);
        Poll::Pending
    }

    /// Takes no more commands; whoever has one here learns that nothing was sent.
    pub(super) fn close(&self) {
        let mut top = self.top();
        top.closed = true;
        let unsent = top.command.take();
        drop(top);
        drop(unsent);
    }

    /// The number of the command among all of this desk.
    fn hand_over(&self, command: Command) -> Option<u64> {
        let mut top = self.top();
        // Whose turn it is finds the place free, because the command before was taken out.
        if top.closed || top.command.is_some() {
            return None;
        }
        top.command = Some(command);
        top.handed_over += 1;
        let number = top.handed_over;
        wake(top);
        Some(number)
    }

    /// Drops a command that still lies here.
    fn take_back(&self, number: u64) {
        let mut top = self.top();
        let late = (top.handed_over == number).then(|| top.command.take());
        drop(top);
        drop(late);
    }

    fn top(&self) -> MutexGuard<'_, Top> {
        let top = self.0.top.lock();
        top.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the connection look at its desk, which nobody holds any more then.
fn wake(mut top: MutexGuard<'_, Top>) {
    let waker = top.waker.take();
    drop(top);
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

    async fn told(desk: &Desk, outstanding: bool) -> Told {
        poll_fn(|context| desk.poll_told(outstanding, context)).await
    }

    #[tokio::test]
    async fn callers_take_turns_and_leave_nothing_behind() {
        let desk = Desk::new();
        let turn = desk.turn(soon()).await.unwrap();
        // It is taken, so this one waits in vain, and frees its place.
        let at_once = Instant::now() + Duration::from_millis(1);
        assert!(desk.turn(at_once).await.is_none());
        assert_eq!(desk.0.places.available_permits(), QUEUE);

        let sending = desk.send(EventType::ClearCache, Payload::empty(), soon(), turn);
        let answering = async {
            let Told::Send(command) = told(&desk, false).await else {
                panic!("nobody ends it");
            };
            command.caller.tell(Err(CommandError::TimedOut));
        };
        let (outcome, ()) = tokio::join!(sending, answering);
        assert_eq!(outcome, Some(Err(CommandError::TimedOut)));

        let turn = desk.turn(soon()).await.unwrap();
        desk.close();
        let unsent = desk.send(EventType::ClearCache, Payload::empty(), soon(), turn);
        assert_eq!(unsent.await, None);
    }

    #[tokio::test]
    async fn a_command_that_lies_there_is_dropped_with_the_connection() {
        let desk = Desk::new();
        let turn = desk.turn(soon()).await.unwrap();
        let sending = desk.send(EventType::ClearCache, Payload::empty(), soon(), turn);
        let closing = async { desk.close() };
        let (outcome, ()) = tokio::join!(sending, closing);
        assert_eq!(outcome, None);
    }

    #[tokio::test]
    async fn a_command_is_not_sent_after_its_deadline() {
        let desk = Desk::new();
        let at_once = Instant::now() + Duration::from_millis(1);

        // The connection is busy: the caller does not wait for it any longer than it said.
        let turn = desk.turn(soon()).await.unwrap();
        let sending = desk.send(EventType::ClearCache, Payload::empty(), at_once, turn);
        assert_eq!(sending.await, None);
        assert!(desk.top().command.is_none());

        // The connection is faster than a caller whose time has come.
        let turn = desk.turn(soon()).await.unwrap();
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
        let number = desk.hand_over(command).unwrap();
        let found = poll_fn(|context| Poll::Ready(desk.poll_told(false, context)));
        assert!(found.await.is_pending());
        assert_eq!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed));

        // Who takes back what is gone takes nothing from the next.
        let turn = desk.turn(soon()).await.unwrap();
        let sending = desk.send(EventType::ClearCache, Payload::empty(), soon(), turn);
        let answering = async {
            desk.take_back(number);
            let Told::Send(command) = told(&desk, false).await else {
                panic!("nobody ends it");
            };
            command.caller.tell(Err(CommandError::TimedOut));
        };
        let (outcome, ()) = tokio::join!(sending, answering);
        assert_eq!(outcome, Some(Err(CommandError::TimedOut)));
    }

    #[tokio::test]
    async fn who_waits_is_woken_for_an_end_and_for_a_command() {
        let desk = Desk::new();
        let waiting = desk.clone();
        let waiting = tokio::spawn(async move { told(&waiting, false).await });
        tokio::task::yield_now().await;
        let turn = desk.turn(soon()).await.unwrap();
        let sending = desk.send(EventType::ClearCache, Payload::empty(), soon(), turn);
        let taking = async { drop(waiting.await.unwrap()) };
        let (outcome, ()) = tokio::join!(sending, taking);
        assert_eq!(outcome, None);

        let waiting = desk.clone();
        // An end is told to one with a command outstanding, too.
        let waiting = tokio::spawn(async move { told(&waiting, true).await });
        tokio::task::yield_now().await;
        desk.end(End::Replaced);
        assert!(matches!(waiting.await.unwrap(), Told::End(End::Replaced)));
    }

    #[tokio::test]
    async fn the_strongest_end_counts() {
        let desk = Desk::new();
        for (end, expected) in [
            (End::Replaced, End::Replaced),
            (End::Dismissed, End::Replaced),
            (End::Shutdown, End::Shutdown),
        ] {
            desk.end(end);
            assert!(matches!(told(&desk, false).await, Told::End(end) if end == expected));
        }
    }
}
