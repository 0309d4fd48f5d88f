//! The ledger in a table.

use std::sync::Arc;

use async_trait::async_trait;
use pipelet_domain::{
    deliveries::{FailedDelivery, FailedFilter, FailedId, Retry, RetryKey, StoredCounts},
    events::Seq,
    webhooks::WebhookId,
};

use super::{Records, Table, number_of, reading};
use crate::store::{
    LedgerChange, LedgerState, LedgerStore, Part, ReadLimit, StoreError,
    codec::record_error,
    keys::{self, Kind, Meta},
    records, take_up_to,
};

#[async_trait]
impl<S: Records> LedgerStore for S {
    async fn state(&self) -> Result<LedgerState, StoreError> {
        reading(self, |store| state(store.table())).await
    }

    async fn commit(&self, changes: Arc<[LedgerChange]>) -> Result<(), StoreError> {
        let mut batch = Default::default();
        for change in &*changes {
            add(self.table(), &mut batch, change)?;
        }
        let grows = changes.iter().any(LedgerChange::grows);
        Records::commit(self, batch, grows)
    }

    async fn check_growth(&self, bytes: usize) -> Result<(), StoreError> {
        // What is replaced goes, and that takes room as well; with a record come its keys elsewhere.
        let added = (bytes + bytes / 4) as u64;
        reading(self, move |store| Records::check_growth(store, added)).await
    }

    async fn count_stored(&self, webhook: WebhookId) -> Result<StoredCounts, StoreError> {
        reading(self, move |store| count_stored(store.table(), webhook)).await
    }

    async fn off_cursor_markers(&self, webhook: WebhookId) -> Result<Vec<Seq>, StoreError> {
        reading(self, move |store| {
            off_cursor_markers(store.table(), webhook)
        })
        .await
    }

    async fn retry_keys(
        &self,
        webhook: WebhookId,
        after: Option<RetryKey>,
        limit: usize,
    ) -> Result<Vec<RetryKey>, StoreError> {
        reading(self, move |store| {
            retry_keys(store.table(), webhook, after, limit)
        })
        .await
    }

    async fn retries(
        &self,
        keys: &[RetryKey],
        limit: ReadLimit,
    ) -> Result<(Vec<Retry>, usize), StoreError> {
        let keys = keys.to_vec();
        reading(self, move |store| retries(store.table(), &keys, limit)).await
    }

    async fn failed_deliveries(
        &self,
        filter: &FailedFilter,
        after: Option<FailedId>,
        limit: ReadLimit,
    ) -> Result<Part<FailedDelivery>, StoreError> {
        let filter = filter.clone();
        reading(self, move |store| {
            failed_deliveries(store.table(), &filter, after, limit)
        })
        .await
    }

    async fn failed_delivery(&self, id: FailedId) -> Result<Option<FailedDelivery>, StoreError> {
        reading(self, move |store| failed_delivery(store.table(), id)).await
    }
}

fn add<T: Table>(table: &T, batch: &mut T::Batch, change: &LedgerChange) -> Result<(), StoreError> {
    match change {
        LedgerChange::Retry(retry) => {
            table.put(
                batch,
                &keys::retry(retry.key),
                &records::encode_retry(retry),
            )?;
        }
        LedgerChange::RetryGone(key) => {
            table.remove(batch, &keys::retry(*key))?;
        }
        LedgerChange::Failed(failed) => {
            // A number that was given out is never given out again.
            let next = failed.id.0 + 1;
            if table
                .meta_number(Meta::NextFailed)?
                .is_none_or(|known| known < next)
            {
                let key = keys::meta(Meta::NextFailed);
                T::put_new(batch, &key, &next.to_be_bytes());
            }
            table.put(
                batch,
                &keys::failed(failed.id),
                &records::encode_failed(failed),
            )?;
            let index = keys::failed_by_webhook(failed.webhook, failed.id);
            T::put_new(batch, &index, &[]);
        }
        LedgerChange::FailedGone(webhook, id) => {
            table.remove(batch, &keys::failed(*id))?;
            table.remove(batch, &keys::failed_by_webhook(*webhook, *id))?;
        }
        LedgerChange::OffCursorMarker(webhook, seq) => {
            T::put_new(batch, &keys::off_cursor_marker(*webhook, *seq), &[]);
        }
        LedgerChange::OffCursorMarkerGone(webhook, seq) => {
            table.remove(batch, &keys::off_cursor_marker(*webhook, *seq))?;
        }
        LedgerChange::Counts(webhook, counts) => {
            table.put(
                batch,
                &keys::ledger_counts(*webhook),
                &records::encode_ledger_counts(counts),
            )?;
        }
        LedgerChange::RetryTime(time) => {
            T::put_new(batch, &keys::meta(Meta::RetryTime), &time.to_be_bytes());
        }
        LedgerChange::Closed(webhook, books) => {
            let value = records::encode_closed_books(books);
            table.put(batch, &keys::closed_books(*webhook), &value)?;
        }
        LedgerChange::Archived(webhook, archived) => {
            table.remove(batch, &keys::ledger_counts(*webhook))?;
            table.remove(batch, &keys::closed_books(*webhook))?;
            let value = records::encode_archived_counts(archived);
            table.put(batch, &keys::meta(Meta::ArchivedCounts), &value)?;
        }
    }
    Ok(())
}

