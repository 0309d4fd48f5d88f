//! Each database is checked against the other: neither can lose its end unnoticed.
//!
//! sled takes the first damaged place in its log for the log's end, and goes on from there. So a
//! byte that rots, a file that is missing or cut short would otherwise be a quiet fresh start
//! from some earlier moment. `cold` knows how far the journal must reach at least, and `hot` how
//! many batches `cold` has taken; what is known may be a little less than what was there.

use std::path::Path;

use super::database::Database;
use crate::store::{StoreError, keys::Meta, table::Table as _};

/// What was found of the directory before either database was opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    hot: bool,
    cold: bool,
}

impl Found {
    pub(super) fn of(directory: &Path) -> Self {
        Self {
            hot: directory.join("hot").exists(),
            cold: directory.join("cold").exists(),
        }
    }

    /// Fails where one of the databases lacks what the other knows it had.
    pub(super) fn check(
        self,
        directory: &Path,
        hot: &Database,
        cold: &Database,
        journal_end: u64,
    ) -> Result<(), StoreError> {
        let known = hot.meta_number(Meta::ColdCommits)?.unwrap_or(0);
        let commits = cold.meta_number(Meta::ColdCommits)?.unwrap_or(0);
        let projected = cold.meta_number(Meta::ProjectedTo)?.unwrap_or(0);
        let damaged = |name: &str, detail: String| {
            Err(StoreError::Damaged {
                path: directory.join(name),
                detail,
            })
        };
        // A first start that was cut short leaves two that are empty.
        if self.hot && (!self.cold || cold.is_empty()?) && !hot.is_empty()? {
            return damaged(
                "cold",
                "it is gone, and the journal beside it is not".to_owned(),
            );
        }
        if !self.hot && commits > 0 {
            return damaged(
                "hot",
                "it is gone, and what stays beside it is not".to_owned(),
            );
        }
        if commits < known {
            let detail = format!("it ends after {commits} batches and once had {known} or more");
            return damaged("cold", detail);
        }
        if journal_end < projected {
            let detail = format!("it ends at event {journal_end} and once reached {projected}");
            return damaged("hot", detail);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, ops::Range, sync::Arc};

    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::store::{
        LedgerChange, LedgerStore as _, LogStore as _, ProjectionStore as _, sled::SledStore,
    };
    use pipelet_domain::{
        deliveries::LedgerCounts,
        events::{Event, EventId, EventType, Payload, Seq, StationId},
        webhooks::WebhookId,
    };

    const EVENTS: u64 = 300;

    fn events(numbers: Range<u64>) -> Vec<Arc<Event>> {
        let event = |number| {
            let payload = format!(r#"{{"n":{number},"pad":"{}"}}"#, "x".repeat(2_000));
            Arc::new(Event::new(
                EventId::from_bytes([0; 16]),
                EventType::MeterValues,
                StationId::new("S").unwrap(),
                Timestamp::UNIX_EPOCH,
                None,
                Payload::parse(payload.as_bytes()).unwrap(),
            ))
        };
        numbers.map(event).collect()
    }

    async fn write(directory: &Path) {
        let store = SledStore::open(directory).unwrap();
        for first in (0..EVENTS).step_by(3) {
            let three = events(first..first + 3).into();
            store.append(three, [].into()).await.unwrap();
            let counts = LedgerChange::Counts(WebhookId(first), LedgerCounts::default());
            store.commit([counts].into()).await.unwrap();
        }
        let saved = store.save(Vec::new(), Vec::new(), Seq(EVENTS)).await;
        saved.unwrap();
        let last = events(EVENTS..EVENTS + 1).into();
        store.append(last, [].into()).await.unwrap();
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.metadata().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }

    /// Does this to a copy of a store, and returns how opening it went. Where it opens, nothing
    /// that was known is missing.
    async fn open_after(store: &Path, damage: impl Fn(&Path)) -> Result<(), StoreError> {
        let directory = TempDir::new().unwrap();
        copy(store, directory.path());
        damage(directory.path());
        let store = SledStore::open(directory.path())?;
        let end = store.bounds().await?.end;
        assert!(end >= Seq(EVENTS), "the journal ends at {end:?}");
        let batches = store.state().await?.counts.len() as u64;
        assert_eq!(batches, EVENTS / 3);
        Ok(())
    }

    #[tokio::test]
    async fn what_rots_is_noticed_wherever_it_is() {
        let directory = TempDir::new().unwrap();
        write(directory.path()).await;
        open_after(directory.path(), |_| {}).await.unwrap();
        for part in ["hot", "cold"] {
            let length = fs::metadata(directory.path().join(part).join("db"))
                .unwrap()
                .len();
            let mut refused = 0;
            for place in 0..24 {
                let at = usize::try_from(length / 24 * place).unwrap() + 11;
                let rot = |store: &Path| {
                    let db = store.join(part).join("db");
                    let mut bytes = fs::read(&db).unwrap();
                    bytes[at..at + 8].iter_mut().for_each(|byte| *byte ^= 0xff);
                    fs::write(db, bytes).unwrap();
                };
                match open_after(directory.path(), rot).await {
                    Err(StoreError::Damaged { .. }) => refused += 1,
                    // Nothing stood there that is still needed.
                    Ok(()) => {}
                    Err(other) => panic!("{part} at {at}: {other}"),
                }
            }
            assert!(refused > 12, "{part}: {refused}");
        }
    }

    #[tokio::test]
    async fn what_is_gone_is_noticed() {
        let directory = TempDir::new().unwrap();
        write(directory.path()).await;
        let check = async |damage: &dyn Fn(&Path), name: &str| {
            let refused = open_after(directory.path(), damage).await.unwrap_err();
            let StoreError::Damaged { path, .. } = &refused else {
                panic!("{refused}");
            };
            assert!(path.ends_with(name), "{refused}");
        };
        for name in ["hot", "cold"] {
            check(&|store| fs::remove_dir_all(store.join(name)).unwrap(), name).await;
            check(
                &|store| fs::remove_file(store.join(name).join("db")).unwrap(),
                name,
            )
            .await;
            check(
                &|store| fs::write(store.join(name).join("db"), "").unwrap(),
                name,
            )
            .await;
        }
        // Both together are no store any more; what is to become of that is the operator's say.
        let both = |store: &Path| {
            for name in ["hot", "cold"] {
                fs::remove_dir_all(store.join(name)).unwrap();
            }
        };
        let fresh = TempDir::new().unwrap();
        copy(directory.path(), fresh.path());
        both(fresh.path());
        assert_eq!(
            SledStore::open(fresh.path())
                .unwrap()
                .bounds()
                .await
                .unwrap(),
            Seq(0)..Seq(0)
        );
    }
}
