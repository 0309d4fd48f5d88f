//! Kill, write the store anew, kill that, start, check: again and again.
//!
//! After each start everything is checked that must hold at once; every few rounds, and at the
//! end, the load pauses until nothing is pending, and every single event is accounted for.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use pipelet_tests::{
    Authority, Builder, Daemon, DiskError, Ended, Faults,
    deadline::eventually,
    oracle::{Counts, DeliveryCounts, Fault, Key, Number, Oracle, Rules, Shape},
};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    callers::{self, SWITCHED, request},
    keys,
    receivers::{HEALTHY, Receivers, UNRULY, key_in, number_in},
    run::{Endpoints, Run},
    say,
    stations::{self, ALL, BOOT, HEARTBEAT, METER, START, STATUS, STOP},
};

const STATIONS: u32 = 16;
const WAITS_MS: [u64; 3] = [60, 120, 240];
const MAX_ATTEMPTS: u32 = 4;
/// From the spawn until it listens.
const LONGEST_START: Duration = Duration::from_secs(2);
/// From a station's answer to a receiver that takes everything at once. On any machine: a webhook
/// that had to wait for another one's failures would fall behind further and further. A machine that
/// is busy with other things too was seen to take five seconds.
const LONGEST_WAY: Duration = Duration::from_secs(20);
/// Rounds from one whole check to the next.
pub(crate) const WHOLE_CHECK_EVERY: u32 = 5;
/// In milliseconds; the longest that the daemon is left alone.
const LONGEST_LIFE_MS: u64 = 700;
/// In milliseconds; the longest that it lives on a disk that is full.
const FULL_FOR_MS: u64 = 100;
/// In milliseconds; the longest that `pipeletd compact` is left alone where it is killed.
const LONGEST_COMPACTION_MS: u64 = 120;
/// How often it renames something, at most: its own two of each database, and sled's.
const RENAMES: u64 = 12;
/// The databases, and what they are called while they are replaced.
const DATABASES: [&str; 2] = ["hot", "cold"];
const UNFINISHED: [&str; 4] = ["hot.new", "hot.old", "cold.new", "cold.old"];
/// In bytes; what the daemon may have in memory, whatever stations send.
const MOST_MEMORY: u64 = 256 << 20;
/// What one kill may have told twice, over all webhooks: what was in flight, and what was settled
/// since the last checkpoints. 50 to 80 were seen.
const DUPLICATES_PER_KILL: u64 = 400;

/// The webhooks that are there all the time.
const CONSTANT: [(Key, &[&str]); 7] = [
    (Key(1), ALL),
    (Key(2), ALL),
    (Key(3), &[START, STOP]),
    (Key(4), &[START, STATUS]),
    (Key(6), &[METER, STATUS]),
    (Key(7), &[BOOT, HEARTBEAT]),
    (Key(8), &[STATUS]),
];

/// What is expected of whatever is tortured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// Whether stations charge.
    pub(crate) transactions: bool,
    /// Whether the store may fail for a while though the daemon is up.
    pub(crate) has_outages: bool,
    /// From a station's answer to a receiver that takes everything at once.
    pub(crate) longest_way: Duration,
}

impl Kind {
    pub(crate) const ONE_DAEMON: Self = Self {
        transactions: true,
        has_outages: false,
        longest_way: LONGEST_WAY,
    };
}

/// How the rounds end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Kills,
    PowerLoss,
    /// The same on a disk whose syncs do nothing, which has to be noticed.
    VoidSyncs,
}

pub(crate) fn daemon() -> Builder {
    let schedule = WAITS_MS.map(|wait| format!("{wait}ms")).join(",");
    Daemon::builder(env!("CARGO_BIN_EXE_e2e-pipeletd"))
        .flag("--retry-schedule", &schedule)
        .flag("--max-attempts", &MAX_ATTEMPTS.to_string())
        .flag("--delivery-timeout", "500ms")
        .flag("--log-level", "warn")
}

/// `longest_way` is from a station's answer to a receiver that takes everything at once.
fn rules(longest_way: Duration) -> Rules {
    Rules {
        waits: WAITS_MS.map(Duration::from_millis).to_vec(),
        max_attempts: MAX_ATTEMPTS,
        healthy: HEALTHY.to_vec(),
        longest_way,
    }
}

