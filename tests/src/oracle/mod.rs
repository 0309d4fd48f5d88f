//! The judge of a daemon that is killed again and again, by what was seen from outside alone.
//!
//! Every event has a number in its payload, so what a station sent, what a receiver got and what
//! a dead letter holds are matched by their content. Pure: times and counts go in, faults come
//! out; it knows neither sockets nor processes.

mod keys;
mod registrations;
mod rotation;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    time::{Duration, Instant},
};

pub use self::{
    keys::{CreatedKey, Keys},
    registrations::{Registrations, Shape},
    rotation::Rotation,
};

/// What an event is known by; numbers ascend.
pub type Number = u32;

/// What a webhook is known by, before the daemon has given it an id: it stands in its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// Due times are kept in whole milliseconds, arrivals are exact.
const ROUNDING: Duration = Duration::from_millis(5);

/// What the daemon is started with.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The wait after the n-th failed attempt; the last repeats.
    pub waits: Vec<Duration>,
    pub max_attempts: u32,
    /// The webhooks whose receivers take everything at once.
    pub healthy: Vec<Key>,
    /// How long an event takes to these at most, from its answer to its arrival.
    pub longest_way: Duration,
}

impl Rules {
    /// The least time between two attempts. Dead letters are attempted again only by a replay,
    /// which waits for nothing.
    fn least_wait(&self, from: u32, to: u32) -> Duration {
        let waits = (from..to).map(|attempt| {
            let in_round = attempt % self.max_attempts;
            let index = usize::try_from(in_round).expect("a small number");
            match index {
                0 => Duration::ZERO,
                index => self.waits[index.min(self.waits.len()) - 1],
            }
        });
        waits.sum()
    }
}

/// One request at a receiver.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub number: Number,
    pub attempt: u32,
    /// The event's id.
    pub event: u128,
    pub transaction: Option<i64>,
    pub at: Instant,
    /// It is answered with a 200.
    pub taken: bool,
}

/// A webhook's counts, as the API shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryCounts {
    pub received: u64,
    pub delivered: u64,
    pub pending: u64,
    pub dead: u64,
    pub cancelled: u64,
}

/// What must not be.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// An event that was answered is neither delivered nor dead, and nothing is pending.
    Lost {
        webhook: Key,
        number: Number,
        kind: &'static str,
    },
    /// Two transactions have one id.
    TransactionTwice { id: i64, numbers: [Number; 2] },
    /// One transaction has two ids.
    TwoTransactions { number: Number, ids: [i64; 2] },
    /// One event was told as two.
    TwoEvents { webhook: Key, number: Number },
    /// An event arrived that nobody has sent.
    NeverSent { webhook: Key, number: Number },
    Unbalanced {
        webhook: Key,
        counts: DeliveryCounts,
    },
    /// The counts miss what was sent: this many were answered, and this many sent in all.
    Miscounted {
        webhook: Key,
        received: u64,
        answered: u64,
        sent: u64,
    },
    StillPending {
        webhook: Key,
        counts: DeliveryCounts,
    },
    /// This many dead letters are counted, and this many there or purged.
    DeadLetters {
        webhook: Key,
        in_books: u64,
        there: u64,
        purged: [u64; 2],
    },
    /// It was given up before its attempts had run out.
    DiedEarly {
        webhook: Key,
        number: Number,
        attempt: u32,
    },
    TooEarly {
        webhook: Key,
        number: Number,
        attempt: u32,
        after: Duration,
        least: Duration,
    },
    /// An attempt came whose successor had come before, and no crash had made the daemon forget it.
    WentBack {
        webhook: Key,
        number: Number,
        from: u32,
        to: u32,
    },
    /// Where nothing was wrong, it came so long after it was answered.
    Late {
        webhook: Key,
        number: Number,
        after: Duration,
    },
    /// An API key lets its caller in and must not, or doesn't and must.
    Key { id: u64, let_in: bool },
    /// A webhook is not as its last answered change left it.
    Registration {
        webhook: Key,
        found: Option<Shape>,
        possible: Vec<Option<Shape>>,
    },
    /// The daemon gave up instead of listening, and said this.
    NoStart(String),
    /// Whatever else was seen that must not be.
    Seen(String),
}

