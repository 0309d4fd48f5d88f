//! Keeps the stored states of stations up with the journal.
//!
//! States are saved behind the journal and never ahead of what is durable: `projected_to` says
//! from where a start has to replay. What is saved may hold events beyond it, because applying
//! one twice changes nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use pipelet_domain::{
    events::{Seq, StationId},
    projection::{Transaction, TransactionFilter},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    TransactionRetention,
    history::ShardTransactions,
    stations::{ShardStations, Station},
    transactions::{LateReadings, LateStop, LiveTransactions},
};
use crate::{
    journal::Journal,
    registries::Registrations,
    store::{ProjectionStore, ReadLimit, StoreError},
    system::clock::Clock,
};

const SAVE_EVERY: Duration = Duration::from_millis(500);
/// So many states are saved in one batch.
const SAVE_BATCH: usize = 1_000;
/// So many transactions are: each may touch several blocks of the store's.
const TRANSACTION_BATCH: usize = 250;
/// So many events, or open transactions, are read at once when catching up.
const REPLAY_BATCH: usize = 1_000;
/// The position is saved by itself once the journal is so far ahead of it.
const LAZY_ADVANCE: u64 = 10_000;
/// It is saved by itself, too, after so many ticks without a change.
const LAZY_TICKS: u32 = 20;
/// So often old transactions are forgotten, in ticks.
const FORGET_EVERY: u32 = 20;
/// So many open ones are looked at in one go whether they are to be given up.
const ABANDON_BATCH: usize = 1_000;
/// Between two lines of the log that stations are forgotten.
const REPORT_EVERY: Duration = Duration::from_mins(1);

/// Loads the saved states of one of so many shards and applies what its journal has beyond them.
///
/// No station may be connected before it has returned.
pub(super) async fn restore(
    store: &dyn ProjectionStore,
    journal: &Journal,
    registry: &Registrations,
    shards: usize,
) -> Result<(ShardStations, Seq), StoreError> {
    let head = journal.head();
    let saved = store.stations().await?;
    let stations = ShardStations::one_of(shards, saved.states);
    let are_open = TransactionFilter {
        open: Some(true),
        ..TransactionFilter::default()
    };
    let mut before = None;
    loop {
        let open = store.transactions(&are_open, before, REPLAY_BATCH).await?;
        let Some(last) = open.last() else {
            break;
        };
        before = Some(last.seq);
        stations.transactions().resume(open);
    }
    let mut from = saved.projected_to;
    while from < head {
        let limit = ReadLimit::part(REPLAY_BATCH);
        let events = journal.read_from(from, limit).await?;
        let Some((last, _)) = events.last() else {
            break;
        };
        from = last.next();
        for (seq, event) in &events {
            if event.synthetic.is_none() {
                stations.apply(*seq, event);
            }
        }
    }
    stations.rank_all(&|station| registry.find(station).is_some());
    Ok((stations, saved.projected_to))
}

/// What changed of stations since it was last taken, the unsaved ones before the removals.
struct Changes {
    unsaved: Vec<Weak<Station>>,
    removals: Vec<StationId>,
}

impl Changes {
    const fn is_empty(&self) -> bool {
        self.unsaved.is_empty() && self.removals.is_empty()
    }
}

/// Saves what changes, until it is told to finish.
#[derive(Debug)]
pub(super) struct Projector {
    stations: ShardStations,
    store: Arc<dyn ProjectionStore>,
    journal: Journal,
    projected_to: Seq,
    transactions: KeptTransactions,
    reported: ReportedForgotten,
}

/// What was reported to the log of stations that are forgotten to make room.
#[derive(Debug, Default)]
struct ReportedForgotten {
    count: u64,
    at: Option<Instant>,
}

/// How long transactions stay.
#[derive(Debug)]
pub(super) struct KeptTransactions {
    pub(super) kept: watch::Sender<TransactionRetention>,
    pub(super) clock: Clock,
}

impl Projector {
    /// `projected_to` is the store's, as `restore` told it.
    pub(super) const fn new(
        stations: ShardStations,
        store: Arc<dyn ProjectionStore>,
        journal: Journal,
        projected_to: Seq,
        transactions: KeptTransactions,
    ) -> Self {
        Self {
            stations,
            store,
            journal,
            projected_to,
            transactions,
            reported: ReportedForgotten { count: 0, at: None },
        }
    }

    /// As the API reads them.
    pub(super) fn transactions(&self) -> ShardTransactions {
        ShardTransactions {
            live: self.stations.transactions().clone(),
            store: Arc::clone(&self.store),
        }
    }

