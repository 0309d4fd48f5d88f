//! The books of the webhooks, and whether they balance.
//!
//! Invariant: the verdict comes from the numbers alone, and a webhook without books is never
//! counted as balanced: it is named as not audited.

use std::fmt::Write as _;

use jiff::Timestamp;
use pipelet_proto::v1;
use serde::Serialize;

use super::{cluster::numbers, time::Time};
use crate::{
    table::{self, Reader},
    words::counted,
};

#[derive(Debug, Serialize)]
pub(crate) struct Audit {
    pub(crate) balanced: bool,
    webhooks: Vec<Audited>,
    /// Deleted ones that are not listed any more.
    forgotten: Option<Forgotten>,
    total: Books,
    /// What became of the events since then, where that was asked for.
    since: Option<Since>,
}

#[derive(Debug, Serialize)]
struct Since {
    time: Time,
    webhooks: Vec<Lately>,
    total: Books,
}

/// What became of one webhook's events since a time. It has no gap: what is delivered is known as
/// the rest of what was received.
#[derive(Debug, Serialize)]
struct Lately {
    id: u64,
    name: String,
    state: String,
    books: Books,
    /// Where it is known only from then on what the webhook wanted.
    counted_from: Option<Time>,
    /// What backfills sent it again, ever.
    backfilled: u64,
    /// Dead letters of it were purged, at some time: those of this span are among the delivered,
    /// for nothing is kept of them.
    delivered_or_purged: bool,
    /// Whether nothing else is in doubt.
    exact: bool,
}

#[derive(Debug, Serialize)]
struct Forgotten {
    webhooks: u64,
    books: Books,
}

#[derive(Debug, Serialize)]
struct Audited {
    id: u64,
    name: String,
    state: String,
    /// None while the webhook is being deleted.
    books: Option<Books>,
    /// None where it moves too fast, and of deleted ones.
    compared: Option<Comparison>,
    /// Of a cluster: those whose own books are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unbalanced_shards: Vec<u32>,
}

/// What the books say is kept beside the happy path, and what was counted there.
#[derive(Debug, Clone, Copy, Serialize)]
struct Comparison {
    booked: Kept,
    kept: Kept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Kept {
    retries: u64,
    failed_deliveries: u64,
}

impl Comparison {
    fn of(booked: Option<v1::KeptDeliveries>, kept: Option<v1::KeptDeliveries>) -> Option<Self> {
        let read = |wire: v1::KeptDeliveries| Kept {
            retries: wire.retries,
            failed_deliveries: wire.failed_deliveries,
        };
        Some(Self {
            booked: read(booked?),
            kept: read(kept?),
        })
    }

