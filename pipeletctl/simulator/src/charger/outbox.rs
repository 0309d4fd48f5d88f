//! What a charger has to say, in order.
//!
//! Invariants: one CALL waits for its answer at a time (OCPP-J 1.6, section 4.1.1); what belongs
//! to a transaction is kept until it is answered, over every cut of the connection and in its
//! order, and goes out again under the id that it had; everything else is said now or never.

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
const MOST_KEPT: usize = 5_000;

/// How often a transaction message is sent that is answered with errors (OCPP's key
/// `TransactionMessageAttempts`), and the wait after the first (`TransactionMessageRetryInterval`).
const ATTEMPTS: u32 = 3;
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
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
    /// Waits for its answer.
    out: Option<Sent>,
    /// Waits to go out again.
    again: Option<Sent>,
    /// The ids of this charger's messages begin with this, whichever process it runs in.
    prefix: String,
    next_id: u64,
    /// The ids that sessions were given.
    transactions: BTreeMap<u32, i64>,
    /// What was refused is not sent again before that.
    held_until: Option<Timestamp>,
}

/// A message under the id that it keeps.
#[derive(Debug)]
struct Sent {
    id: String,
    message: Message,
    refusals: u32,
}

impl Message {
    /// Whether it has to arrive, however late.
    pub(super) const fn is_kept(&self) -> bool {
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

impl Outbox {
    pub(super) fn new(prefix: String) -> Self {
        Self {
            waiting: VecDeque::new(),
            out: None,
            again: None,
            prefix,
            next_id: 0,
            transactions: BTreeMap::new(),
            held_until: None,
        }
    }

    pub(super) fn push(&mut self, message: Message) {
        if self.waiting.len() >= MOST_KEPT {
            let spare = |kept: &Message| kept.action == Action::MeterValues;
            if let Some(oldest) = self.waiting.iter().position(spare) {
                self.waiting.remove(oldest);
            }
        }
        self.waiting.push_back(message);
    }

    /// Lets this go before everything that waits.
    pub(super) fn push_first(&mut self, message: Message) {
        self.waiting.push_front(message);
    }

    /// The next frame that may be sent. Before a charger is accepted, nothing but its boot may.
    pub(super) fn next(&mut self, now: Timestamp, accepted: bool) -> Option<(Action, String)> {
        if self.out.is_some() {
            return None;
        }
        self.release(now);
        let sent = if self.boots_next() {
            self.fresh()?
        } else if !accepted || self.held_until.is_some() {
            return None;
        } else {
            self.again.take().or_else(|| self.fresh())?
        };
        let frame = self.frame(&sent);
        let action = sent.message.action;
        self.out = Some(sent);
        Some((action, frame))
    }

    /// The message that this answers, which is settled by it.
    pub(super) fn answered(&mut self, id: &str, payload: &Value) -> Option<Message> {
        let message = self.out.take_if(|sent| sent.id == id)?.message;
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
        let mut sent = self.out.take_if(|sent| sent.id == id)?;
        let message = sent.message.clone();
        sent.refusals += 1;
        if message.is_kept() && sent.refusals < ATTEMPTS {
            self.held_until = now.checked_add(RETRY_INTERVAL * sent.refusals).ok();
            self.again = Some(sent);
        }
        Some(message)
    }

    /// The connection is cut: what nobody would want to hear later is forgotten.
    pub(super) fn disconnected(&mut self) {
        self.waiting.retain(Message::is_kept);
        if let Some(sent) = self.out.take().filter(|sent| sent.message.is_kept()) {
            self.again = Some(sent);
        }
    }

    /// What was refused need not wait any more, once its time has come.
    pub(super) fn release(&mut self, now: Timestamp) {
        self.held_until = self.held_until.filter(|until| now < *until);
    }

    /// When what was refused may be sent again.
    pub(super) const fn held_until(&self) -> Option<Timestamp> {
        self.held_until
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.out.is_none() && self.again.is_none()
    }

    pub(super) fn transaction(&self, session: u32) -> Option<i64> {
        self.transactions.get(&session).copied()
    }

    fn boots_next(&self) -> bool {
        self.waiting
            .front()
            .is_some_and(|message| message.action == Action::BootNotification)
    }

    fn fresh(&mut self) -> Option<Sent> {
        let message = self.waiting.pop_front()?;
        self.next_id += 1;
        Some(Sent {
            id: format!("{}-{}", self.prefix, self.next_id),
            message,
            refusals: 0,
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

    fn next(outbox: &mut Outbox) -> Option<Value> {
        let (_, text) = outbox.next(now(), true)?;
        serde_json::from_str(&text).ok()
    }

    #[test]
    fn one_at_a_time_and_a_transaction_gets_its_id() {
        let mut outbox = Outbox::new("a".to_owned());
        for action in [Action::StartTransaction, Action::MeterValues] {
            outbox.push(message(action, Some(1)));
        }
        assert_eq!(
            next(&mut outbox),
            Some(json!([2, "a-1", "StartTransaction", {}]))
        );
        assert_eq!(next(&mut outbox), None, "the first waits for its answer");
        assert_eq!(outbox.answered("a-7", &json!({})), None);
        outbox.answered("a-1", &json!({"transactionId": 42}));
        let expected = json!([2, "a-2", "MeterValues", {"transactionId": 42}]);
        assert_eq!(next(&mut outbox), Some(expected));
    }

    #[test]
    fn a_cut_keeps_what_belongs_to_a_transaction() {
        let mut outbox = Outbox::new("a".to_owned());
        outbox.push(message(Action::StartTransaction, Some(1)));
        outbox.push(message(Action::StatusNotification, None));
        outbox.push(message(Action::MeterValues, Some(1)));
        outbox.push(message(Action::MeterValues, None));
        let first = next(&mut outbox);
        outbox.disconnected();
        assert_eq!(next(&mut outbox), first, "under the same id");
        outbox.answered("a-1", &json!({"transactionId": 7}));
        let expected = json!([2, "a-2", "MeterValues", {"transactionId": 7}]);
        assert_eq!(next(&mut outbox), Some(expected));
        outbox.answered("a-2", &json!({}));
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_refused_transaction_message_is_tried_again_a_few_times() {
        let mut outbox = Outbox::new("a".to_owned());
        outbox.push(message(Action::StopTransaction, Some(1)));
        let mut at = now();
        for _ in 0..ATTEMPTS {
            assert!(outbox.next(at, true).is_some());
            outbox.refused("a-1", at);
            assert_eq!(outbox.next(at, true), None, "not at once");
            at = outbox.held_until().unwrap_or(at);
        }
        assert!(outbox.is_empty());

        outbox.push(message(Action::Heartbeat, None));
        assert!(outbox.next(at, true).is_some());
        outbox.refused("a-2", at);
        assert!(outbox.is_empty(), "nobody needs an old heartbeat");
    }

    #[test]
    fn nothing_but_a_boot_before_it_is_accepted() {
        let mut outbox = Outbox::new("a".to_owned());
        outbox.push(message(Action::StopTransaction, Some(1)));
        assert!(outbox.next(now(), true).is_some());
        outbox.disconnected();
        assert_eq!(outbox.next(now(), false), None);
        outbox.push_first(message(Action::BootNotification, None));
        let (action, _) = outbox.next(now(), false).unwrap();
        assert_eq!(action, Action::BootNotification);
        outbox.answered("a-2", &json!({}));
        let (action, _) = outbox.next(now(), true).unwrap();
        assert_eq!(action, Action::StopTransaction);
    }

    #[test]
    fn a_long_outage_costs_meter_values_only() {
        let mut outbox = Outbox::new("a".to_owned());
        outbox.push(message(Action::StartTransaction, Some(1)));
        for _ in 0..MOST_KEPT * 2 {
            outbox.push(message(Action::MeterValues, Some(1)));
        }
        assert_eq!(outbox.waiting.len(), MOST_KEPT);
        assert_eq!(outbox.waiting[0].action, Action::StartTransaction);
    }
}
