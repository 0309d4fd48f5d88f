//! The messages that a charger has to send, in order.
//!
//! Invariants: one CALL waits for its answer at a time (OCPP-J 1.6, section 4.1.1); what belongs
//! to a transaction is kept until it is answered, over every cut of the connection and in its
//! order, and goes out again under the id that it had; everything else is sent now or never.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::frame;

/// What a charger asks of a central system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Authorize,
    BootNotification,
    Heartbeat,
    MeterValues,
    StartTransaction,
    StatusNotification,
    StopTransaction,
}

/// Transaction messages that are kept at most; then meter values make room, as OCPP wants it.
const MAX_QUEUED: usize = 5_000;

/// How often a transaction message is sent that is answered with errors (OCPP's key
/// `TransactionMessageAttempts`), and the wait after the first (`TransactionMessageRetryInterval`).
const MAX_ATTEMPTS: u32 = 3;
const RETRY_INTERVAL: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) action: Action,
    pub(super) payload: Value,
    /// The charger's own number of the transaction that this belongs to, until the central system
    /// has given it an id.
    pub(super) session: Option<u32>,
    pub(super) connector: u32,
}

#[derive(Debug)]
pub(super) struct MessageQueue {
    queued: VecDeque<Message>,
    /// Waits for its answer.
    in_flight: Option<Sent>,
    /// Waits to go out again.
    resend: Option<Sent>,
    /// The ids of this charger's messages begin with this, whichever process it runs in.
    prefix: String,
    next_id: u64,
    /// The ids that sessions were given.
    transactions: BTreeMap<u32, i64>,
    /// What was refused is not sent again before that.
    retry_at: Option<Timestamp>,
}

/// A message under the id that it keeps.
#[derive(Debug)]
struct Sent {
    id: String,
    message: Message,
    errors: u32,
}

impl Message {
    /// Whether it has to arrive, however late.
    pub(super) const fn must_be_delivered(&self) -> bool {
        match self.action {
            Action::StartTransaction | Action::StopTransaction => true,
            Action::MeterValues => self.session.is_some(),
            Action::Authorize
            | Action::BootNotification
            | Action::Heartbeat
            | Action::StatusNotification => false,
        }
    }
}

impl Action {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "Authorize",
            Self::BootNotification => "BootNotification",
            Self::Heartbeat => "Heartbeat",
            Self::MeterValues => "MeterValues",
            Self::StartTransaction => "StartTransaction",
            Self::StatusNotification => "StatusNotification",
            Self::StopTransaction => "StopTransaction",
        }
    }
}

impl MessageQueue {
    pub(super) fn new(prefix: String) -> Self {
        Self {
            queued: VecDeque::new(),
            in_flight: None,
            resend: None,
            prefix,
            next_id: 0,
            transactions: BTreeMap::new(),
            retry_at: None,
        }
    }

    pub(super) fn push(&mut self, message: Message) {
        if self.queued.len() >= MAX_QUEUED {
            let spare = |kept: &Message| kept.action == Action::MeterValues;
            if let Some(oldest) = self.queued.iter().position(spare) {
                self.queued.remove(oldest);
            }
        }
        self.queued.push_back(message);
    }

    /// Lets this go before everything that waits.
    pub(super) fn push_first(&mut self, message: Message) {
        self.queued.push_front(message);
    }

    /// The next frame that may be sent. Before a charger is accepted, nothing but its boot may.
    pub(super) fn next(&mut self, now: Timestamp, accepted: bool) -> Option<(Action, String)> {
        if self.in_flight.is_some() {
            return None;
        }
        self.release(now);
        let sent = if self.is_boot_next() {
            self.next_new()?
        } else if !accepted || self.retry_at.is_some() {
            return None;
        } else {
            self.resend.take().or_else(|| self.next_new())?
        };
        let frame = self.frame(&sent);
        let action = sent.message.action;
        self.in_flight = Some(sent);
        Some((action, frame))
    }

    /// The message that this answers, which is settled by it.
    pub(super) fn answered(&mut self, id: &str, payload: &Value) -> Option<Message> {
        let message = self.in_flight.take_if(|sent| sent.id == id)?.message;
        match (message.action, message.session) {
            (Action::StartTransaction, Some(session)) => {
                let id = payload["transactionId"].as_i64().unwrap_or(-1);
                self.transactions.insert(session, id);
            }
            (Action::StopTransaction, Some(session)) => {
                self.transactions.remove(&session);
            }
            _ => {}
        }
        Some(message)
    }

    /// The message that this CALLERROR is about. What is kept is tried again, a few times.
    pub(super) fn refused(&mut self, id: &str, now: Timestamp) -> Option<Message> {
        let mut sent = self.in_flight.take_if(|sent| sent.id == id)?;
        let message = sent.message.clone();
        sent.errors += 1;
        if message.must_be_delivered() && sent.errors < MAX_ATTEMPTS {
            self.retry_at = now.checked_add(RETRY_INTERVAL * sent.errors).ok();
            self.resend = Some(sent);
        }
        Some(message)
    }

