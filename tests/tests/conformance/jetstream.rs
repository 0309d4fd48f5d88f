//! What only JetStream has: owners that are overtaken, servers that die, and what is refused.

use std::{path::Path, sync::Arc};

use pipelet_domain::{
    events::{Payload, Seq},
    shards::ShardId,
};
use pipelet_tests::{
    Nats,
    deadline::{eventually, within},
};
use pipeletd::store::{
    LedgerChange, LogStore, ReadLimit, StoreError,
    jetstream::{Cluster, ClusterOptions},
};
use tempfile::TempDir;

use super::{Stores, event, events, failed, retry};

/// Joins the cluster of a server, with options that are changed so.
pub(super) async fn join(
    nats: &Nats,
    data_dir: &Path,
    change: impl FnOnce(&mut ClusterOptions),
) -> Result<Cluster, StoreError> {
    let mut options = ClusterOptions {
        servers: vec![nats.url().parse().unwrap()],
        cluster: "pipelet".to_owned(),
        node: "a".to_owned(),
        credentials: None,
        authorities: None,
        shards: Some(1),
        replicas: None,
    };
    change(&mut options);
    Cluster::try_join(&options, data_dir, None).await
}

/// A server, and a node's data directory; none where this machine can't have one.
async fn server() -> Option<(Nats, TempDir)> {
    Some((Nats::start().await?, tempfile::tempdir().unwrap()))
}

/// Takes the one shard over, whoever had it before.
pub(super) async fn open(nats: &Nats, directory: &TempDir) -> Stores {
    let cluster = join(nats, directory.path(), |_| {}).await.unwrap();
    let shard = cluster.open_shard(ShardId(0)).await.unwrap();
    Stores::new(cluster.configuration(), shard)
}

async fn append(log: &dyn LogStore, numbers: std::ops::Range<u64>) -> Result<Seq, StoreError> {
    log.append(events(numbers).into(), [].into()).await
}

async fn all(log: &dyn LogStore) -> Vec<(Seq, Arc<pipelet_domain::events::Event>)> {
    log.read_from(Seq(0), ReadLimit::part(1_000)).await.unwrap()
}