fn state<T: Table>(table: &T) -> Result<LedgerState, StoreError> {
    let counts = table
        .kind(Kind::LedgerCounts)
        .map(|entry| read(entry?, records::decode_ledger_counts));
    let closed = table
        .kind(Kind::ClosedBooks)
        .map(|entry| read(entry?, records::decode_closed_books));
    let archived = table.get(&keys::meta(Meta::ArchivedCounts))?;
    let archived = archived.map(|value| records::decode_archived_counts(&value));
    let retry_time = table.meta_number(Meta::RetryTime)?;
    Ok(LedgerState {
        counts: counts.collect::<Result<_, _>>()?,
        closed: closed.collect::<Result<_, _>>()?,
        archived: archived.transpose()?.unwrap_or_default(),
        next_failed: FailedId(table.meta_number(Meta::NextFailed)?.unwrap_or(1)),
        retry_time: retry_time.map(u64::cast_signed),
    })
}

fn count_stored<T: Table>(table: &T, webhook: WebhookId) -> Result<StoredCounts, StoreError> {
    let count = |kind| {
        let keys = table.keys(&keys::of_webhook(kind, webhook));
        keys.map(|key| key.map(|_| 1)).sum::<Result<u64, _>>()
    };
    Ok(StoredCounts {
        retries: count(Kind::Retry)?,
        failed: count(Kind::FailedByWebhook)?,
    })
}

fn off_cursor_markers<T: Table>(table: &T, webhook: WebhookId) -> Result<Vec<Seq>, StoreError> {
    let prefix = keys::of_webhook(Kind::OffCursorMarker, webhook);
    table
        .range(&prefix, &prefix)
        .map(|entry| Ok(Seq(number_of(entry?.0)?)))
        .collect()
}

fn retry_keys<T: Table>(
    table: &T,
    webhook: WebhookId,
    after: Option<RetryKey>,
    limit: usize,
) -> Result<Vec<RetryKey>, StoreError> {
    let prefix = keys::of_webhook(Kind::Retry, webhook);
    let from = after.map_or_else(|| prefix.clone(), |key| keys::successor(keys::retry(key)));
    let keys = table.keys_from(&from, &prefix).take(limit).map(|key| {
        keys::read_retry(key?.as_ref()).ok_or_else(|| record_error("retry", "its key is cut short"))
    });
    keys.collect()
}

fn retries<T: Table>(
    table: &T,
    keys: &[RetryKey],
    limit: ReadLimit,
) -> Result<(Vec<Retry>, usize), StoreError> {
    let mut looked_at = 0;
    let retries = keys.iter().filter_map(|key| {
        looked_at += 1;
        let value = table.get(&keys::retry(*key)).transpose()?;
        Some(value.and_then(|value| records::decode_retry(*key, &value)))
    });
    let read = take_up_to(limit, retries, Retry::memory_size)?;
    // The one for which there was no room was looked at in vain.
    Ok((read.items, looked_at - usize::from(read.is_cut)))
}

fn failed_deliveries<T: Table>(
    table: &T,
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
        let ids = table.range(&keys::failed_by_webhook(webhook, from), &index);
        let failed = ids.filter_map(|entry| {
            let id = entry.and_then(|(key, _)| number_of(key)).map(FailedId);
            id.and_then(|id| failed_delivery(table, id)).transpose()
        });
        return take_up_to(limit, failed.filter(matching), FailedDelivery::memory_size);
    }
    let all = table.range(&keys::failed(from), &keys::prefix(Kind::Failed));
    let failed = all.map(|entry| {
        let (key, value) = entry?;
        records::decode_failed(FailedId(number_of(key)?), &value)
    });
    take_up_to(limit, failed.filter(matching), FailedDelivery::memory_size)
}

fn failed_delivery<T: Table>(
    table: &T,
    id: FailedId,
) -> Result<Option<FailedDelivery>, StoreError> {
    let value = table.get(&keys::failed(id))?;
    value
        .map(|value| records::decode_failed(id, &value))
        .transpose()
}

/// A record of a webhook.
pub(in crate::store) fn read<T>(
    (key, value): (impl AsRef<[u8]>, impl AsRef<[u8]>),
    decode: impl Fn(&[u8]) -> Result<T, StoreError>,
) -> Result<(WebhookId, T), StoreError> {
    Ok((WebhookId(number_of(key)?), decode(value.as_ref())?))
}