impl Fault {
    /// Whether it shows that something was forgotten that had been acknowledged; what comes too
    /// late or takes too much does not.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Lost { .. }
            | Self::TransactionTwice { .. }
            | Self::TwoTransactions { .. }
            | Self::TwoEvents { .. }
            | Self::Unbalanced { .. }
            | Self::Miscounted { .. }
            | Self::DeadLetters { .. }
            | Self::Key { .. }
            | Self::Registration { .. } => true,
            Self::NoStart(said) => {
                said.contains("is damaged: ") || said.contains("there is no store in ")
            }
            Self::NeverSent { .. }
            | Self::StillPending { .. }
            | Self::DiedEarly { .. }
            | Self::TooEarly { .. }
            | Self::WentBack { .. }
            | Self::Late { .. }
            | Self::Seen(_) => false,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Call {
    kind: &'static str,
    asked: Instant,
    answered: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    event: u128,
    attempt: u32,
    at: Instant,
    taken: bool,
}

#[derive(Debug)]
struct Webhook {
    kinds: Vec<&'static str>,
    /// It has not changed since the first event, so its counts are known.
    constant: bool,
    /// None while that is uncertain.
    wants_since: Option<Instant>,
    /// Answered, and not yet seen settled by a whole check.
    owed: BTreeSet<Number>,
    seen: HashMap<Number, Seen>,
    sent: u64,
    answered: u64,
    purges_asked: u64,
    purges_answered: u64,
    purged: BTreeSet<Number>,
    /// Its retries were asked for before they were due.
    hurried: bool,
}

/// How much was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub answered: u64,
    pub arrivals: u64,
    /// Requests for what the receiver had taken already.
    pub duplicates: u64,
    /// The latest number of dead letters.
    pub dead: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            arrivals,
            duplicates,
            dead,
        } = self;
        write!(
            f,
            "{answered} events answered, {arrivals} POSTs, {duplicates} of them duplicates, \
             {dead} dead letters"
        )
    }
}

/// The judge.
#[derive(Debug)]
pub struct Oracle {
    rules: Rules,
    calls: Vec<Call>,
    transactions: HashMap<i64, Number>,
    transaction_of: HashMap<Number, i64>,
    webhooks: BTreeMap<Key, Webhook>,
    last_kill: Option<Instant>,
    counts: Counts,
    faults: Vec<Fault>,
}