    /// Runs until `finish`, which must come after the last connection has ended, and saves
    /// everything once more.
    pub(super) async fn run(mut self, finish: CancellationToken) {
        self.stations.set_saved_to(self.projected_to);
        let mut tick = interval(SAVE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_ticks = 0;
        let mut ticks = 0_u32;
        let mut looked_at = None;
        let mut kept = self.transactions.kept.subscribe();
        while finish.run_until_cancelled(tick.tick()).await.is_some() {
            // The head is taken first: what is below it is in the states that are taken next.
            let head = self.journal.head();
            let changes = Changes {
                unsaved: self.stations.take_unsaved(),
                removals: self.stations.take_removals(),
            };
            idle_ticks += 1;
            let behind = head.0.saturating_sub(self.projected_to.0);
            let late = behind > LAZY_ADVANCE || (behind > 0 && idle_ticks >= LAZY_TICKS);
            if !changes.is_empty() || late {
                self.save(changes, head).await;
                idle_ticks = 0;
            }
            self.report_forgotten();
            if ticks.is_multiple_of(FORGET_EVERY) || kept.has_changed().unwrap_or(false) {
                let kept = *kept.borrow_and_update();
                looked_at = self
                    .abandon_transactions(kept.abandoned_after, looked_at)
                    .await;
                self.forget_transactions(kept.ended).await;
            }
            ticks = ticks.wrapping_add(1);
        }
        let head = self.journal.head();
        let changes = Changes {
            unsaved: self.stations.take_all_unsaved(),
            removals: self.stations.take_removals(),
        };
        if !changes.is_empty() || head != self.projected_to {
            self.save(changes, head).await;
        }
    }

    /// Reports to the log now and then how many stations were forgotten since the last report.
    fn report_forgotten(&mut self) {
        let forgotten = self.stations.forgotten() - self.reported.count;
        if forgotten > 0
            && self
                .reported
                .at
                .is_none_or(|at| at.elapsed() >= REPORT_EVERY)
        {
            tracing::warn!(
                forgotten,
                "as many stations are known as may be: for each new one, the one that is gone \
                 longest and not registered is forgotten"
            );
            self.reported.count += forgotten;
            self.reported.at = Some(Instant::now());
        }
    }

    /// Gives up transactions of which nothing was heard for so long: those in memory, which are
    /// saved with the others, and of the store's a batch behind `after`. Returns where the next
    /// batch begins.
    async fn abandon_transactions(&self, silence: Duration, after: Option<Seq>) -> Option<Seq> {
        let clock = self.transactions.clock;
        let (silent_since, now) = (clock.ago(silence), clock.now());
        let live = self.stations.transactions().clone();
        for abandoned in live.abandon(silent_since, now, ABANDON_BATCH) {
            self.tell_abandoned(&abandoned);
        }
        let position = self.projected_to;
        let abandoning = async {
            let open = self.store.open_transactions(after, ABANDON_BATCH).await?;
            let last = open.last().filter(|_| open.len() == ABANDON_BATCH);
            let last = last.map(|last| last.seq);
            // What is in memory is known better there.
            let silent = open.into_iter().filter(|open| {
                open.is_silent_since(silent_since) && live.get(open.transaction_id).is_none()
            });
            let silent: Vec<_> = silent.map(|open| Arc::new(open.abandoned(now))).collect();
            save_in_batches(self.store.as_ref(), &silent, position).await?;
            Ok::<_, StoreError>((last, silent))
        };
        match abandoning.await {
            Ok((last, silent)) => {
                for abandoned in silent {
                    self.tell_abandoned(&abandoned);
                }
                return last;
            }
            // There is a next time.
            Err(error) if error.is_outage() => {}
            Err(error) => tracing::error!(%error, "transactions could not be given up"),
        }
        after
    }

    fn tell_abandoned(&self, transaction: &Transaction) {
        let (station, transaction_id) = (&transaction.station, transaction.transaction_id);
        self.stations.abandoned(station, transaction_id);
        tracing::info!(%station, transaction_id, "abandoned: nothing was heard of it for too long");
    }

    async fn forget_transactions(&self, kept: Duration) {
        let ended_before = self.transactions.clock.ago(kept);
        loop {
            let forgetting = self
                .store
                .forget_transactions(ended_before, TRANSACTION_BATCH);
            match forgetting.await {
                Ok(TRANSACTION_BATCH) => {}
                Ok(_) => return,
                // There is a next time.
                Err(error) if error.is_outage() => return,
                Err(error) => {
                    return tracing::error!(%error, "old transactions could not be forgotten");
                }
            }
        }
    }

    async fn save(&mut self, changes: Changes, head: Seq) {
        let (store, stations) = (self.store.as_ref(), &self.stations);
        let before = self.projected_to;
        let saving = async {
            save_transactions(store, stations, before).await?;
            remove_all(store, &changes.removals).await?;
            save_all(store, &changes.unsaved, before, head).await
        };
        match saving.await {
            Ok(()) => {
                self.projected_to = head;
                self.stations.set_saved_to(head);
            }
            Err(error) => {
                stations.put_back_unsaved(changes.unsaved);
                stations.put_back_removals(changes.removals);
                // The store itself has told the log of an outage.
                if !error.is_outage() {
                    tracing::error!(%error, "stations could not be saved, trying again");
                }
            }
        }
    }
}

/// Saves the transactions that changed, the position left where it is.
async fn save_transactions(
    store: &dyn ProjectionStore,
    stations: &ShardStations,
    position: Seq,
) -> Result<(), StoreError> {
    let live = stations.transactions();
    for batch in live.unsaved().chunks(TRANSACTION_BATCH) {
        store.save(Vec::new(), batch.to_vec(), position).await?;
        live.saved(batch);
    }
    save_late_readings(store, live, position).await?;
    let late = live.late_stops();
    if !late.is_empty() {
        save_in_batches(store, &ended(store, &late).await?, position).await?;
        live.late_stops_saved(late.len());
    }
    Ok(())
}

async fn save_in_batches(
    store: &dyn ProjectionStore,
    transactions: &[Arc<Transaction>],
    position: Seq,
) -> Result<(), StoreError> {
    for batch in transactions.chunks(TRANSACTION_BATCH) {
        store.save(Vec::new(), batch.to_vec(), position).await?;
    }
    Ok(())
}

async fn save_late_readings(
    store: &dyn ProjectionStore,
    live: &LiveTransactions,
    position: Seq,
) -> Result<(), StoreError> {
    let late = live.take_late_readings();
    if late.is_empty() {
        return Ok(());
    }
    let saved = match read_of(store, &late).await {
        Ok(read) => save_in_batches(store, &read, position).await,
        Err(error) => Err(error),
    };
    if saved.is_err() {
        live.put_back_late_readings(late);
    }
    saved
}

/// The stored transactions that these meter values are of.
async fn read_of(
    store: &dyn ProjectionStore,
    late: &LateReadings,
) -> Result<Vec<Arc<Transaction>>, StoreError> {
    let mut read = Vec::new();
    for ((station, transaction_id), reading) in late {
        let known = store.transaction(*transaction_id).await?;
        let known = known.filter(|known| known.is_open() && known.station == *station);
        read.extend(known.map(|known| {
            let last_meter_values = Some(reading.clone());
            Arc::new(Transaction {
                last_meter_values,
                ..known
            })
        }));
    }
    Ok(read)
}

/// The stored transactions that these stops end.
pub(super) async fn ended(
    store: &dyn ProjectionStore,
    late: &[LateStop],
) -> Result<Vec<Arc<Transaction>>, StoreError> {
    let mut ended = BTreeMap::new();
    for stop in late {
        let stored = store.transaction(stop.request.transaction_id).await?;
        if let Some(as_it_ends) = stored.and_then(|stored| stop.ended(&stored)) {
            // The first stop counts.
            ended.entry(as_it_ends.seq).or_insert(Arc::new(as_it_ends));
        }
    }
    Ok(ended.into_values().collect())
}

/// Removes the stations that were forgotten. A crash in between leaves some, which are known again
/// then until others need their room.
async fn remove_all(store: &dyn ProjectionStore, removals: &[StationId]) -> Result<(), StoreError> {
    for batch in removals.chunks(SAVE_BATCH) {
        store.forget_stations(batch).await?;
    }
    Ok(())
}

/// The position moves with the last batch only, when everything below it is saved.
async fn save_all(
    store: &dyn ProjectionStore,
    unsaved: &[Weak<Station>],
    before: Seq,
    head: Seq,
) -> Result<(), StoreError> {
    let batches = unsaved.len().div_ceil(SAVE_BATCH).max(1);
    for index in 0..batches {
        let from = index * SAVE_BATCH;
        let until = unsaved.len().min(from + SAVE_BATCH);
        let stations = unsaved[from..until].iter().filter_map(Weak::upgrade);
        let states: Vec<_> = stations.map(|station| station.snapshot()).collect();
        let projected_to = if index + 1 == batches { head } else { before };
        store.save(states, Vec::new(), projected_to).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ocpp::Transactions, store::memory::MemoryStore, system::limits::memory::MemoryBudget,
    };
    use pipelet_domain::{
        events::{Event, EventId, EventType, Payload},
        registration::Admission,
        shards::Shards,
    };

    fn event(kind: EventType, payload: &str) -> Event {
        Event::new(
            EventId::from_bytes([0; 16]),
            kind,
            StationId::new("A").unwrap(),
            "2026-04-14T12:00:00Z".parse().unwrap(),
            None,
            Payload::parse(payload.as_bytes()).unwrap(),
        )
    }

    fn start(id: u64) -> Event {
        let payload = format!(r#"{{"connectorId":1,"idTag":"Tag","transactionId":{id}}}"#);
        event(EventType::StartTransaction, &payload)
    }

    fn meter(id: u64, value: u64) -> Event {
        let values = format!(r#"[{{"sampledValue":[{value}]}}]"#);
        let payload = format!(r#"{{"transactionId":{id},"meterValue":{values}}}"#);
        event(EventType::MeterValues, &payload)
    }

    #[tokio::test]
    async fn what_is_said_of_one_that_left_memory_reaches_the_store() {
        let (store, stations) = (Arc::new(MemoryStore::default()), ShardStations::default());
        // The first of them is one too many for its station, and not saved yet.
        let mut events: Vec<Event> = (1..=65).map(start).collect();
        let stop = event(EventType::StopTransaction, r#"{"transactionId":1}"#);
        events.extend([meter(1, 7), meter(1, 8)]);
        for (seq, event) in (0..).map(Seq).zip(&events) {
            stations.apply(seq, event);
        }
        let save = async || {
            let saved = save_transactions(store.as_ref(), &stations, Seq(0)).await;
            saved.unwrap();
        };
        let stored = async || store.transaction(1).await.unwrap().unwrap();
        save().await;
        let reading = stored().await.last_meter_values.unwrap();
        assert!(stored().await.is_open());
        assert_eq!(reading.sampled_values, "[8]");

        stations.apply(Seq(70), &meter(1, 9));
        let shown = Transactions::new(Shards::new([ShardTransactions {
            live: stations.transactions().clone(),
            store: store.clone(),
        }]));
        let list = async |open| {
            let filter = TransactionFilter {
                open: Some(open),
                ..TransactionFilter::default()
            };
            let listed = shown.list(&filter, None, 100).await.unwrap().0;
            let ids = listed.iter().map(|listed| listed.transaction_id);
            ids.filter(|id| *id < 3).collect::<Vec<_>>()
        };
        assert_eq!((list(true).await, list(false).await), (vec![2, 1], vec![]));
        stations.apply(Seq(71), &stop);
        for _ in 0..2 {
            // What the station was answered is seen before it is saved, and after.
            assert_eq!(shown.get(1).await.unwrap().unwrap().status(), "stopped");
            assert_eq!((list(true).await, list(false).await), (vec![2], vec![1]));
            save().await;
        }
        let reading = stored().await.last_meter_values.unwrap();
        assert_eq!(
            (stored().await.status(), &*reading.sampled_values),
            ("stopped", "[9]")
        );
        // One that has ended is not changed by them any more.
        stations.apply(Seq(72), &meter(1, 10));
        save().await;
        assert_eq!(stored().await.last_meter_values.unwrap(), reading);
    }

    #[tokio::test]
    async fn a_start_pages_through_what_is_open() {
        let store = Arc::new(MemoryStore::default());
        let open = |seq: u64| Transaction::started(Seq(seq), &start(seq + 1));
        let transactions: Vec<_> = (0..2_500).filter_map(open).map(Arc::new).collect();
        let saved = store.save(Vec::new(), transactions, Seq(0)).await;
        saved.unwrap();
        let clock = Clock::system();
        let registry = Registrations::open(store.clone(), Admission::Open, clock).await;
        let memory = MemoryBudget::of(MemoryBudget::SMALLEST);
        let ending = CancellationToken::new();
        let journal = Journal::open(store.clone(), Vec::new(), &memory, clock, ending).await;
        let journal = journal.unwrap().journal;
        let restored = restore(store.as_ref(), &journal, &registry.unwrap(), 1).await;
        let (stations, _) = restored.unwrap();
        let live = stations.transactions();
        let in_memory = [2_436, 2_437, 2_500].map(|id| live.get(id).is_some());
        assert_eq!(in_memory, [false, true, true]);
    }
}