    fn differences(self) -> impl Iterator<Item = String> {
        let Self { booked, kept } = self;
        let pairs = [
            ("retries", booked.retries, kept.retries),
            (
                "dead letters",
                booked.failed_deliveries,
                kept.failed_deliveries,
            ),
        ];
        let differ = pairs.into_iter().filter(|(_, booked, kept)| booked != kept);
        differ.map(|(what, booked, kept)| format!("{booked} {what} are booked, and {kept} kept"))
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Books {
    received: u64,
    delivered: u64,
    pending: u64,
    dead: u64,
    /// Of the dead ones.
    purged: u64,
    cancelled: u64,
    /// What was received and is in none of the others; below zero: what is in one too many.
    gap: i128,
}

impl Books {
    fn of(wire: v1::WebhookStats) -> Self {
        Self {
            received: wire.received,
            delivered: wire.delivered,
            pending: wire.pending,
            dead: wire.dead,
            purged: wire.purged,
            cancelled: wire.cancelled,
            gap: 0,
        }
        .judged()
    }

    fn judged(self) -> Self {
        let ends = [self.delivered, self.pending, self.dead, self.cancelled];
        let ends: i128 = ends.into_iter().map(i128::from).sum();
        Self {
            gap: i128::from(self.received) - ends,
            ..self
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            received: self.received.saturating_add(other.received),
            delivered: self.delivered.saturating_add(other.delivered),
            pending: self.pending.saturating_add(other.pending),
            dead: self.dead.saturating_add(other.dead),
            purged: self.purged.saturating_add(other.purged),
            cancelled: self.cancelled.saturating_add(other.cancelled),
            gap: self.gap + other.gap,
        }
    }

    fn sentence(self, sign: &str, delivered_as: &str) -> String {
        let Self {
            received,
            delivered,
            pending,
            dead,
            purged,
            cancelled,
            ..
        } = self;
        let purged = match purged {
            0 => String::new(),
            purged => format!(" ({purged} purged)"),
        };
        format!(
            "{received} received {sign} {delivered} {delivered_as} + {pending} pending + {dead} \
             dead{purged} + {cancelled} cancelled"
        )
    }

    fn cells(self) -> [String; 5] {
        [
            self.received,
            self.delivered,
            self.pending,
            self.dead,
            self.cancelled,
        ]
        .map(|count| count.to_string())
    }

    /// One webhook's gap must not hide behind another's surplus, so this is only ever asked of
    /// one webhook.
    fn gap_in_words(self) -> Option<String> {
        match self.gap {
            0 => None,
            1.. => Some(format!("{} received and not accounted for", self.gap)),
            _ => Some(format!("{} more accounted for than received", -self.gap)),
        }
    }
}

impl Since {
    /// Deleted webhooks are in it no more.
    fn of(time: Timestamp, wire: &[v1::WebhookAudit]) -> Self {
        let webhooks = wire.iter().filter_map(|webhook| {
            Some(Lately {
                exact: webhook.backfilled == 0 && webhook.since_counted_from.is_none(),
                id: webhook.id,
                name: webhook.name.clone(),
                state: webhook.state.clone(),
                books: Books::of(webhook.since?),
                counted_from: Time::from_wire(webhook.since_counted_from),
                backfilled: webhook.backfilled,
                delivered_or_purged: webhook.stats.unwrap_or_default().purged > 0,
            })
        });
        let webhooks: Vec<_> = webhooks.collect();
        let books = webhooks.iter().map(|webhook| webhook.books);
        Self {
            time: Time::at(time),
            total: books.fold(Books::default(), Books::plus),
            webhooks,
        }
    }
}

impl Audit {
    pub(crate) fn new(wire: v1::AuditWebhooksResponse, since: Option<Timestamp>) -> Self {
        let since = since.map(|time| Since::of(time, &wire.webhooks));
        let webhooks = wire.webhooks.into_iter().map(|webhook| Audited {
            id: webhook.id,
            name: webhook.name,
            state: webhook.state,
            books: webhook.stats.map(Books::of),
            compared: Comparison::of(webhook.booked, webhook.kept),
            unbalanced_shards: webhook.unbalanced_shards,
        });
        let webhooks: Vec<_> = webhooks.collect();
        let forgotten = wire.forgotten.map(|forgotten| Forgotten {
            webhooks: forgotten.webhooks,
            books: Books::of(forgotten.stats.unwrap_or_default()),
        });
        let books = || {
            let listed = webhooks.iter().filter_map(|webhook| webhook.books);
            listed.chain(forgotten.iter().map(|forgotten| forgotten.books))
        };
        Self {
            balanced: books().all(|books| books.gap == 0)
                && webhooks
                    .iter()
                    .all(|webhook| webhook.differences().next().is_none()),
            total: books().fold(Books::default(), Books::plus),
            forgotten,
            since,
            webhooks,
        }
    }
}

/// `~` stands before what the notes below put in doubt.
fn about(exact: bool, count: String) -> String {
    if exact { count } else { format!("~{count}") }
}

impl Lately {
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.id.to_string(), self.name.clone(), self.state.clone()];
        let [received, delivered, rest @ ..] = self.books.cells();
        cells.extend([received, about(self.exact, delivered)]);
        cells.extend(rest);
        cells
    }

    fn caveats(&self) -> impl Iterator<Item = String> {
        let name = table::printable(&self.name);
        let from = self.counted_from.map(|from| {
            format!(
                "webhook {} ({name}) is counted from {from} on: it was changed too often to know \
                 what it wanted before",
                self.id
            )
        });
        let id = self.id;
        let backfilled = (self.backfilled > 0).then(|| {
            format!(
                "webhook {id} ({name}): {} sent again by backfills, at some time; here that counts \
                 only while it is pending or dead",
                counted(self.backfilled, "event was", "events were")
            )
        });
        from.into_iter().chain(backfilled)
    }
}

impl Audit {
    const HEADERS: &[&str] = &[
        "ID",
        "NAME",
        "STATE",
        "RECEIVED",
        "DELIVERED",
        "PENDING",
        "DEAD",
        "CANCELLED",
        "BALANCE",
    ];