/// The load, which goes on whatever becomes of the daemon.
pub(crate) struct Load {
    /// They go on after the end of the others, for what is still to come.
    _receivers: Receivers,
    actors: JoinSet<()>,
}

impl Load {
    /// Creates the webhooks and starts everybody.
    async fn start(run: &Arc<Run>, daemon: &Daemon, authority: &Authority) -> Self {
        let receivers = Receivers::start(Arc::clone(run), authority).await;
        let mut wanted = CONSTANT.to_vec();
        wanted.push((SWITCHED, &[METER]));
        for (key, kinds) in wanted {
            let shape = Shape {
                name: format!("webhook {}", key.0),
                url: receivers.url(key),
                events: kinds.iter().map(|&kind| kind.to_owned()).collect(),
                enabled: true,
            };
            let created = daemon.api().post("/webhooks", &request(&shape)).await;
            let id = created.expect(201)["id"].as_u64().expect("a numeric id");
            let mut webhooks = run.webhooks();
            webhooks.registrations.asks(key, Some(shape));
            webhooks.registrations.answered(key, Instant::now());
            webhooks.ids.insert(id, key);
            drop(webhooks);
            let constant = key != SWITCHED;
            run.oracle().wants(key, kinds, constant, Instant::now());
        }
        // Its connections end with whatever else is underway on them, maybe before that was seen
        // to arrive.
        run.oracle().hurries(UNRULY);
        let mut actors = JoinSet::new();
        for number in 0..STATIONS {
            actors.spawn(stations::live(Arc::clone(run), format!("S{number}")));
        }
        for role in callers::ROLES {
            let base = receivers.base().to_owned();
            actors.spawn(callers::live(Arc::clone(run), role, base, STATIONS));
        }
        actors.spawn(keys::live(Arc::clone(run), daemon.key()));
        Self {
            _receivers: receivers,
            actors,
        }
    }

    /// Ends everybody; one that has failed meanwhile is a failure now.
    pub(crate) async fn end(&mut self, run: &Run) {
        run.over();
        while let Some(ended) = self.actors.join_next().await {
            ended.expect("an actor");
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    counts: Counts,
    kills: u32,
    compactions: Compactions,
    slowest_start: Duration,
    /// In bytes: what the power losses have undone.
    undone: u64,
}

/// What came of writing the store anew.
#[derive(Debug, Clone, Copy, Default)]
struct Compactions {
    /// Databases that a shorter one has taken the place of.
    replaced: u32,
    /// Kills in the middle of it.
    cut_short: u32,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            counts,
            kills,
            compactions,
            slowest_start,
            undone,
        } = self;
        let Compactions {
            replaced,
            cut_short,
        } = compactions;
        write!(
            f,
            "{kills} kills, {replaced} databases written anew, {cut_short} times cut short, \
             {undone} unsynced bytes undone, slowest start {slowest_start:?}, {counts}"
        )
    }
}

/// What was found, by whom the seed will find it again.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) round: u32,
    pub(crate) faults: Vec<Fault>,
}

pub(crate) struct Torture {
    run: Arc<Run>,
    daemon: Daemon,
    /// The certificate of the receivers' authority, which it reads at each start.
    _authority: NamedTempFile,
    faults: Option<Faults>,
    random: Rng,
    kills: u32,
    compactions: Compactions,
    slowest_start: Duration,
    undone: u64,
}

/// A webhook as the API lists it.
#[derive(Debug)]
struct Listed {
    id: u64,
    key: Key,
    shape: Shape,
    counts: DeliveryCounts,
}

impl Listed {
    fn read(webhook: &Value) -> Self {
        let text = |key: &str| webhook[key].as_str().expect("a text").to_owned();
        let count = |key: &str| webhook["stats"][key].as_u64().expect("a count");
        let events = webhook["events"].as_array().expect("events");
        let events = events.iter().map(|name| name.as_str().expect("a name"));
        let shape = Shape {
            name: text("name"),
            url: text("url"),
            events: events.map(str::to_owned).collect(),
            enabled: webhook["enabled"].as_bool().expect("yes or no"),
        };
        Self {
            id: webhook["id"].as_u64().expect("a numeric id"),
            key: key_in(&shape.url).expect("a URL of ours"),
            shape,
            counts: DeliveryCounts {
                received: count("received"),
                delivered: count("delivered"),
                pending: count("pending"),
                dead: count("dead"),
                cancelled: count("cancelled"),
            },
        }
    }
}