    /// The connection is lost: what would be of no use later is dropped.
    pub(super) fn disconnected(&mut self) {
        self.queued.retain(Message::must_be_delivered);
        if let Some(sent) = self
            .in_flight
            .take()
            .filter(|sent| sent.message.must_be_delivered())
        {
            self.resend = Some(sent);
        }
    }

    /// What was refused need not wait any more, once its time has come.
    pub(super) fn release(&mut self, now: Timestamp) {
        self.retry_at = self.retry_at.filter(|until| now < *until);
    }

    /// When what was refused may be sent again.
    pub(super) const fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.in_flight.is_none() && self.resend.is_none()
    }

    pub(super) fn transaction(&self, session: u32) -> Option<i64> {
        self.transactions.get(&session).copied()
    }

    fn is_boot_next(&self) -> bool {
        self.queued
            .front()
            .is_some_and(|message| message.action == Action::BootNotification)
    }

    fn next_new(&mut self) -> Option<Sent> {
        let message = self.queued.pop_front()?;
        self.next_id += 1;
        Some(Sent {
            id: format!("{}-{}", self.prefix, self.next_id),
            message,
            errors: 0,
        })
    }

    fn frame(&self, Sent { id, message, .. }: &Sent) -> String {
        let mut payload = message.payload.clone();
        if message.action != Action::StartTransaction
            && let Some(session) = message.session
        {
            // A transaction whose start was never taken goes by an id that is none.
            payload["transactionId"] = json!(self.transaction(session).unwrap_or(-1));
        }
        frame::call(id, message.action.as_str(), &payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-04-14T12:00:00Z".parse().unwrap()
    }

    fn message(action: Action, session: Option<u32>) -> Message {
        Message {
            action,
            payload: json!({}),
            session,
            connector: 1,
        }
    }

    fn next(queue: &mut MessageQueue) -> Option<Value> {
        let (_, text) = queue.next(now(), true)?;
        serde_json::from_str(&text).ok()
    }

    #[test]
    fn one_at_a_time_and_a_transaction_gets_its_id() {
        let mut queue = MessageQueue::new("a".to_owned());
        for action in [Action::StartTransaction, Action::MeterValues] {
            queue.push(message(action, Some(1)));
        }
        assert_eq!(
            next(&mut queue),
            Some(json!([2, "a-1", "StartTransaction", {}]))
        );
        assert_eq!(next(&mut queue), None, "the first waits for its answer");
        assert_eq!(queue.answered("a-7", &json!({})), None);
        queue.answered("a-1", &json!({"transactionId": 42}));
        let expected = json!([2, "a-2", "MeterValues", {"transactionId": 42}]);
        assert_eq!(next(&mut queue), Some(expected));
    }

    #[test]
    fn a_cut_keeps_what_belongs_to_a_transaction() {
        let mut queue = MessageQueue::new("a".to_owned());
        queue.push(message(Action::StartTransaction, Some(1)));
        queue.push(message(Action::StatusNotification, None));
        queue.push(message(Action::MeterValues, Some(1)));
        queue.push(message(Action::MeterValues, None));
        let first = next(&mut queue);
        queue.disconnected();
        assert_eq!(next(&mut queue), first, "under the same id");
        queue.answered("a-1", &json!({"transactionId": 7}));
        let expected = json!([2, "a-2", "MeterValues", {"transactionId": 7}]);
        assert_eq!(next(&mut queue), Some(expected));
        queue.answered("a-2", &json!({}));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_refused_transaction_message_is_tried_again_a_few_times() {
        let mut queue = MessageQueue::new("a".to_owned());
        queue.push(message(Action::StopTransaction, Some(1)));
        let mut at = now();
        for _ in 0..MAX_ATTEMPTS {
            assert!(queue.next(at, true).is_some());
            queue.refused("a-1", at);
            assert_eq!(queue.next(at, true), None, "not at once");
            at = queue.retry_at().unwrap_or(at);
        }
        assert!(queue.is_empty());

        queue.push(message(Action::Heartbeat, None));
        assert!(queue.next(at, true).is_some());
        queue.refused("a-2", at);
        assert!(queue.is_empty(), "nobody needs an old heartbeat");
    }

    #[test]
    fn nothing_but_a_boot_before_it_is_accepted() {
        let mut queue = MessageQueue::new("a".to_owned());
        queue.push(message(Action::StopTransaction, Some(1)));
        assert!(queue.next(now(), true).is_some());
        queue.disconnected();
        assert_eq!(queue.next(now(), false), None);
        queue.push_first(message(Action::BootNotification, None));
        let (action, _) = queue.next(now(), false).unwrap();
        assert_eq!(action, Action::BootNotification);
        queue.answered("a-2", &json!({}));
        let (action, _) = queue.next(now(), true).unwrap();
        assert_eq!(action, Action::StopTransaction);
    }

    #[test]
    fn a_long_outage_costs_meter_values_only() {
        let mut queue = MessageQueue::new("a".to_owned());
        queue.push(message(Action::StartTransaction, Some(1)));
        for _ in 0..MAX_QUEUED * 2 {
            queue.push(message(Action::MeterValues, Some(1)));
        }
        assert_eq!(queue.queued.len(), MAX_QUEUED);
        assert_eq!(queue.queued[0].action, Action::StartTransaction);
    }
}