    /// The table, and the sum as a sentence.
    pub(crate) fn text(&self) -> String {
        if let Some(Since {
            time,
            webhooks,
            total,
        }) = &self.since
        {
            let rows: Vec<_> = webhooks.iter().map(Lately::cells).collect();
            let delivered = if webhooks.iter().any(|webhook| webhook.delivered_or_purged) {
                "delivered or purged"
            } else {
                "delivered"
            };
            let headers = Self::HEADERS.split_last().map_or(&[][..], |(_, rest)| rest);
            let heading = delivered.to_uppercase();
            let headers = headers.iter().map(|header| match *header {
                "DELIVERED" => heading.as_str(),
                header => header,
            });
            let table = table::columns(
                &headers.collect::<Vec<_>>(),
                &rows,
                &["STATE"],
                Reader::of_stdout(),
            );
            let exact = webhooks.iter().all(|webhook| webhook.exact);
            let sign = if exact { "=" } else { "≈" };
            let sentence = total.sentence(sign, delivered);
            return format!("{table}\n\nsince {time}: {sentence}");
        }
        let sign = if self.has_gap() { "≠" } else { "=" };
        let mut text = String::new();
        let rows = self.webhooks.iter().map(Audited::cells);
        let rows: Vec<_> = rows
            .chain(self.forgotten.as_ref().map(Forgotten::cells))
            .collect();
        if !rows.is_empty() {
            let _ = write!(
                text,
                "{}\n\n",
                table::columns(Self::HEADERS, &rows, &["STATE"], Reader::of_stdout())
            );
        }
        text.push_str(&self.total.sentence(sign, "delivered"));
        text
    }

    /// Whether what was received is not what became of it. What is booked and not kept is another
    /// matter: the sum is right then.
    fn has_gap(&self) -> bool {
        let listed = self.webhooks.iter().filter_map(|webhook| webhook.books);
        let forgotten = self.forgotten.iter().map(|forgotten| forgotten.books);
        listed.chain(forgotten).any(|books| books.gap != 0)
    }

    /// What is wrong with whose books.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = String> {
        let listed = self.webhooks.iter().flat_map(|webhook| {
            let gap = webhook.books.and_then(Books::gap_in_words);
            let name = table::printable(&webhook.name);
            let named = move |gap| format!("webhook {} ({name}): {gap}", webhook.id);
            gap.into_iter().chain(webhook.differences()).map(named)
        });
        let forgotten = self.forgotten.as_ref().and_then(|forgotten| {
            let gap = forgotten.books.gap_in_words()?;
            Some(format!("{}: {gap}", forgotten.name()))
        });
        listed.chain(forgotten)
    }

    /// What is not in the figures of a span of time.
    pub(crate) fn caveats(&self) -> impl Iterator<Item = String> {
        let webhooks = self.since.iter().flat_map(|since| &since.webhooks);
        let is_deleted = self.webhooks.iter().any(|of| of.state == "deleted");
        let deleted = is_deleted || self.forgotten.is_some();
        let deleted = self.since.iter().filter(move |_| deleted);
        let deleted = deleted.map(|_| "deleted webhooks are not counted here".to_owned());
        webhooks.flat_map(Lately::caveats).chain(deleted)
    }

    /// The webhooks whose books could not be seen.
    pub(crate) fn unaudited(&self) -> impl Iterator<Item = u64> {
        let unaudited = self.webhooks.iter().filter(|of| of.books.is_none());
        unaudited.map(|webhook| webhook.id)
    }
}

impl Audited {
    fn differences(&self) -> impl Iterator<Item = String> + use<> {
        let shards = &self.unbalanced_shards;
        let in_shards =
            (!shards.is_empty()).then(|| format!("this is in the shards {}", numbers(shards)));
        let compared = self.compared.into_iter();
        compared.flat_map(Comparison::differences).chain(in_shards)
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = cells(self.id.to_string(), &self.name, &self.state, self.books);
        if self.differences().next().is_some()
            && let Some(verdict) = cells.last_mut().filter(|verdict| *verdict == "ok")
        {
            "not kept".clone_into(verdict);
        }
        cells
    }
}

