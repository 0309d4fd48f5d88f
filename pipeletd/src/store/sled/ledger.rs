//! The ledger in the cold database.

use std::sync::Arc;

use async_trait::async_trait;
use pipelet_domain::{
    deliveries::{FailedDelivery, FailedFilter, FailedId, Retry, RetryKey, StoredCounts},
    events::Seq,
    webhooks::WebhookId,
};

use super::{
    Inner, SledStore,
    database::{Batch, Database},
    log::read,
    number_of,
    room::Purpose,
};
use crate::store::{
    LedgerChange, LedgerState, LedgerStore, Part, ReadLimit, StoreError,
    codec::record_error,
    keys::{self, Kind, Meta},
    records, take_up_to,
};

#[async_trait]
impl LedgerStore for SledStore {
    async fn state(&self) -> Result<LedgerState, StoreError> {
        self.reading(Inner::ledger_state).await
    }

    async fn commit(&self, changes: Arc<[LedgerChange]>) -> Result<(), StoreError> {
        self.0.commit_ledger(&changes)
    }

    async fn check_growth(&self, bytes: usize) -> Result<(), StoreError> {
        // What is replaced goes, and that takes room as well; with a record come its keys elsewhere.
        let added = (bytes + bytes / 4) as u64;
        self.reading(move |store| store.cold.check(Purpose::Outlook, added))
            .await
    }

    async fn count_stored(&self, webhook: WebhookId) -> Result<StoredCounts, StoreError> {
        self.reading(move |store| store.count_stored(webhook)).await
    }

    async fn off_cursor_markers(&self, webhook: WebhookId) -> Result<Vec<Seq>, StoreError> {
        self.reading(move |store| store.off_cursor_markers(webhook))
            .await
    }

    async fn retry_keys(
        &self,
        webhook: WebhookId,
        after: Option<RetryKey>,
        limit: usize,
    ) -> Result<Vec<RetryKey>, StoreError> {
        self.reading(move |store| store.retry_keys(webhook, after, limit))
            .await
    }

    async fn retries(
        &self,
        keys: &[RetryKey],
        limit: ReadLimit,
    ) -> Result<(Vec<Retry>, usize), StoreError> {
        let keys = keys.to_vec();
        self.reading(move |store| store.retries(&keys, limit)).await
    }

    async fn failed_deliveries(
        &self,
        filter: &FailedFilter,
        after: Option<FailedId>,
        limit: ReadLimit,
    ) -> Result<Part<FailedDelivery>, StoreError> {
        let filter = filter.clone();
        self.reading(move |store| store.failed_deliveries(&filter, after, limit))
            .await
    }

    async fn failed_delivery(&self, id: FailedId) -> Result<Option<FailedDelivery>, StoreError> {
        self.reading(move |store| store.failed_delivery(id)).await
    }
}

impl Inner {
    fn commit_ledger(&self, changes: &[LedgerChange]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for change in changes {
            self.add_to_ledger(&mut batch, change)?;
        }
        let purpose = if changes.iter().any(LedgerChange::grows) {
            Purpose::Bookkeeping
        } else {
            Purpose::Upkeep
        };
        self.commit_cold(batch, purpose)
    }

    fn add_to_ledger(&self, batch: &mut Batch, change: &LedgerChange) -> Result<(), StoreError> {
        let cold = &self.cold;
        match change {
            LedgerChange::Retry(retry) => {
                cold.put(
                    batch,
                    &keys::retry(retry.key),
                    &records::encode_retry(retry),
                )?;
            }
            LedgerChange::RetryGone(key) => {
                cold.remove(batch, &keys::retry(*key))?;
            }
            LedgerChange::Failed(failed) => {
                // A number that was given out is never given out again.
                let next = failed.id.0 + 1;
                if self
                    .meta_number(Meta::NextFailed)?
                    .is_none_or(|known| known < next)
                {
                    let key = keys::meta(Meta::NextFailed);
                    Database::put_new(batch, &key, &next.to_be_bytes());
                }
                cold.put(
                    batch,
                    &keys::failed(failed.id),
                    &records::encode_failed(failed),
                )?;
                let index = keys::failed_by_webhook(failed.webhook, failed.id);
                Database::put_new(batch, &index, &[]);
            }
            LedgerChange::FailedGone(webhook, id) => {
                cold.remove(batch, &keys::failed(*id))?;
                cold.remove(batch, &keys::failed_by_webhook(*webhook, *id))?;
            }
            LedgerChange::OffCursorMarker(webhook, seq) => {
                Database::put_new(batch, &keys::off_cursor_marker(*webhook, *seq), &[]);
            }
            LedgerChange::OffCursorMarkerGone(webhook, seq) => {
                cold.remove(batch, &keys::off_cursor_marker(*webhook, *seq))?;
            }
            LedgerChange::Counts(webhook, counts) => {
                cold.put(
                    batch,
                    &keys::ledger_counts(*webhook),
                    &records::encode_ledger_counts(counts),
                )?;
            }
            LedgerChange::RetryTime(time) => {
                Database::put_new(batch, &keys::meta(Meta::RetryTime), &time.to_be_bytes());
            }
            LedgerChange::Closed(webhook, books) => {
                let value = records::encode_closed_books(books);
                cold.put(batch, &keys::closed_books(*webhook), &value)?;
            }
            LedgerChange::Archived(webhook, archived) => {
                cold.remove(batch, &keys::ledger_counts(*webhook))?;
                cold.remove(batch, &keys::closed_books(*webhook))?;
                let value = records::encode_archived_counts(archived);
                cold.put(batch, &keys::meta(Meta::ArchivedCounts), &value)?;
            }
        }
        Ok(())
    }