/// Runs so many rounds.
pub(crate) async fn run(mode: Mode, rounds: u32, seed: u64) -> Result<Outcome, Found> {
    let builder = daemon()
        .flag("--retention", "2s")
        .flag("--retention-size", "4MiB");
    let (faults, builder) = match mode {
        Mode::Kills => (None, builder),
        Mode::PowerLoss | Mode::VoidSyncs => {
            let (faults, builder) = Faults::of(builder);
            faults.record_for_power_loss();
            (Some(faults), builder)
        }
    };
    let (mut torture, mut load) = Torture::begin(builder, faults, seed, Kind::ONE_DAEMON).await;
    if mode == Mode::VoidSyncs {
        torture.faults.as_ref().expect("a disk").make_syncs_void();
    }
    let run = Arc::clone(&torture.run);
    for round in 1..=rounds {
        let started = match torture.end().await {
            Ok(()) => torture.start().await,
            refused => refused,
        };
        if let Err(ended) = started {
            let mut faults = run.oracle().faults();
            faults.push(Fault::NoStart(ended.stderr));
            return Err(Found { round, faults });
        }
        torture.check(true).await;
        if round < rounds {
            run.up(vec![Endpoints::of(&torture.daemon)]);
        } else {
            load.end(&run).await;
        }
        if round % WHOLE_CHECK_EVERY == 0 || round == rounds {
            torture.check_whole().await;
            say(&format!("round {round}: {}", run.oracle().counts()));
        }
        let faults = run.oracle().faults();
        let counts = |fault: &Fault| mode != Mode::VoidSyncs || fault.is_loss();
        if faults.iter().any(counts) {
            return Err(Found { round, faults });
        }
    }
    let outcome = Outcome {
        counts: run.oracle().counts(),
        kills: torture.kills,
        compactions: torture.compactions,
        slowest_start: torture.slowest_start,
        undone: torture.undone,
    };
    let bound = u64::from(torture.kills) * DUPLICATES_PER_KILL;
    assert!(outcome.counts.duplicates <= bound, "{outcome}");
    Ok(outcome)
}