impl Forgotten {
    fn name(&self) -> String {
        format!("{} before these", self.webhooks)
    }

    fn cells(&self) -> Vec<String> {
        cells("-".to_owned(), &self.name(), "deleted", Some(self.books))
    }
}

fn cells(id: String, name: &str, state: &str, books: Option<Books>) -> Vec<String> {
    let (books, verdict) = match books {
        Some(books) if books.gap == 0 => (books.cells(), "ok".to_owned()),
        Some(books) => (books.cells(), format!("gap {}", books.gap)),
        None => (std::array::from_fn(|_| "-".to_owned()), "-".to_owned()),
    };
    let mut cells = vec![id, name.to_owned(), state.to_owned()];
    cells.extend(books);
    cells.push(verdict);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `received`, `delivered`, `pending`, `dead` and `cancelled`.
    type Numbers = Option<[u64; 5]>;

    fn audit(books: &[Numbers]) -> Audit {
        let webhooks = (1..).zip(books).map(|(id, books)| v1::WebhookAudit {
            id,
            name: format!("W{id}"),
            state: "active".to_owned(),
            stats: books.map(
                |[received, delivered, pending, dead, cancelled]| v1::WebhookStats {
                    received,
                    delivered,
                    pending,
                    dead,
                    cancelled,
                    ..v1::WebhookStats::default()
                },
            ),
            ..v1::WebhookAudit::default()
        });
        Audit::new(
            v1::AuditWebhooksResponse {
                webhooks: webhooks.collect(),
                forgotten: None,
            },
            None,
        )
    }

    #[test]
    fn a_gap_is_named() {
        let fine = Some([10, 5, 2, 2, 1]);
        let missing = "webhook 2 (W2): 1 received and not accounted for";
        let surplus = "webhook 3 (W3): 1 more accounted for than received";
        let cases: &[(&[Numbers], &[&str])] = &[
            (&[], &[]),
            (&[fine, fine], &[]),
            (&[fine, Some([10, 5, 1, 2, 1])], &[missing]),
            // They make up for each other in the sum, and are named all the same.
            (
                &[fine, Some([1, 0, 0, 0, 0]), Some([0, 0, 0, 1, 0])],
                &[missing, surplus],
            ),
        ];
        for (books, gaps) in cases {
            let audit = audit(books);
            assert_eq!(audit.gaps().collect::<Vec<_>>(), *gaps);
            assert_eq!(audit.balanced, gaps.is_empty(), "{books:?}");
            assert_eq!(audit.text().contains('≠'), !gaps.is_empty(), "{books:?}");
        }
    }

    #[test]
    fn what_is_booked_and_not_kept_is_named() {
        let audited = |kept| v1::WebhookAudit {
            id: 7,
            name: "W".to_owned(),
            stats: Some(v1::WebhookStats::default()),
            booked: Some(v1::KeptDeliveries {
                retries: 3,
                failed_deliveries: 1,
            }),
            kept: Some(v1::KeptDeliveries {
                retries: kept,
                failed_deliveries: 1,
            }),
            ..v1::WebhookAudit::default()
        };
        let audit = |kept| {
            Audit::new(
                v1::AuditWebhooksResponse {
                    webhooks: vec![audited(kept)],
                    forgotten: None,
                },
                None,
            )
        };
        assert!(audit(3).balanced);
        let lost = audit(2);
        assert!(!lost.balanced);
        let named = "webhook 7 (W): 3 retries are booked, and 2 kept";
        assert_eq!(lost.gaps().collect::<Vec<_>>(), [named]);
        // What the sum says is right; the webhook's own row tells what is wrong.
        let text = lost.text();
        assert!(text.contains("0 received = 0 delivered"), "{text}");
        assert!(text.contains("not kept"), "{text}");
        assert!(!audit(3).text().contains("not kept"));
    }

    #[test]
    fn one_without_books_is_named_and_not_counted() {
        let audit = audit(&[Some([3, 3, 0, 0, 0]), None]);
        assert_eq!(audit.unaudited().collect::<Vec<_>>(), [2]);
        let text = audit.text();
        let sum = "3 received = 3 delivered + 0 pending + 0 dead + 0 cancelled";
        assert!(text.ends_with(sum), "{text}");
    }
}