impl Oracle {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            calls: Vec::new(),
            transactions: HashMap::new(),
            transaction_of: HashMap::new(),
            webhooks: BTreeMap::new(),
            last_kill: None,
            counts: Counts::default(),
            faults: Vec::new(),
        }
    }

    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes out what was found so far.
    pub fn faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// Adds what somebody else has found.
    pub fn find(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.extend(faults);
    }

    pub fn fault(&mut self, seen: impl Into<String>) {
        self.find([Fault::Seen(seen.into())]);
    }

    /// From now on the webhook wants every event of these kinds that is sent, if it did not before.
    pub fn wants(&mut self, key: Key, kinds: &[&'static str], constant: bool, now: Instant) {
        let webhook = self.webhooks.entry(key).or_insert_with(|| Webhook {
            kinds: kinds.to_vec(),
            constant,
            wants_since: None,
            owed: BTreeSet::new(),
            seen: HashMap::new(),
            sent: 0,
            answered: 0,
            purges_asked: 0,
            purges_answered: 0,
            purged: BTreeSet::new(),
            hurried: false,
        });
        webhook.wants_since.get_or_insert(now);
    }

    /// From now on it is uncertain what the webhook wants.
    pub fn may_not_want(&mut self, key: Key) {
        if let Some(webhook) = self.webhooks.get_mut(&key) {
            webhook.wants_since = None;
        }
    }

    /// The webhook is gone, and what it was owed with it.
    pub fn gone(&mut self, key: Key) {
        self.webhooks.remove(&key);
    }

    /// Somebody is about to send an event. It may be resent, as often as it is one event still.
    pub fn sends(&mut self, kind: &'static str, now: Instant) -> Number {
        let number = Number::try_from(self.calls.len()).expect("fewer events");
        self.calls.push(Call {
            kind,
            asked: now,
            answered: None,
        });
        for webhook in self.webhooks.values_mut() {
            webhook.sent += u64::from(webhook.kinds.contains(&kind));
        }
        number
    }

    /// It was answered.
    pub fn answered(&mut self, number: Number, transaction: Option<i64>, now: Instant) {
        if let Some(id) = transaction {
            self.transaction(number, id);
        }
        let call = &mut self.calls[number as usize];
        call.answered = Some(now);
        let call = *call;
        self.counts.answered += 1;
        for webhook in self.webhooks.values_mut() {
            if webhook.kinds.contains(&call.kind) {
                webhook.answered += 1;
                if webhook.wants_since.is_some_and(|since| since <= call.asked) {
                    webhook.owed.insert(number);
                }
            }
        }
    }

    fn transaction(&mut self, number: Number, id: i64) {
        let other = *self.transactions.entry(id).or_insert(number);
        if other != number {
            let numbers = [other, number];
            self.faults.push(Fault::TransactionTwice { id, numbers });
        }
        let known = *self.transaction_of.entry(number).or_insert(id);
        if known != id {
            let ids = [known, id];
            self.faults.push(Fault::TwoTransactions { number, ids });
        }
    }

    /// The daemon is about to be killed. It may forget an attempt that it had not written down yet.
    pub fn kills(&mut self, now: Instant) {
        self.last_kill = Some(now);
    }

    /// A receiver got a request.
    pub fn arrived(&mut self, key: Key, arrival: Arrival) {
        let Arrival {
            number,
            attempt,
            at,
            ..
        } = arrival;
        self.counts.arrivals += 1;
        if number as usize >= self.calls.len() {
            let webhook = key;
            self.faults.push(Fault::NeverSent { webhook, number });
            return;
        }
        if let Some(id) = arrival.transaction {
            self.transaction(number, id);
        }
        // What a deleted webhook had in flight is of no more interest.
        let Some(webhook) = self.webhooks.get_mut(&key) else {
            return;
        };
        let answered = self.calls[number as usize].answered;
        // What waited for a daemon to start was held up by that.
        let answered =
            answered.filter(|answered| self.last_kill.is_none_or(|kill| kill < *answered));
        let after = answered.map_or(Duration::ZERO, |answered| at.duration_since(answered));
        let is_first = !webhook.seen.contains_key(&number);
        if is_first && after > self.rules.longest_way && self.rules.healthy.contains(&key) {
            let webhook = key;
            self.faults.push(Fault::Late {
                webhook,
                number,
                after,
            });
        }
        let hurried = webhook.hurried;
        let seen = webhook.seen.entry(number).or_insert(Seen {
            event: arrival.event,
            attempt,
            at,
            taken: false,
        });
        let webhook = key;
        if seen.event != arrival.event {
            self.faults.push(Fault::TwoEvents { webhook, number });
        }
        let (from, to) = (seen.attempt, attempt);
        let forgotten = self
            .last_kill
            .is_some_and(|kill| seen.at <= kill && kill <= at);
        if to < from && !forgotten {
            self.faults.push(Fault::WentBack {
                webhook,
                number,
                from,
                to,
            });
        }
        let least = self.rules.least_wait(from, to);
        let after = at.duration_since(seen.at);
        if after + ROUNDING < least && !hurried {
            self.faults.push(Fault::TooEarly {
                webhook,
                number,
                attempt,
                after,
                least,
            });
        }
        self.counts.duplicates += u64::from(seen.taken);
        seen.attempt = attempt;
        seen.at = at;
        seen.taken |= arrival.taken;
    }

    /// From now on the webhook's waits tell nothing, as when somebody asks for what waits for a
    /// retry.
    pub fn hurries(&mut self, key: Key) {
        if let Some(webhook) = self.webhooks.get_mut(&key) {
            webhook.hurried = true;
        }
    }

    /// Somebody is about to purge a dead letter.
    pub fn purges(&mut self, key: Key, number: Number) {
        if let Some(webhook) = self.webhooks.get_mut(&key) {
            webhook.purges_asked += 1;
            webhook.purged.insert(number);
        }
    }

    pub fn purged(&mut self, key: Key) {
        if let Some(webhook) = self.webhooks.get_mut(&key) {
            webhook.purges_answered += 1;
        }
    }

    /// How many calls were answered so far that each webhook wants.
    pub fn answered_so_far(&self) -> BTreeMap<Key, u64> {
        let webhooks = self.webhooks.iter();
        webhooks
            .map(|(key, known)| (*key, known.answered))
            .collect()
    }

    /// Checks counts that may still move, and that were looked at when so many calls were answered.
    pub fn check_delivery_counts(&mut self, key: Key, counts: DeliveryCounts, answered: u64) {
        let webhook = key;
        if counts.received != counts.delivered + counts.pending + counts.dead + counts.cancelled {
            self.faults.push(Fault::Unbalanced { webhook, counts });
        }
        let Some(known) = self.webhooks.get(&key).filter(|known| known.constant) else {
            return;
        };
        if !(answered..=known.sent).contains(&counts.received) {
            self.faults.push(Fault::Miscounted {
                webhook,
                received: counts.received,
                answered,
                sent: known.sent,
            });
        }
    }

    /// Checks a webhook to which nothing happens any more. `dead` are its dead letters, each with
    /// the number of its last attempt.
    pub fn check_settled(
        &mut self,
        key: Key,
        counts: DeliveryCounts,
        dead: &BTreeMap<Number, u32>,
    ) {
        let answered = self.webhooks.get(&key).map_or(0, |known| known.answered);
        self.check_delivery_counts(key, counts, answered);
        if counts.pending != 0 {
            let webhook = key;
            self.faults.push(Fault::StillPending { webhook, counts });
        }
        let Some(known) = self.webhooks.get_mut(&key) else {
            return;
        };
        let webhook = key;
        let there = dead.len() as u64;
        let purged = [known.purges_answered, known.purges_asked];
        if !(there + purged[0]..=there + purged[1]).contains(&counts.dead) {
            self.faults.push(Fault::DeadLetters {
                webhook,
                in_books: counts.dead,
                there,
                purged,
            });
        }
        for (&number, &attempt) in dead {
            if attempt == 0 || attempt % self.rules.max_attempts != 0 {
                self.faults.push(Fault::DiedEarly {
                    webhook,
                    number,
                    attempt,
                });
            }
        }
        let taken = |number| known.seen.get(number).is_some_and(|seen| seen.taken);
        for number in &known.owed {
            if !taken(number) && !dead.contains_key(number) && !known.purged.contains(number) {
                let kind = self.calls[*number as usize].kind;
                let number = *number;
                self.faults.push(Fault::Lost {
                    webhook,
                    number,
                    kind,
                });
            }
        }
        // Nothing can happen to these any more, and a long run has many of them.
        known.owed.retain(|number| dead.contains_key(number));
        known.seen.retain(|number, _| dead.contains_key(number));
    }

    pub fn dead_letters(&mut self, count: u64) {
        self.counts.dead = count;
    }
}
