//! `demo --cluster`: three nodes on three NATS servers, of which some are killed in front of the
//! viewer, and the books after that.

use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use pipelet_proto::v1;
use pipelet_simulator::Fleet;
use serde::Serialize;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{
    POSTS,
    daemon::{self, Addresses, CALL_TIMEOUT},
    deliveries::{self, DeliveryCounts},
    error::DemoError,
    fleet,
    process::Process,
    receiver::{self, Answer, Post, ReceiverMode},
    subscribe,
};
use crate::{
    client::Client,
    error::{Error, ExitStatus},
    output::{Format, Printer},
    settings::{Environment, Settings},
    system::interrupts::Interrupts,
};

const NODES: [&str; 3] = ["a", "b", "c"];
const CHARGERS: [[&str; 2]; 3] = [
    ["DEMO-01", "DEMO-02"],
    ["DEMO-03", "DEMO-04"],
    ["DEMO-05", "DEMO-06"],
];
const SHARDS: &str = "4";
/// POSTs that are waited for, to see that it goes on.
const ENOUGH: usize = 12;
/// How long the viewer has for each step at least.
const PACE: Duration = Duration::from_secs(3);
/// Without a POST for so long, something is wrong.
const LONGEST_SILENCE: Duration = Duration::from_mins(1);
/// Between two looks at the cluster, or at what is owed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One that was given, or else the one on the search path.
pub(super) fn find_nats(
    named: Option<PathBuf>,
    environment: &Environment,
) -> Result<PathBuf, DemoError> {
    let found = named.or_else(|| daemon::on_search_path("nats-server", environment));
    found.ok_or(DemoError::NoNats)
}

/// Shows it all, in lines.
pub(super) async fn run(
    program: &Path,
    nats: &Path,
    interrupts: &mut Interrupts,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let home = TempDir::with_prefix("pipelet-demo-").map_err(DemoError::Directory)?;
    let (listener, url) = receiver::listen().await.map_err(DemoError::Receiver)?;
    let secret = format!("demo-{:016x}", fastrand::u64(..));
    let (_healthy, mode) = watch::channel(ReceiverMode::Healthy);
    let (sender, posts) = mpsc::channel(POSTS);
    let serving = receiver::serve(listener, secret.clone(), mode, sender);
    let mut tour = Tour {
        home,
        program,
        nats,
        printer,
        began: Instant::now(),
        steps: Vec::new(),
        posts,
        count: 0,
    };
    let outcome = tokio::select! {
        outcome = tour.run(url, &secret) => outcome,
        served = serving => {
            let why = served.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
            return Err(DemoError::Receiver(why).into());
        }
        () = interrupts.next() => return Ok(ExitStatus::Interrupted),
    };
    // What went wrong is in the logs.
    tour.home.disable_cleanup(outcome.is_err());
    let (cluster, balanced) = outcome?;
    cluster.stop().await;
    Ok(if balanced {
        ExitStatus::Success
    } else {
        ExitStatus::Failed
    })
}

struct Tour<'a> {
    /// Where everything is, until it ends.
    home: TempDir,
    program: &'a Path,
    nats: &'a Path,
    printer: &'a Printer,
    began: Instant,
    steps: Vec<Step>,
    posts: mpsc::Receiver<Post>,
    /// POSTs that came.
    count: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Step {
    at_ms: u64,
    text: String,
}

#[derive(Debug, Serialize)]
struct Summary<'a> {
    steps: &'a [Step],
    posts: u64,
    /// CALLs of the chargers that were answered.
    answered: u64,
    books: DeliveryCounts,
    balanced: bool,
}

/// Everything that runs.
struct Cluster {
    servers: Vec<Process>,
    nodes: Vec<Node>,
    stores: String,
}

struct Node {
    process: Process,
    addresses: Addresses,
}