impl Torture {
    pub(crate) async fn begin(
        builder: Builder,
        faults: Option<Faults>,
        seed: u64,
        kind: Kind,
    ) -> (Self, Load) {
        let Kind {
            transactions,
            has_outages,
            longest_way,
        } = kind;
        let oracle = Oracle::new(rules(longest_way));
        let run = Run::new(seed, transactions, has_outages, oracle);
        let authority = Authority::new();
        let file = NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), authority.pem()).expect("a writable file");
        let path = file.path().to_str().expect("UTF-8").to_owned();
        let daemon = builder.flag("--ca-file", &path).start().await;
        let load = Load::start(&run, &daemon, &authority).await;
        run.up(vec![Endpoints::of(&daemon)]);
        let torture = Self {
            random: run.choices("the one who kills"),
            run,
            daemon,
            _authority: file,
            faults,
            kills: 0,
            compactions: Compactions::default(),
            slowest_start: Duration::ZERO,
            undone: 0,
        };
        (torture, load)
    }

    pub(crate) fn run(&self) -> &Run {
        &self.run
    }

    pub(crate) const fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    pub(crate) const fn daemon_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Whether a webhook can be changed now, which every shard takes part in.
    pub(crate) async fn takes_changes(&self) -> bool {
        let path = self.run.webhooks().path(Key(8)).expect("it is there");
        let same = serde_json::json!({"name": "webhook 8"});
        let api = self.daemon.api();
        let changed = api.ask(http::Method::PUT, &path, Some(&same)).await;
        // Those follow later.
        let is_whole = |body: &serde_json::Value| body.get("absent_shards").is_none();
        changed.is_some_and(|reply| reply.status == 200 && is_whole(&reply.json()))
    }

    /// Ends the daemon at some moment: under load, or before it has begun; seldom in peace.
    async fn end(&mut self) -> Result<(), Ended> {
        let life = match self.random.u32(..10) {
            0..2 => self.random.u64(..20),
            _ => self.random.u64(..LONGEST_LIFE_MS),
        };
        // The moment is the seed's choice, so there is no event to wait for.
        sleep(Duration::from_millis(life)).await;
        let peak = self.daemon.peak_memory();
        if peak > MOST_MEMORY {
            let what = format!("{} MiB were in memory", peak >> 20);
            self.run.oracle().fault(what);
        }
        self.run.down();
        self.run.oracle().kills(Instant::now());
        if self.fills_the_disk() {
            // What is under way meets it; the disk has room again at the next start.
            let life = Duration::from_millis(self.random.u64(..FULL_FOR_MS));
            sleep(life).await;
            self.daemon.kill9().await;
            self.lost();
        } else if self.random.u32(..10) == 0 {
            assert!(self.daemon.terminate().await.success(), "a clean end");
        } else {
            self.daemon.kill9().await;
            self.lost();
        }
        while self.random.u32(..3) == 0 {
            let after = Duration::from_millis(self.random.u64(..150));
            self.run.oracle().kills(Instant::now());
            self.daemon.start_and_kill(after).await?;
            self.lost();
        }
        self.compact().await
    }

    /// Writes the store anew, or dies in the middle of that, or does neither.
    async fn compact(&mut self) -> Result<(), Ended> {
        let files = self.files();
        while self.random.u32(..3) != 0 {
            self.die_compacting().await?;
            let data_dir = self.daemon.data_dir();
            let is_cut_short = UNFINISHED.iter().any(|name| data_dir.join(name).exists());
            self.compactions.cut_short += u32::from(is_cut_short);
            self.lose_power();
        }
        if self.random.bool() {
            let ended = self.daemon.run(&["compact"]).await;
            if ended.code != Some(0) {
                return Err(ended);
            }
            self.lose_power();
        }
        let replaced = files
            .iter()
            .zip(self.files())
            .filter(|(was, is)| *was != is);
        self.compactions.replaced += u32::try_from(replaced.count()).expect("a few");
        Ok(())
    }

    /// At some moment; where the disk tells, as often at one of the renames.
    async fn die_compacting(&mut self) -> Result<(), Ended> {
        let at_rename = self.random.bool();
        let Some(faults) = self.faults.as_ref().filter(|_| at_rename) else {
            let after = Duration::from_millis(self.random.u64(..LONGEST_COMPACTION_MS));
            return self.daemon.run_and_kill(&["compact"], after).await;
        };
        faults.die_at_rename(self.random.u64(1..=RENAMES));
        let ended = self.daemon.run(&["compact"]).await;
        faults.die_at_rename(0);
        match ended.code {
            None | Some(0) => Ok(()),
            Some(_) => Err(ended),
        }
    }

    /// Which files the databases are in.
    fn files(&self) -> [Option<u64>; 2] {
        DATABASES.map(|name| {
            let file = self.daemon.data_dir().join(name).join("db");
            fs::metadata(file).ok().map(|known| known.ino())
        })
    }

    /// Now and then, where there is a disk that can be full.
    fn fills_the_disk(&mut self) -> bool {
        let full = self.random.u32(..4) == 0;
        if let Some(faults) = self.faults.as_ref().filter(|_| full) {
            faults.fail_writes(Some(DiskError::Full));
        }
        full && self.faults.is_some()
    }

    fn lost(&mut self) {
        self.kills += 1;
        self.lose_power();
    }

    /// What was not synced is gone, where there is a disk that can do that.
    fn lose_power(&mut self) {
        let seed = self.random.u64(..);
        if let Some(faults) = &self.faults {
            faults.fail_writes(None);
            self.undone += faults.lose_power(seed);
        }
    }

    async fn start(&mut self) -> Result<(), Ended> {
        let began = Instant::now();
        self.daemon.start_again_or_end().await?;
        let took = began.elapsed();
        self.slowest_start = self.slowest_start.max(took);
        if took > LONGEST_START {
            self.run.oracle().fault(format!("a start took {took:?}"));
        }
        Ok(())
    }

    /// What must hold at any time, and what a start has made of unanswered changes.
    pub(crate) async fn check(&self, has_started: bool) {
        keys::check(&self.run, &self.daemon.api()).await;
        let answered = self.run.oracle().answered_so_far();
        let found = self.webhooks().await;
        let mut webhooks = self.run.webhooks();
        let shapes = found.iter().map(|found| (found.key, found.shape.clone()));
        let now = Instant::now();
        let faults = webhooks
            .registrations
            .check(&shapes.collect(), has_started, now);
        webhooks.ids = found.iter().map(|found| (found.id, found.key)).collect();
        drop(webhooks);
        let mut oracle = self.run.oracle();
        oracle.find(faults);
        for found in found {
            let answered = answered.get(&found.key).copied().unwrap_or(0);
            oracle.check_delivery_counts(found.key, found.counts, answered);
            let now = Instant::now();
            if found.key == SWITCHED && !found.shape.enabled {
                oracle.may_not_want(found.key);
            } else if found.key == SWITCHED {
                oracle.wants(found.key, &[METER], false, now);
            } else if !CONSTANT.iter().any(|(key, _)| *key == found.key) {
                oracle.wants(found.key, &[START, BOOT], false, now);
            }
        }
    }

    /// Lets everything come to rest, and accounts for every event.
    pub(crate) async fn check_whole(&self) {
        let quiet = self.run.quiesce().await;
        self.switch_on().await;
        let pending = |found: &Vec<Listed>| found.iter().map(|it| it.counts.pending).sum::<u64>();
        let mut found = self.webhooks().await;
        while pending(&found) > 0 {
            // How long all of it takes is the machine's matter.
            let fewer = |now: &Vec<Listed>| pending(now) < pending(&found);
            found = eventually("fewer to be pending", || self.webhooks(), fewer).await;
        }
        let mut dead = self.dead_letters().await;
        let mut oracle = self.run.oracle();
        oracle.dead_letters(dead.values().map(|dead| dead.len() as u64).sum());
        for found in found {
            let dead = dead.remove(&found.id).unwrap_or_default();
            oracle.check_settled(found.key, found.counts, &dead);
        }
        drop(oracle);
        drop(quiet);
    }

    /// A webhook that is off keeps what it is owed.
    async fn switch_on(&self) {
        let (path, shape) = {
            let mut webhooks = self.run.webhooks();
            let path = webhooks.path(SWITCHED).expect("it is there");
            let now = webhooks.registrations.now(SWITCHED);
            let mut shape = now.expect("it is there").clone();
            shape.enabled = true;
            webhooks.registrations.asks(SWITCHED, Some(shape.clone()));
            webhooks.registrations.answered(SWITCHED, Instant::now());
            (path, shape)
        };
        let api = self.daemon.api();
        api.put(&path, &request(&shape)).await.expect(200);
        let now = Instant::now();
        self.run.oracle().wants(SWITCHED, &[METER], false, now);
    }

    async fn webhooks(&self) -> Vec<Listed> {
        let page = self.daemon.api().get("/webhooks").await.expect(200);
        assert_eq!(page["next_cursor"], Value::Null, "one page holds them all");
        let webhooks = page["data"].as_array().expect("data");
        webhooks.iter().map(Listed::read).collect()
    }

    /// By the webhook's id: the events, each with the number of its last attempt.
    async fn dead_letters(&self) -> BTreeMap<u64, BTreeMap<Number, u32>> {
        let api = self.daemon.api();
        let mut dead: BTreeMap<u64, BTreeMap<Number, u32>> = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/failed-deliveries?limit=200{cursor}");
            let page = api.get(&path).await.expect(200);
            for failed in page["data"].as_array().expect("data") {
                let webhook = failed["webhook_id"].as_u64().expect("a numeric id");
                let number = number_in(&failed["payload"].to_string()).expect("its number");
                let last = failed["attempts"].as_array().and_then(|all| all.last());
                let last = last.and_then(|last| last["number"].as_u64()).unwrap_or(0);
                let last = u32::try_from(last).expect("a small number");
                let twice = dead.entry(webhook).or_default().insert(number, last);
                if twice.is_some() {
                    // Two events of one message: the books count both.
                    say(&format!("dead twice: {failed}"));
                }
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return dead,
            }
        }
    }
}
