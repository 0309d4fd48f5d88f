//! The same on a cluster: three servers of NATS, and nodes one of which owns the shards while the
//! others stand by.
//!
//! In each round something dies or stands still, and whoever owns the shards after that is checked as
//! a daemon is that was started again.

use std::{fmt, time::Duration, time::Instant};

use fastrand::Rng;
use pipelet_tests::{NatsCluster, StandBy, oracle::Counts};
use tokio::time::sleep;

use crate::{
    rounds::{self, Found, Kind, Torture, WHOLE_CHECK_EVERY},
    run::Endpoints,
    say,
};

/// In milliseconds; the longest that all is left in peace.
const LONGEST_PEACE_MS: u64 = 700;
const KIND: Kind = Kind {
    transactions: true,
    has_outages: true,
    // An owner's death, servers' deaths and the next one's start may lie in between.
    longest_way: Duration::from_secs(25),
};
/// From the death of an owner until another one listens.
const LONGEST_TAKE_OVER: Duration = Duration::from_secs(20);

/// Until changes are taken again, whatever has died.
const LONGEST_SILENCE: Duration = Duration::from_mins(1);

/// How often a cluster that is not ready is asked again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What happens in a round.
#[derive(Debug, Clone, Copy)]
enum Disturbance {
    OwnerKilled,
    OwnerEnds,
    OwnerStandsStill,
    OwnerAndServerKilled,
    ServerKilled,
    ServersKilled,
    StandByKilled,
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    counts: Counts,
    nodes: u32,
    servers: u32,
    stood_still: u32,
    take_overs: Vec<Duration>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            counts,
            nodes,
            servers,
            stood_still,
            take_overs,
        } = self;
        let mut sorted = take_overs.clone();
        sorted.sort_unstable();
        let middle = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        let longest = sorted.last().copied().unwrap_or_default();
        write!(
            f,
            "{nodes} nodes and {servers} servers killed, {stood_still} owners stood still, taken \
             over within {middle:.1?} (p50), {longest:.1?} at most, {counts}"
        )
    }
}

struct Cluster {
    servers: NatsCluster,
    torture: Torture,
    stand_by: Option<StandBy>,
    random: Rng,
    nodes: u32,
    outcome: Outcome,
}

/// Runs so many rounds; none where this machine can't have servers of NATS.
pub(crate) async fn run(rounds: u32, seed: u64) -> Option<Result<Outcome, Found>> {
    let servers = NatsCluster::start().await?;
    let builder = rounds::daemon()
        .flag("--store", &servers.url())
        .flag("--shards", "4")
        .flag("--retention", "2s")
        .flag("--retention-size", "4MiB");
    let (torture, mut load) = Torture::begin(builder, None, seed, KIND).await;
    let random = torture.run().choices("the one who disturbs");
    let stand_by = Some(torture.daemon().stand_by("n1"));
    let mut cluster = Cluster {
        servers,
        torture,
        stand_by,
        random,
        nodes: 2,
        outcome: Outcome::default(),
    };
    for round in 1..=rounds {
        let owners = cluster.outcome.take_overs.len();
        let disturbance = cluster.disturb().await;
        let run = cluster.torture.run();
        let has_started = cluster.outcome.take_overs.len() > owners;
        cluster.torture.check(has_started).await;
        if round < rounds {
            run.up(Endpoints::of(cluster.torture.daemon()));
        } else {
            load.end(run).await;
        }
        if round % WHOLE_CHECK_EVERY == 0 || round == rounds {
            cluster.torture.check_whole().await;
            say(&format!("round {round}: {}", run.oracle().counts()));
        }
        let faults = run.oracle().faults();
        if !faults.is_empty() {
            say(&format!("after {disturbance:?}"));
            return Some(Err(Found { round, faults }));
        }
    }
    cluster.outcome.counts = cluster.torture.run().oracle().counts();
    Some(Ok(cluster.outcome))
}

impl Cluster {
    /// Has something happen at some moment, and waits until a node takes events.
    async fn disturb(&mut self) -> Disturbance {
        let peace = self.random.u64(..LONGEST_PEACE_MS);
        // The moment is the seed's choice, so there is no event to wait for.
        sleep(Duration::from_millis(peace)).await;
        self.torture.run().down();
        self.torture.run().oracle().kills(Instant::now());
        let disturbance = match self.random.u32(..20) {
            0..7 => Disturbance::OwnerKilled,
            7..9 => Disturbance::OwnerEnds,
            9..11 => Disturbance::OwnerStandsStill,
            11..13 => Disturbance::OwnerAndServerKilled,
            13..17 => Disturbance::ServerKilled,
            17 => Disturbance::ServersKilled,
            _ => Disturbance::StandByKilled,
        };
        match disturbance {
            Disturbance::OwnerKilled => {
                self.torture.daemon_mut().kill9().await;
                self.outcome.nodes += 1;
                self.take_over().await;
            }
            Disturbance::OwnerEnds => {
                let ended = self.torture.daemon_mut().terminate().await;
                assert!(ended.success(), "a clean end");
                self.take_over().await;
            }
            Disturbance::OwnerStandsStill => {
                let former = self.torture.daemon_mut().stop_still();
                self.outcome.stood_still += 1;
                self.take_over().await;
                let ended = former.wake().await;
                assert!(!ended.success(), "it was overtaken");
            }
            Disturbance::OwnerAndServerKilled => {
                let server = self.kill_server().await;
                self.torture.daemon_mut().kill9().await;
                self.outcome.nodes += 1;
                self.take_over().await;
                self.servers.servers()[server].start_again().await;
            }
            Disturbance::ServerKilled => {
                let server = self.kill_server().await;
                self.ready().await;
                self.servers.servers()[server].start_again().await;
            }
            Disturbance::ServersKilled => {
                for server in self.servers.servers() {
                    server.kill().await;
                    self.outcome.servers += 1;
                }
                for server in self.servers.servers() {
                    server.start_again().await;
                }
            }
            Disturbance::StandByKilled => {
                self.stand_by.take().expect("one").kill9().await;
                self.outcome.nodes += 1;
                self.stand_by = Some(self.another());
            }
        }
        self.ready().await;
        disturbance
    }

    async fn kill_server(&mut self) -> usize {
        let servers = self.servers.servers();
        let server = self.random.usize(..servers.len());
        servers[server].kill().await;
        self.outcome.servers += 1;
        server
    }

    /// The owner is gone: the next one goes on, and another one stands by.
    async fn take_over(&mut self) {
        let began = Instant::now();
        let next = self.stand_by.take().expect("one");
        let followed = self.torture.daemon_mut().follow(next).await;
        followed.expect("it goes on");
        let took = began.elapsed();
        self.outcome.take_overs.push(took);
        if took > LONGEST_TAKE_OVER {
            let fault = format!("it took {took:?} to take over");
            self.torture.run().oracle().fault(fault);
        }
        self.stand_by = Some(self.another());
    }

    fn another(&mut self) -> StandBy {
        self.nodes += 1;
        let node = format!("n{}", self.nodes);
        self.torture.daemon().stand_by(&node)
    }

    /// Waits until every shard takes events and changes of webhooks. Where the servers were silent,
    /// another node may have been the first to hear them again.
    async fn ready(&mut self) {
        let began = Instant::now();
        while !self.torture.takes_changes().await {
            if self.torture.daemon_mut().has_ended() {
                self.take_over().await;
            }
            assert!(began.elapsed() < LONGEST_SILENCE, "no changes are taken");
            // Nobody announces it, and a key may call only so often.
            sleep(LOOK_AGAIN).await;
        }
    }
}