    fn ledger_state(&self) -> Result<LedgerState, StoreError> {
        let counts = self
            .cold
            .kind(Kind::LedgerCounts)
            .map(|entry| read(entry?, records::decode_ledger_counts));
        let closed = self
            .cold
            .kind(Kind::ClosedBooks)
            .map(|entry| read(entry?, records::decode_closed_books));
        let archived = self.cold.get(&keys::meta(Meta::ArchivedCounts))?;
        let archived = archived.map(|value| records::decode_archived_counts(&value));
        let retry_time = self.meta_number(Meta::RetryTime)?;
        Ok(LedgerState {
            counts: counts.collect::<Result<_, _>>()?,
            closed: closed.collect::<Result<_, _>>()?,
            archived: archived.transpose()?.unwrap_or_default(),
            next_failed: FailedId(self.meta_number(Meta::NextFailed)?.unwrap_or(1)),
            retry_time: retry_time.map(u64::cast_signed),
        })
    }

    fn count_stored(&self, webhook: WebhookId) -> Result<StoredCounts, StoreError> {
        let count = |kind| {
            let keys = self.cold.keys(&keys::of_webhook(kind, webhook));
            keys.map(|key| key.map(|_| 1)).sum::<Result<u64, _>>()
        };
        Ok(StoredCounts {
            retries: count(Kind::Retry)?,
            failed: count(Kind::FailedByWebhook)?,
        })
    }

    fn off_cursor_markers(&self, webhook: WebhookId) -> Result<Vec<Seq>, StoreError> {
        let prefix = keys::of_webhook(Kind::OffCursorMarker, webhook);
        self.cold
            .range(&prefix, &prefix)
            .map(|entry| Ok(Seq(number_of(&entry?.0)?)))
            .collect()
    }

    fn retry_keys(
        &self,
        webhook: WebhookId,
        after: Option<RetryKey>,
        limit: usize,
    ) -> Result<Vec<RetryKey>, StoreError> {
        let prefix = keys::of_webhook(Kind::Retry, webhook);
        let from = after.map_or_else(|| prefix.clone(), |key| keys::successor(keys::retry(key)));
        let keys = self.cold.keys_from(&from, &prefix).take(limit).map(|key| {
            keys::read_retry(&key?).ok_or_else(|| record_error("retry", "its key is cut short"))
        });
        keys.collect()
    }

    fn retries(
        &self,
        keys: &[RetryKey],
        limit: ReadLimit,
    ) -> Result<(Vec<Retry>, usize), StoreError> {
        let mut looked_at = 0;
        let retries = keys.iter().filter_map(|key| {
            looked_at += 1;
            let value = self.cold.get(&keys::retry(*key)).transpose()?;
            Some(value.and_then(|value| records::decode_retry(*key, &value)))
        });
        let read = take_up_to(limit, retries, Retry::memory_size)?;
        // The one for which there was no room was looked at in vain.
        Ok((read.items, looked_at - usize::from(read.is_cut)))
    }

    fn failed_deliveries(
        &self,
        filter: &FailedFilter,
        after: Option<FailedId>,
        limit: ReadLimit,
    ) -> Result<Part<FailedDelivery>, StoreError> {
        let from = FailedId(after.map_or(0, |id| id.0 + 1));
        let matching = |failed: &Result<FailedDelivery, StoreError>| {
            failed
                .as_ref()
                .map_or(true, |failed| filter.matches(failed))
        };
        if let Some(webhook) = filter.webhook {
            let index = keys::of_webhook(Kind::FailedByWebhook, webhook);
            let ids = self
                .cold
                .range(&keys::failed_by_webhook(webhook, from), &index);
            let failed = ids.filter_map(|entry| {
                let id = entry.and_then(|(key, _)| number_of(&key)).map(FailedId);
                id.and_then(|id| self.failed_delivery(id)).transpose()
            });
            return take_up_to(limit, failed.filter(matching), FailedDelivery::memory_size);
        }
        let all = self
            .cold
            .range(&keys::failed(from), &keys::prefix(Kind::Failed));
        let failed = all.map(|entry| {
            let (key, value) = entry?;
            records::decode_failed(FailedId(number_of(&key)?), &value)
        });
        take_up_to(limit, failed.filter(matching), FailedDelivery::memory_size)
    }

    fn failed_delivery(&self, id: FailedId) -> Result<Option<FailedDelivery>, StoreError> {
        let value = self.cold.get(&keys::failed(id))?;
        value
            .map(|value| records::decode_failed(id, &value))
            .transpose()
    }
}
