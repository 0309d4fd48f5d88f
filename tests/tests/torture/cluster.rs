//! The same on a cluster: three servers of NATS, and three nodes. Stations and callers are at any of
//! these, and stay there.
//!
//! In each round something dies, stands still or is drained, and comes back; what is checked after it
//! is the same as with one daemon.

use std::{
    fmt, iter, mem,
    time::{Duration, Instant},
};

use fastrand::Rng;
use pipelet_tests::{Daemon, NatsCluster, deadline::eventually, oracle::Counts};
use reqwest::Method;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    rounds::{self, Found, Kind, Torture, WHOLE_CHECK_EVERY},
    run::Endpoints,
    say,
};

const NODES: usize = 3;
/// In milliseconds; the longest that all is left in peace.
const LONGEST_PEACE_MS: u64 = 700;
/// In milliseconds; how long a node stands still that is to stay what it is.
const STANDSTILL_MS: u64 = 2500;
const KIND: Kind = Kind {
    transactions: true,
    has_outages: true,
    // An owner's death, servers' deaths and the next one's start may lie in between.
    longest_way: Duration::from_secs(45),
};
/// From the end of an owner until another one takes changes.
const LONGEST_TAKE_OVER: Duration = Duration::from_secs(45);
/// Until changes are taken again, whatever has died.
const LONGEST_SILENCE: Duration = Duration::from_mins(1);
/// How often a cluster that is not ready is asked again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What happens in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    OwnerKilled,
    OwnerEnds,
    OwnerStandsStill,
    OwnerDrained,
    OwnerAndServerKilled,
    NodeKilled,
    NodeEnds,
    NodeStandsStill,
    ServerKilled,
    ServersKilled,
    AllKilled,
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    counts: Counts,
    nodes: u32,
    servers: u32,
    stood_still: u32,
    /// After an owner that died, and after one that knew that it would end.
    take_overs: Vec<Duration>,
    hand_overs: Vec<Duration>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            counts,
            nodes,
            servers,
            stood_still,
            take_overs,
            hand_overs,
        } = self;
        let shown = |times: &[Duration]| {
            let mut sorted = times.to_vec();
            sorted.sort_unstable();
            let middle = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
            let longest = sorted.last().copied().unwrap_or_default();
            format!("{middle:.1?} (p50), {longest:.1?} at most")
        };
        let (take_overs, hand_overs) = (shown(take_overs), shown(hand_overs));
        write!(
            f,
            "{nodes} nodes and {servers} servers killed, {stood_still} nodes stood still; taken over \
             within {take_overs}, handed over within {hand_overs}; {counts}"
        )
    }
}

struct Cluster {
    servers: NatsCluster,
    /// Has one of the nodes, by which all is checked.
    torture: Torture,
    others: Vec<Daemon>,
    random: Rng,
    outcome: Outcome,
}

