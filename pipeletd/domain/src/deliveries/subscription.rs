//! What a webhook wants, and what it wanted before: which decides whether an event is owed to it.

use crate::{
    events::{Event, EventSelection, Seq, StationSelection},
    webhooks::{Webhook, WebhookId},
};

/// Which events a webhook wants, as of one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The webhook's.
    pub revision: u64,
    pub enabled: bool,
    pub events: EventSelection,
    pub stations: StationSelection,
}

impl Subscription {
    pub fn of(webhook: &Webhook) -> Self {
        Self {
            revision: webhook.revision,
            enabled: webhook.enabled,
            events: webhook.events.clone(),
            stations: webhook.stations.clone(),
        }
    }

    pub fn wants(&self, webhook: WebhookId, event: &Event) -> bool {
        self.enabled
            && event.is_for(webhook.0)
            && self.events.contains(event.kind)
            && self.stations.contains(&event.station)
    }

    fn wants_the_same(&self, other: &Self) -> bool {
        (self.enabled, &self.events, &self.stations)
            == (other.enabled, &other.events, &other.stations)
    }

    /// About, in bytes.
    fn size(&self) -> usize {
        let names = self.events.names().iter().chain(self.stations.patterns());
        64 + names.map(String::len).sum::<usize>()
    }
}

/// From a journal position on, what a webhook wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionVersion {
    pub from: Seq,
    pub subscription: Subscription,
}

impl SubscriptionVersion {
    /// Of one webhook, where no event on the way needs more: an audit of a span of time and an
    /// event's trace look back with them.
    pub const MOST: usize = 64;
    /// And so much of them, in bytes: each change of the webhook writes them anew, amid the events.
    const MOST_BYTES: usize = 64 * 1024;

    /// The history that this one ends. What is older than every event that the journal keeps is
    /// dropped, and so are the oldest of what is too much, but none that an event on the way needs:
    /// those are from `floor` on.
    pub fn after(self, past: &[Self], floor: Seq, oldest: Seq) -> Vec<Self> {
        let mut versions = past.to_vec();
        // Holds for no event.
        let _ = versions.pop_if(|last| last.from == self.from);
        match versions.last_mut() {
            Some(last) if last.subscription.wants_the_same(&self.subscription) => {
                last.subscription.revision = self.subscription.revision;
            }
            Some(_) | None => versions.push(self),
        }
        let at = |seq| versions.iter().rposition(|version| version.from <= seq);
        let outdated = at(oldest).unwrap_or(0);
        let mut bytes = 0;
        let few = versions.iter().rev().take(Self::MOST);
        let few = few.take_while(|version| {
            bytes += version.subscription.size();
            bytes <= Self::MOST_BYTES
        });
        let too_many = versions.len() - few.count().max(1);
        let unneeded = at(floor).unwrap_or(0);
        versions.drain(..outdated.max(too_many).min(unneeded));
        versions
    }
}

/// Whether an event at a position is owed to a webhook, by the version that the position lies in.
pub fn is_owed(
    webhook: WebhookId,
    versions: &[SubscriptionVersion],
    seq: Seq,
    event: &Event,
) -> bool {
    let version = versions.iter().rev().find(|version| version.from <= seq);
    version.is_some_and(|version| version.subscription.wants(webhook, event))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::events::{EventType, Synthetic};

    #[test]
    fn what_is_owed_is_decided_by_the_version_of_the_position() {
        let version = |from, enabled, name: &str, stations: &[&str]| SubscriptionVersion {
            from: Seq(from),
            subscription: Subscription {
                revision: from,
                enabled,
                events: EventSelection::parse(&[name]).unwrap(),
                stations: StationSelection::parse(stations).unwrap(),
            },
        };
        let versions = [
            version(10, true, "Heartbeat", &[]),
            version(20, false, "Heartbeat", &[]),
            version(30, true, "*", &["T", "S*"]),
            version(40, true, "*", &["T"]),
        ];
        let event = |kind| {
            let station = crate::events::StationId::new("S").unwrap();
            let id = crate::events::EventId::from_bytes([0; 16]);
            let payload = crate::events::Payload::empty();
            Event::new(id, kind, station, Timestamp::UNIX_EPOCH, None, payload)
        };
        let owed = |kind| {
            let event = event(kind);
            [9, 10, 19, 20, 29, 30, 40]
                .map(|seq| is_owed(WebhookId(1), &versions, Seq(seq), &event))
        };
        assert_eq!(
            owed(EventType::Heartbeat),
            [false, true, true, false, false, true, false]
        );
        assert_eq!(
            owed(EventType::Reset),
            [false, false, false, false, false, true, false]
        );
        let mut only = event(EventType::Heartbeat);
        only.synthetic = Some(Synthetic { only: Some(2) });
        let owed = [1, 2].map(|id| is_owed(WebhookId(id), &versions, Seq(10), &only));
        assert_eq!(owed, [false, true]);
    }

    fn version(from: u64, enabled: bool) -> SubscriptionVersion {
        SubscriptionVersion {
            from: Seq(from),
            subscription: Subscription {
                revision: 1,
                enabled,
                events: EventSelection::parse(&["Heartbeat"]).unwrap(),
                stations: StationSelection::default(),
            },
        }
    }

    /// Of changes at 10, 20, 30 and 40, each of which turned the webhook off or on.
    #[test]
    fn the_past_is_kept_as_long_as_somebody_looks_back() {
        let past = || {
            let changes = [10, 20, 30].into_iter().zip([true, false, true]);
            changes
                .map(|(from, on)| version(from, on))
                .collect::<Vec<_>>()
        };
        let kept = |floor, oldest| {
            let versions = version(40, false).after(&past(), Seq(floor), Seq(oldest));
            versions
                .iter()
                .map(|version| version.from.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(40, 40), [40]);
        assert_eq!(kept(40, 0), [10, 20, 30, 40]);
        assert_eq!(kept(40, 25), [20, 30, 40]);
        assert_eq!(
            kept(10, 40),
            [10, 20, 30, 40],
            "an event on the way needs it"
        );
    }

    #[test]
    fn a_change_of_something_else_is_no_new_version() {
        let past = [version(10, true), version(20, false)];
        let after = |changed: SubscriptionVersion| changed.after(&past, Seq(20), Seq(0));
        assert_eq!(after(version(30, false)), past);
        assert_eq!(after(version(20, true)), past[..1], "it held for no event");
    }

    #[test]
    fn the_past_is_bounded_but_for_what_is_needed() {
        let flip = |floor: fn(u64) -> u64| {
            (0..200).fold(Vec::new(), |past, at| {
                version(at, at % 2 == 0).after(&past, Seq(floor(at)), Seq(0))
            })
        };
        assert_eq!(flip(|at| at).len(), SubscriptionVersion::MOST);
        assert_eq!(flip(|_| 0).len(), 200);
        // Of many stations, fewer are kept, and the present one in any case.
        let large = |at| {
            let mut large = version(at, at % 2 == 0);
            let names = (0..1_000).map(|number| format!("{}{number}", "S".repeat(200)));
            let names = StationSelection::parse(&names.collect::<Vec<_>>());
            large.subscription.stations = names.unwrap();
            large
        };
        let past = large(1).after(&[version(0, true)], Seq(1), Seq(0));
        assert_eq!(past, [large(1)]);
    }
}