impl Tour<'_> {
    async fn run(&mut self, url: String, secret: &str) -> Result<(Cluster, bool), Error> {
        self.say("Three NATS servers start, and three nodes of Pipelet: a, b and c.")?;
        let mut cluster = self.start().await?;
        let client = self.client(&cluster.nodes[2])?;
        let webhook = subscribe(&client, url, secret).await?;
        self.say("A webhook is created at c. Two chargers connect to each node.")?;
        let (closing, chargers) = watch::channel(false);
        let mut fleets = JoinSet::new();
        for (node, ids) in cluster.nodes.iter().zip(&CHARGERS) {
            let fleet = fleet(&node.addresses.ocpp, ids)?;
            fleets.spawn(drive(fleet, chargers.clone()));
        }
        let connected = |cluster: &v1::GetClusterResponse| {
            let stations: u64 = cluster.nodes.iter().map(|node| node.stations).sum();
            stations == CHARGERS.len() as u64 * 2
        };
        self.await_cluster(&client, connected).await?;
        self.await_posts().await?;
        let seen = self.await_cluster(&client, |_| true).await?;
        self.show(&seen)?;
        let owner = seen.nodes.iter().max_by_key(|node| node.shards);
        let owner = owner.map_or("", |node| &node.name);
        let owner = NODES.iter().position(|name| *name == owner).unwrap_or(0);

        // Its client is another node's, and one that survives.
        let survivor = (owner + 1) % NODES.len();
        let client = self.client(&cluster.nodes[survivor])?;
        let name = NODES[owner];
        self.say(&format!(
            "Each node owns a part of the shards. Node {name} is killed (kill -9)."
        ))?;
        cluster.nodes[owner].process.kill().await;
        let killed = Instant::now();
        let is_taken = |shard: &v1::ClusterShard| shard.owner.as_ref().is_some_and(|it| it != name);
        let are_others =
            |cluster: &v1::GetClusterResponse| cluster.shard_owners.iter().all(is_taken);
        self.await_cluster(&client, are_others).await?;
        let took = killed.elapsed().as_secs_f32();
        self.say(&format!(
            "After {took:.1} s the others own its shards. Their chargers are connected still."
        ))?;
        self.await_posts().await?;
        self.say(&format!(
            "Node {name} is started again; its chargers come back to it."
        ))?;
        cluster.nodes[owner] = self.start_node(owner, &cluster).await?;
        let seen = self.await_cluster(&client, connected).await?;
        self.show(&seen)?;
        self.await_posts().await?;

        let leader = seen.nats_servers.iter().max_by_key(|server| server.leads);
        let leader = leader.map_or("nats-1", |server| &server.name);
        let number = (0..NODES.len()).position(|number| nats_name(number) == leader);
        self.say(&format!(
            "The server {leader}, which leads the most streams, is killed."
        ))?;
        cluster.servers[number.unwrap_or(0)].kill().await;
        let is_noticed = |cluster: &v1::GetClusterResponse| {
            cluster.nats_servers.iter().any(|server| server.offline)
        };
        let seen = self.await_cluster(&client, is_noticed).await?;
        self.await_posts().await?;
        self.say("The two that are left lead them, and events go on being kept and told.")?;
        self.show(&seen)?;

        self.say("The chargers end their day. What is owed still is delivered.")?;
        closing.send_replace(true);
        let answered = self.finish(fleets, &client, webhook).await?;
        let books = deliveries::counts(&client, webhook).await?;
        let balanced = books.is_balanced() && books.pending == 0 && books.received >= answered;
        let summary = Summary {
            steps: &self.steps,
            posts: self.count,
            answered,
            books,
            balanced,
        };
        let text = format!(
            "\n{answered} messages of the chargers were answered, and each is in the books, with what \
             they have sent\ntwice because an answer was lost:\n{books}"
        );
        self.printer.either(&summary, &text)?;
        Ok((cluster, balanced))
    }

    /// Waits until the chargers have ended and nothing is owed; returns how many of their messages
    /// were answered.
    async fn finish(
        &mut self,
        mut fleets: JoinSet<u64>,
        client: &Client,
        webhook: u64,
    ) -> Result<u64, Error> {
        let mut answered = 0;
        loop {
            tokio::select! {
                Some(ended) = fleets.join_next() => {
                    answered += ended.map_err(io::Error::other)?;
                }
                Some(post) = self.posts.recv() => self.record(&post),
                () = sleep(LOOK_AGAIN) => {
                    let is_over = fleets.is_empty()
                        && deliveries::counts(client, webhook).await?.pending == 0;
                    if is_over {
                        return Ok(answered);
                    }
                }
            }
        }
    }

    async fn start(&self) -> Result<Cluster, DemoError> {
        let ports = free_ports(NODES.len() * 2).map_err(DemoError::Ports)?;
        let (clients, routes) = ports.split_at(NODES.len());
        let all_routes = routes.iter().map(|port| format!("nats://127.0.0.1:{port}"));
        let all_routes = all_routes.collect::<Vec<_>>().join(", ");
        let mut servers = Vec::new();
        for (number, (client, route)) in clients.iter().zip(routes).enumerate() {
            let name = nats_name(number);
            let directory = self.home.path().join(&name);
            let config = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{client}\"\n\
                 jetstream: {{ store_dir: \"{}\", sync_interval: always }}\n\
                 cluster: {{ name: demo, listen: \"127.0.0.1:{route}\", routes: [{all_routes}] }}\n",
                directory.display()
            );
            let file = self.home.path().join(format!("{name}.conf"));
            fs::write(&file, config).map_err(DemoError::Directory)?;
            let log = self.home.path().join(format!("{name}.log"));
            let args = ["-c".as_ref(), file.as_os_str()];
            servers.push(Process::start(self.nats, log, args)?);
        }
        let clients = clients.iter().map(|port| format!("127.0.0.1:{port}"));
        let stores = format!("nats://{}", clients.collect::<Vec<_>>().join(","));
        let mut cluster = Cluster {
            servers,
            nodes: Vec::new(),
            stores,
        };
        for number in 0..NODES.len() {
            let node = self.start_node(number, &cluster).await?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// Where it was before, if it was.
    async fn start_node(&self, number: usize, cluster: &Cluster) -> Result<Node, DemoError> {
        let name = NODES[number];
        let before = cluster.nodes.get(number).map(|node| &node.addresses);
        let free = || "127.0.0.1:0".to_owned();
        let (grpc, ocpp) = before.map_or_else(
            || (free(), free()),
            |before| (before.grpc.clone(), before.ocpp.clone()),
        );
        // All seal with the key that the first one has made.
        let key_file = self.home.path().join(NODES[0]).join("secrets.key");
        let key_file = key_file.display().to_string();
        let mut args = daemon::args(&self.home.path().join(name));
        for [flag, value] in [
            ["--grpc-listen", &grpc],
            ["--ocpp-listen", &ocpp],
            ["--store", &cluster.stores],
            ["--cluster", "demo"],
            ["--shards", SHARDS],
            ["--node", name],
        ] {
            args.extend([flag.to_owned(), value.to_owned()]);
        }
        if number > 0 {
            args.extend(["--secrets-key-file".to_owned(), key_file]);
        }
        let log = self.home.path().join(format!("{name}.log"));
        let mut process = Process::start(self.program, log, args)?;
        match Addresses::of(&mut process).await {
            Some(addresses) => Ok(Node { process, addresses }),
            None => Err(DemoError::NotListening { log: process.log }),
        }
    }

    /// The first node has made the key.
    fn client(&self, node: &Node) -> Result<Client, Error> {
        let key = self.home.path().join(NODES[0]).join("admin.key");
        let settings = Settings::of_own_daemon(&node.addresses.grpc, &key, CALL_TIMEOUT);
        Client::new(&settings.map_err(DemoError::from)?)
    }

    /// Waits until the cluster is so; for the viewer's sake, too.
    async fn await_cluster(
        &mut self,
        client: &Client,
        is_so: impl Fn(&v1::GetClusterResponse) -> bool,
    ) -> Result<v1::GetClusterResponse, Error> {
        let deadline = Instant::now() + LONGEST_SILENCE;
        loop {
            let asked = v1::GetClusterRequest {};
            let seen = client.cluster().get_cluster(asked).await?.into_inner();
            if is_so(&seen) {
                return Ok(seen);
            }
            if Instant::now() > deadline {
                let waited = LONGEST_SILENCE;
                return Err(DemoError::Silence { waited }.into());
            }
            self.take_posts();
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Shows the nodes and the servers.
    fn show(&self, cluster: &v1::GetClusterResponse) -> io::Result<()> {
        for node in &cluster.nodes {
            self.explain(&format!(
                "node {}: {}, {} shards, {} chargers",
                node.name, node.state, node.shards, node.stations
            ))?;
        }
        for server in &cluster.nats_servers {
            let state = if server.offline { "offline" } else { "up" };
            let (name, leads) = (&server.name, server.leads);
            self.explain(&format!("{name}: {state}, leads {leads} streams"))?;
        }
        Ok(())
    }

    /// Waits for some more from now on, which shows that it goes on, and gives the viewer time.
    async fn await_posts(&mut self) -> Result<(), Error> {
        self.take_posts();
        let enough = Instant::now() + PACE;
        let mut count = 0;
        while count < ENOUGH || Instant::now() < enough {
            let deadline = Instant::now() + LONGEST_SILENCE;
            let post = timeout_at(deadline, self.posts.recv()).await;
            let Ok(Some(post)) = post else {
                let waited = LONGEST_SILENCE;
                return Err(DemoError::Silence { waited }.into());
            };
            self.record(&post);
            count += 1;
        }
        Ok(())
    }

    fn take_posts(&mut self) {
        while let Ok(post) = self.posts.try_recv() {
            self.record(&post);
        }
    }

    fn record(&mut self, post: &Post) {
        self.count += u64::from(post.answer == Answer::Taken);
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let elapsed = self.began.elapsed();
        let step = Step {
            at_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            text: text.to_owned(),
        };
        let line = format!("{:7.1} s  {text}", elapsed.as_secs_f32());
        match self.printer.format() {
            Format::Table => self.printer.text(&line)?,
            Format::Jsonl => self.printer.follow(&step, "")?,
            Format::Json | Format::Yaml => {}
        }
        self.steps.push(step);
        Ok(())
    }

    fn explain(&self, text: &str) -> io::Result<()> {
        match self.printer.format() {
            Format::Table => self.printer.text(&format!("             {text}")),
            Format::Json | Format::Jsonl | Format::Yaml => Ok(()),
        }
    }
}

impl Cluster {
    async fn stop(mut self) {
        for process in self.nodes.iter_mut().map(|node| &mut node.process) {
            process.stop().await;
        }
        for server in &mut self.servers {
            server.stop().await;
        }
    }
}

/// Has chargers charge until they are to close, and returns how many of their messages were answered.
async fn drive(mut fleet: Fleet, mut closing: watch::Receiver<bool>) -> u64 {
    loop {
        tokio::select! {
            running = fleet.record_next() => if !running { break },
            // The tour's end, or its being given up.
            _ = closing.changed() => {
                fleet.shut_down();
                fleet.join().await;
                break;
            }
        }
    }
    fleet.stats().answered
}

fn nats_name(number: usize) -> String {
    format!("nats-{}", number + 1)
}

/// So many ports that nobody listens on now.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0"));
    let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
    let ports = listeners.iter().map(|it| Ok(it.local_addr()?.port()));
    ports.collect()
}