fn numbered(numbers: std::ops::Range<u64>) -> Vec<(Seq, Arc<pipelet_domain::events::Event>)> {
    numbers.map(|n| (Seq(n), event(n, 300))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_overtaken_writes_nothing_more() {
    let Some((nats, directory)) = server().await else {
        return;
    };
    let former = open(&nats, &directory).await;
    append(&*former.log, 0..3).await.unwrap();
    let first = LedgerChange::Retry(retry(1, 5_000, 1));
    former.ledger.commit([first.clone()].into()).await.unwrap();

    let owner = open(&nats, &directory).await;
    for _ in 0..2 {
        let refused = append(&*former.log, 3..5).await.unwrap_err();
        assert!(matches!(refused, StoreError::Fenced), "{refused}");
        let late = LedgerChange::Failed(failed(1, 1, 0));
        let refused = former.ledger.commit([late].into()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Fenced), "{refused}");
        let saved = former
            .projections
            .save(Vec::new(), Vec::new(), Seq(3))
            .await;
        assert!(matches!(saved, Err(StoreError::Fenced)), "{saved:?}");
    }
    assert_eq!(append(&*owner.log, 3..4).await.unwrap(), Seq(3));
    assert_eq!(all(&*owner.log).await, numbered(0..4));
    let keys = owner
        .ledger
        .retry_keys(retry(1, 5_000, 1).key.webhook, None, 9);
    assert_eq!(keys.await.unwrap(), [retry(1, 5_000, 1).key]);
    let next = owner.ledger.state().await.unwrap().next_failed;
    assert_eq!(next.0, 1, "nothing of it got in");
    assert_eq!(
        owner.projections.stations().await.unwrap().projected_to,
        Seq(0)
    );
}

/// A server that stands still takes messages in once it goes on: their senders have long been told
/// that they failed.
#[tokio::test(flavor = "multi_thread")]
async fn of_an_append_whose_acknowledgement_is_lost_nothing_is_left() {
    let Some((mut nats, directory)) = server().await else {
        return;
    };
    let store = open(&nats, &directory).await;
    append(&*store.log, 0..3).await.unwrap();
    for is_killed in [false, true] {
        let first = all(&*store.log).await.len() as u64;
        nats.pause();
        let failed = append(&*store.log, 70..75).await.unwrap_err();
        assert!(failed.is_outage(), "{failed}");
        let commit = LedgerChange::Retry(retry(1, 5_000, 1));
        let failed = store.ledger.commit([commit.clone()].into()).await;
        assert!(failed.unwrap_err().is_outage());
        if is_killed {
            nats.kill().await;
            nats.start_again().await;
        } else {
            nats.resume();
        }
        // The client finds the server again by itself, and the owner tries again.
        while store.log.check().await.is_err() {}
        while store.ledger.commit([commit.clone()].into()).await.is_err() {}
        let appended = loop {
            if let Ok(appended) = append(&*store.log, first..first + 2).await {
                break appended;
            }
        };
        assert_eq!(appended, Seq(first));
        assert_eq!(all(&*store.log).await, numbered(0..first + 2));
        let keys = store
            .ledger
            .retry_keys(retry(1, 5_000, 1).key.webhook, None, 9);
        assert_eq!(keys.await.unwrap(), [retry(1, 5_000, 1).key]);
    }
    // So it is for whoever opens it next.
    let next = open(&nats, &directory).await;
    assert_eq!(all(&*next.log).await, numbered(0..7));
    assert_eq!(next.log.bounds().await.unwrap(), Seq(0)..Seq(7));
}

/// Longer than a message may be, it is cut into several.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_a_message_is_whole_from_wherever_it_is_read() {
    let Some((nats, directory)) = server().await else {
        return;
    };
    let store = open(&nats, &directory).await;
    let mut number = 1_u64;
    let mut noise = |length: usize| {
        let digits = std::iter::repeat_with(|| {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            format!("{:08x}", number >> 32)
        });
        digits.take(length / 8).collect::<String>()
    };
    let mut expected = Vec::new();
    for batch in 0..6_u64 {
        let events: Vec<_> = (0..4)
            .map(|index| {
                let mut event = event(batch * 4 + index, 1).as_ref().clone();
                let length = if batch % 2 == 0 { 900_000 } else { 80 };
                let payload = format!("{{\"noise\":\"{}\"}}", noise(length));
                event.payload = Payload::parse(payload.as_bytes()).unwrap();
                Arc::new(event)
            })
            .collect();
        expected.extend(events.iter().cloned());
        store.log.append(events.into(), [].into()).await.unwrap();
    }
    let next = open(&nats, &directory).await;
    for store in [store, next] {
        for (seq, event) in (0..).map(Seq).zip(&expected) {
            assert_eq!(store.log.event(seq).await.unwrap().as_ref(), Some(event));
        }
    }
    let owner = open(&nats, &directory).await;
    owner.log.trim(Seq(4), 1).await.unwrap();
    assert_eq!(owner.log.bounds().await.unwrap(), Seq(4)..Seq(24));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_overwritten_makes_room() {
    let Some((nats, directory)) = server().await else {
        return;
    };
    let store = open(&nats, &directory).await;
    let key = retry(1, 5_000, 1).key;
    let dead = (1..=400).map(|id| LedgerChange::Failed(failed(id, 2, id)));
    store.ledger.commit(dead.collect()).await.unwrap();
    // About 120 MB, of which little counts in the end.
    for round in 0..150_u64 {
        let many = (0..200).map(|number| {
            let mut retry = retry(1, 5_000, number);
            retry.event = event(round * 200 + number, 4_000);
            LedgerChange::Retry(retry)
        });
        store.ledger.commit(many.collect()).await.unwrap();
    }
    let taken = nats.stored();
    assert!(taken < 64 << 20, "{taken} bytes");
    for store in [store, open(&nats, &directory).await] {
        let keys = store
            .ledger
            .retry_keys(key.webhook, None, 999)
            .await
            .unwrap();
        assert_eq!(keys.len(), 200);
        let (read, _) = store
            .ledger
            .retries(&keys[7..8], ReadLimit::part(1))
            .await
            .unwrap();
        assert_eq!(read[0].event, event(149 * 200 + 7, 4_000));
        let filter = pipelet_domain::deliveries::FailedFilter::default();
        let dead = store
            .ledger
            .failed_deliveries(&filter, None, ReadLimit::part(999))
            .await;
        assert_eq!(dead.unwrap().items.len(), 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_has_to_change_is_said() {
    let Some((nats, directory)) = server().await else {
        return;
    };
    let path = directory.path();
    let refused = async |change: &dyn Fn(&mut ClusterOptions), words: &str| {
        let refused = match join(&nats, path, |options| change(options)).await {
            Ok(cluster) => cluster.open_shard(ShardId(0)).await.map(drop),
            Err(error) => Err(error),
        };
        let refused = refused.unwrap_err();
        assert!(!refused.is_outage(), "{refused}");
        let said = refused.chain();
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    };
    refused(
        &|it| it.replicas = Some(3),
        "3 replicas want as many NATS servers",
    )
    .await;
    drop(open(&nats, &directory).await);
    refused(
        &|it| it.shards = Some(4),
        "has 1 shards, and --shards says 4",
    )
    .await;
    refused(&|it| it.replicas = Some(3), "it has 1 replicas").await;
    let nowhere = "nats://127.0.0.1:1".parse().unwrap();
    refused(
        &|it| it.servers = vec![std::clone::Clone::clone(&nowhere)],
        "can't connect to NATS at 127.0.0.1:1",
    )
    .await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = join(&nats, elsewhere.path(), |_| {}).await.unwrap_err();
    assert!(matches!(other, StoreError::KeyFile(_)), "{other}");

    let client = async_nats::connect(nats.url()).await.unwrap();
    let streams = async_nats::jetstream::new(client);
    let mut stream = streams.get_stream("pipelet_log_0").await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.max_messages = 7;
    streams.update_stream(config).await.unwrap();
    refused(
        &|_| {},
        "the stream pipelet_log_0 is not as the cluster made it: its max_msgs is 7",
    )
    .await;
}

/// Whoever waits has it once its holder gives it up, or falls silent.
#[tokio::test(flavor = "multi_thread")]
async fn one_node_owns_the_shards_and_another_stands_by() {
    let Some((nats, directory)) = server().await else {
        return;
    };
    let node = async |name: &str| {
        let cluster = join(&nats, directory.path(), |options| {
            options.node = name.to_owned();
        });
        cluster.await.unwrap()
    };
    let first = node("a").await.engine(ShardId(0), |_| {}).await.unwrap();
    let (told, mut owner) = tokio::sync::mpsc::channel(1);
    let waiting = |owner: &str| told.try_send(owner.to_owned()).unwrap();
    let second = node("b").await;
    let ending = async {
        assert_eq!(owner.recv().await.unwrap(), "a");
        first.ownership.give_up().await;
    };
    let both = Box::pin(async { tokio::join!(second.engine(ShardId(0), waiting), ending).0 });
    let second = within("the one that waits to go on", both).await.unwrap();
    let refused = append(&*first.shards.as_slice()[0].log, 0..1)
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Fenced), "{refused}");

    // While the server is silent nobody owns them, and then the same one does.
    nats.pause();
    let is_held = async || second.ownership.is_held();
    eventually("the lease to run out", is_held, |is_held| !is_held).await;
    nats.resume();
    within("the lease to be renewed", second.ownership.held()).await;
    while second.shards.as_slice()[0].log.check().await.is_err() {}
    append(&*second.shards.as_slice()[0].log, 0..1)
        .await
        .unwrap();
}