/// Runs so many rounds; none where this machine can't have servers of NATS.
pub(crate) async fn run(rounds: u32, seed: u64) -> Option<Result<Outcome, Found>> {
    let servers = NatsCluster::start().await?;
    let builder = rounds::daemon()
        .flag("--store", &servers.url())
        .flag("--shards", "4")
        .flag("--node", "n0")
        .flag("--retention", "2s")
        .flag("--retention-size", "4MiB");
    let (torture, mut load) = Torture::begin(builder, None, seed, KIND).await;
    let random = torture.run().choices("the one who disturbs");
    let mut others = Vec::new();
    for number in 1..NODES {
        others.push(torture.daemon().beside(&format!("n{number}")).start().await);
    }
    let mut cluster = Cluster {
        servers,
        torture,
        others,
        random,
        outcome: Outcome::default(),
    };
    for round in 1..=rounds {
        let owner = cluster.owner().await;
        let disturbance = cluster.disturb(&owner).await;
        let run = cluster.torture.run();
        // Nothing is under way at a node that was not there.
        let have_started = disturbance == Disturbance::AllKilled;
        cluster.torture.check(have_started).await;
        if round < rounds {
            run.up(cluster.nodes().map(Endpoints::of).collect());
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
    fn nodes(&self) -> impl Iterator<Item = &Daemon> {
        iter::once(self.torture.daemon()).chain(&self.others)
    }

    /// The name of the node that owns most shards.
    async fn owner(&self) -> String {
        let api = self.torture.daemon().api();
        let look = async || api.get("/cluster").await.expect(200);
        let all_owned = |seen: &Value| {
            let shards = seen["shard_owners"].as_array().expect("shards");
            shards.iter().all(|shard| shard["owner"].is_string())
        };
        let cluster = eventually("owners", look, all_owned).await;
        let nodes = cluster["nodes"].as_array().expect("nodes").iter();
        let owner = nodes.max_by_key(|node| node["shards"].as_u64());
        let name = owner.and_then(|owner| owner["name"].as_str());
        name.expect("a name").to_owned()
    }

    /// A node that something is to happen to: all is checked by another one.
    fn victim(&mut self, name: &str) -> &mut Daemon {
        if self.torture.daemon().node() == name {
            mem::swap(self.torture.daemon_mut(), &mut self.others[0]);
        }
        let mut others = self.others.iter_mut();
        others.find(|node| node.node() == name).expect("a node")
    }

    fn any_node(&mut self) -> String {
        format!("n{}", self.random.usize(..NODES))
    }

    /// Has something happen at some moment, and waits until the cluster takes changes.
    async fn disturb(&mut self, owner: &str) -> Disturbance {
        let peace = self.random.u64(..LONGEST_PEACE_MS);
        // The moment is the seed's choice, so there is no event to wait for.
        sleep(Duration::from_millis(peace)).await;
        self.torture.run().down();
        self.torture.run().oracle().kills(Instant::now());
        let began = Instant::now();
        let disturbance = match self.random.u32(..24) {
            0..6 => Disturbance::OwnerKilled,
            6..8 => Disturbance::OwnerEnds,
            8..10 => Disturbance::OwnerStandsStill,
            10..12 => Disturbance::OwnerDrained,
            12..14 => Disturbance::OwnerAndServerKilled,
            14..17 => Disturbance::NodeKilled,
            17 => Disturbance::NodeEnds,
            18 => Disturbance::NodeStandsStill,
            19..22 => Disturbance::ServerKilled,
            22 => Disturbance::ServersKilled,
            _ => Disturbance::AllKilled,
        };
        match disturbance {
            Disturbance::OwnerKilled => {
                self.kill(owner).await;
                self.taken_over(began).await;
                self.start(owner).await;
            }
            Disturbance::OwnerEnds => {
                self.end(owner).await;
                self.handed_over(began).await;
                self.start(owner).await;
            }
            Disturbance::OwnerStandsStill => {
                self.outcome.stood_still += 1;
                self.victim(owner).pause();
                self.taken_over(began).await;
                self.victim(owner).resume();
            }
            Disturbance::OwnerDrained => {
                self.victim(owner);
                let path = format!("/cluster/nodes/{owner}/drain");
                let api = self.torture.daemon().api();
                api.post_empty(&path).await.expect(200);
                self.handed_over(began).await;
                api.delete(&path).await.expect(200);
            }
            Disturbance::OwnerAndServerKilled => {
                let server = self.kill_server().await;
                self.kill(owner).await;
                self.taken_over(began).await;
                self.start(owner).await;
                self.servers.servers()[server].start_again().await;
            }
            Disturbance::NodeKilled => {
                let node = self.any_node();
                self.kill(&node).await;
                self.start(&node).await;
            }
            Disturbance::NodeEnds => {
                let node = self.any_node();
                self.end(&node).await;
                self.start(&node).await;
            }
            Disturbance::NodeStandsStill => {
                self.outcome.stood_still += 1;
                let node = self.any_node();
                let time = self.random.u64(..STANDSTILL_MS);
                let victim = self.victim(&node);
                victim.pause();
                sleep(Duration::from_millis(time)).await;
                victim.resume();
            }
            Disturbance::ServerKilled => {
                let server = self.kill_server().await;
                self.ready().await;
                self.servers.servers()[server].start_again().await;
            }
            Disturbance::ServersKilled => self.kill_servers().await,
            Disturbance::AllKilled => {
                for node in (0..NODES).map(|number| format!("n{number}")) {
                    self.kill(&node).await;
                }
                self.kill_servers().await;
                for node in (0..NODES).map(|number| format!("n{number}")) {
                    self.start(&node).await;
                }
            }
        }
        self.ready().await;
        self.settled().await;
        disturbance
    }

    async fn kill(&mut self, node: &str) {
        self.outcome.nodes += 1;
        self.victim(node).kill9().await;
    }

    async fn end(&mut self, node: &str) {
        let ended = self.victim(node).terminate().await;
        assert!(ended.success(), "a clean end");
    }

    async fn start(&mut self, node: &str) {
        let mut nodes = iter::once(self.torture.daemon_mut()).chain(&mut self.others);
        let node = nodes.find(|it| it.node() == node).expect("a node");
        node.start_again().await;
    }

    async fn kill_server(&mut self) -> usize {
        let servers = self.servers.servers();
        let server = self.random.usize(..servers.len());
        servers[server].kill().await;
        self.outcome.servers += 1;
        server
    }

    async fn kill_servers(&mut self) {
        for server in self.servers.servers() {
            server.kill().await;
            self.outcome.servers += 1;
        }
        for server in self.servers.servers() {
            server.start_again().await;
        }
    }

    /// The owner is gone: another one goes on.
    async fn taken_over(&mut self, began: Instant) {
        self.ready().await;
        let took = began.elapsed();
        self.outcome.take_overs.push(took);
        if took > LONGEST_TAKE_OVER {
            let fault = format!("it took {took:?} to take over");
            self.torture.run().oracle().fault(fault);
        }
    }

    async fn handed_over(&mut self, began: Instant) {
        self.ready().await;
        self.outcome.hand_overs.push(began.elapsed());
    }

    /// Waits until every shard takes events and changes of webhooks.
    async fn ready(&mut self) {
        let began = Instant::now();
        while !self.torture.takes_changes().await {
            assert!(began.elapsed() < LONGEST_SILENCE, "no changes are taken");
            // Nobody announces it, and a key may call only so often.
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until every node is there, and none takes itself for an owner that it is no longer.
    async fn settled(&mut self) {
        let began = Instant::now();
        while !self.all_ready().await {
            assert!(began.elapsed() < LONGEST_SILENCE, "a node is not ready");
            // Nobody announces it.
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn all_ready(&self) -> bool {
        for node in self.nodes() {
            let ready = node.api().ask(Method::GET, "/readyz", None).await;
            if ready.is_none_or(|answer| answer.status != 200) {
                return false;
            }
        }
        true
    }
}
