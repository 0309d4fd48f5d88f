//! Who is in the cluster: each node says once a second that it is there, and what it does.
//!
//! Whoever says nothing for [`SILENT`] is taken for gone. The owner of a shard is the one with the
//! highest term: the sequence of the message by which it took the lease. One that was stopped, and
//! goes on, still says the lower one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use pipelet_domain::shards::ShardId;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Incarnation, JoinError};

/// Of what nodes say.
const VERSION: u32 = 2;
const SAY_EVERY: Duration = Duration::from_secs(1);
/// Whoever says nothing for so long is gone: no sooner than its lease is.
pub const SILENT: Duration = Duration::from_secs(5);
/// And hears itself so often meanwhile: where it doesn't, it is the servers that are silent.
const ECHOES: u64 = 4;
/// One that is gone is remembered for so long.
const REMEMBERED: Duration = Duration::from_hours(1);

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub node: String,
    pub version: String,
    /// In milliseconds since 1970.
    pub started_ms: i64,
    /// Where it listens.
    pub http: String,
    pub grpc: String,
    pub ocpp: String,
    /// The shards that it owns, each with its lease's term.
    pub owned: BTreeMap<ShardId, u64>,
    /// It owns nothing, and wants nothing, because it is to go.
    pub drained: bool,
    pub load: Load,
}

/// How much a node has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Stations whose connections it has.
    pub stations: u64,
    /// Deliveries that its shards owe.
    pub pending: u64,
}

/// Tells it whenever it is asked.
pub type LoadNow = Box<dyn Fn() -> Load + Send + Sync>;

/// A node as the others know it.
#[derive(Debug, Clone)]
pub struct Member {
    pub incarnation: Incarnation,
    pub about: About,
    heard: Instant,
    /// How often this node had heard itself by then.
    echoes: u64,
}

impl Member {
    /// How long ago it was heard last.
    pub fn silent_for(&self) -> Duration {
        self.heard.elapsed()
    }

    pub fn is_there(&self) -> bool {
        self.silent_for() < SILENT
    }
}

/// What of the members whoever works with them has to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub owners: BTreeMap<ShardId, Owner>,
    /// Of the others.
    pub there: Vec<Incarnation>,
    /// Those that can own shards, this one among them, by their names.
    pub able: BTreeMap<String, Incarnation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub term: u64,
    pub node: Incarnation,
}

#[derive(Debug)]
pub struct Members {
    table: Arc<Table>,
    client: Client,
    /// Where all say that they are there.
    subject: String,
    _talking: DropGuard,
}

struct Table {
    me: Incarnation,
    own: Mutex<About>,
    load: LoadNow,
    /// Something is to be said now.
    news: Notify,
    others: Mutex<BTreeMap<Incarnation, Member>>,
    /// How often this node has heard itself.
    echoes: AtomicU64,
    /// Those that speak another version.
    ignored: Mutex<BTreeSet<Incarnation>>,
    seen: watch::Sender<Seen>,
    /// When each shard had an owner last, of those that ever had.
    owned: Mutex<BTreeMap<ShardId, Instant>>,
}

/// As it is sent.
#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(fixed64, tag = "2")]
    incarnation: u64,
    #[prost(string, tag = "3")]
    node: String,
    #[prost(string, tag = "4")]
    pipelet_version: String,
    #[prost(int64, tag = "5")]
    started_ms: i64,
    #[prost(string, tag = "6")]
    http: String,
    #[prost(string, tag = "7")]
    grpc: String,
    #[prost(string, tag = "8")]
    ocpp: String,
    #[prost(btree_map = "uint32, uint64", tag = "9")]
    owned: BTreeMap<u32, u64>,
    #[prost(bool, tag = "10")]
    drained: bool,
    #[prost(uint64, tag = "11")]
    stations: u64,
    #[prost(uint64, tag = "12")]
    pending: u64,
    /// It ends now.
    #[prost(bool, tag = "13")]
    goodbye: bool,
}

impl Seen {
    /// Which of those that are able is to own a shard, of so many: the highest of them by a draw that
    /// is the shard's own, of those that have no more than their part of the shards before it. So
    /// whoever comes or goes moves few.
    pub fn home(&self, shard: ShardId, count: u16) -> Option<Incarnation> {
        let count = usize::from(count);
        let part = count.checked_div(self.able.len())?;
        // Of the rest, one each.
        let mut rest = count % self.able.len();
        let mut has: BTreeMap<Incarnation, usize> = BTreeMap::new();
        let mut home = None;
        for shard in (0..=shard.0).map(ShardId) {
            let most = part + usize::from(rest > 0);
            let free = self.able.iter();
            let free = free.filter(|(_, node)| has.get(node).copied().unwrap_or(0) < most);
            let (_, drawn) = free.max_by_key(|(name, _)| draw(name, shard))?;
            let has = has.entry(*drawn).or_default();
            *has += 1;
            rest -= usize::from(*has > part);
            home = Some(*drawn);
        }
        home
    }
}

fn draw(node: &str, shard: ShardId) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(shard.0.to_be_bytes());
    hash.update(node);
    hash.finalize().into()
}

impl Members {
    pub(super) async fn join(
        client: Client,
        cluster: &str,
        me: Incarnation,
        about: About,
        load: LoadNow,
    ) -> Result<Self, JoinError> {
        let subject = format!("{cluster}.hello");
        let heard = client.subscribe(subject.clone()).await?;
        let table = Arc::new(Table {
            me,
            own: Mutex::new(about),
            load,
            news: Notify::new(),
            others: Mutex::default(),
            echoes: AtomicU64::new(0),
            ignored: Mutex::default(),
            seen: watch::Sender::default(),
            owned: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let talking = exchange(Arc::clone(&table), client.clone(), subject.clone(), heard);
        tokio::spawn(stop.clone().run_until_cancelled_owned(talking));
        Ok(Self {
            table,
            client,
            subject,
            _talking: stop.drop_guard(),
        })
    }

    /// Changes what this node says of itself, and says it at once.
    pub fn announce(&self, change: impl FnOnce(&mut About)) {
        change(&mut self.table.own());
        self.table.refresh();
        self.table.news.notify_one();
    }

    /// Says that this node ends now.
    pub async fn leave(&self) {
        let goodbye = Hello {
            goodbye: true,
            ..self.table.hello()
        };
        let goodbye = goodbye.encode_to_vec().into();
        let said = async {
            self.client.publish(self.subject.clone(), goodbye).await?;
            // The process ends next.
            let _ = self.client.flush().await;
            Ok::<_, async_nats::PublishError>(())
        };
        if let Ok(Err(error)) = timeout(SAY_EVERY, said).await {
            tracing::debug!(%error, "the other nodes could not be told");
        }
    }

    /// Whether a shard has had an owner within this time, as far as is known.
    pub fn was_owned_within(&self, shard: ShardId, time: Duration) -> bool {
        let owned = self.table.owned();
        owned.get(&shard).is_some_and(|at| at.elapsed() < time)
    }

    pub(super) fn seen(&self) -> watch::Receiver<Seen> {
        self.table.seen.subscribe()
    }

    /// All that were there of late, this one among them, by name.
    pub fn list(&self) -> Vec<Member> {
        let me = Member {
            incarnation: self.table.me,
            about: self.table.about(),
            heard: Instant::now(),
            echoes: self.table.echoes.load(Ordering::Relaxed),
        };
        let mut all: Vec<_> = self.table.others().values().cloned().collect();
        all.push(me);
        all.sort_by(|one, other| {
            let key = |it: &Member| (it.about.node.clone(), it.about.started_ms);
            key(one).cmp(&key(other))
        });
        all
    }
}

/// Says that this node is there, and takes in what the others say.
async fn exchange(table: Arc<Table>, client: Client, subject: String, mut heard: Subscriber) {
    let mut turns = interval(SAY_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = heard.next() => match message {
                Some(message) => {
                    table.receive(&message.payload);
                    continue;
                }
                // The connection is given up.
                None => return,
            },
            _ = turns.tick() => {}
            () = table.news.notified() => {}
        }
        table.refresh();
        let hello = table.hello().encode_to_vec();
        if let Err(error) = client.publish(subject.clone(), hello.into()).await {
            tracing::debug!(%error, "the other nodes could not be told");
        }
    }
}

impl Table {
    fn own(&self) -> MutexGuard<'_, About> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> MutexGuard<'_, BTreeMap<Incarnation, Member>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ignored(&self) -> MutexGuard<'_, BTreeSet<Incarnation>> {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owned(&self) -> MutexGuard<'_, BTreeMap<ShardId, Instant>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive(&self, message: &[u8]) {
        let hello = match Hello::decode(message) {
            Ok(hello) if hello.version == VERSION => hello,
            Ok(hello) => {
                if self.ignored().insert(Incarnation(hello.incarnation)) {
                    let (node, version) = (hello.node, hello.pipelet_version);
                    let what = "a node speaks another version, and is ignored";
                    tracing::warn!(node, version, "{what}");
                }
                return;
            }
            Err(error) => return tracing::warn!(%error, "a node can't be understood"),
        };
        let incarnation = Incarnation(hello.incarnation);
        if incarnation == self.me {
            self.echoes.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut others = self.others();
        if hello.goodbye {
            others.remove(&incarnation);
        } else {
            let member = Member {
                incarnation,
                about: About::from(hello),
                heard: Instant::now(),
                echoes: self.echoes.load(Ordering::Relaxed),
            };
            let is_new = others.insert(incarnation, member.clone()).is_none();
            if is_new {
                // It learns of this one at once.
                self.news.notify_one();
                // The same node before it was started again.
                let Member { about, .. } = &member;
                let is_before = |other: &Member| {
                    other.about.node == about.node && other.about.started_ms < about.started_ms
                };
                others.retain(|_, other| !is_before(other));
                if about.node == self.own().node && about.started_ms >= self.own().started_ms {
                    let node = &about.node;
                    tracing::error!(
                        node,
                        "another node has this one's name: give it another --node"
                    );
                }
            }
        }
        drop(others);
        self.refresh();
    }

    /// Finds out what has changed.
    fn refresh(&self) {
        let mut others = self.others();
        others.retain(|_, other| other.silent_for() < REMEMBERED);
        let own = self.own().clone();
        let mut owners: BTreeMap<ShardId, Owner> = BTreeMap::new();
        let mut able = BTreeMap::new();
        let echoes = self.echoes.load(Ordering::Relaxed);
        // What may still be there is not given up for gone.
        let may_be_there =
            |member: &Member| member.is_there() || echoes < member.echoes.saturating_add(ECHOES);
        let living = others.values().filter(|member| may_be_there(member));
        let living = living.map(|member| (member.incarnation, &member.about));
        for (node, about) in living.chain([(self.me, &own)]) {
            if !about.drained {
                able.insert(about.node.clone(), node);
            }
        }
        let all = others.values().map(|it| (it.incarnation, &it.about));
        for (node, about) in all.chain([(self.me, &own)]) {
            for (shard, term) in &about.owned {
                let owner = Owner { term: *term, node };
                let known = owners.entry(*shard).or_insert(owner);
                *known = owner.max(*known);
            }
        }
        let there = others.values().filter(|member| member.is_there());
        let seen = Seen {
            owners,
            there: there.map(|member| member.incarnation).collect(),
            able,
        };
        drop(others);
        let now = Instant::now();
        let is_there = |owner: &Owner| owner.node == self.me || seen.there.contains(&owner.node);
        let owned = seen.owners.iter().filter(|(_, owner)| is_there(owner));
        self.owned().extend(owned.map(|(shard, _)| (*shard, now)));
        self.seen.send_if_modified(|before| {
            let is_other = *before != seen;
            *before = seen;
            is_other
        });
    }

    fn about(&self) -> About {
        About {
            load: (self.load)(),
            ..self.own().clone()
        }
    }

    fn hello(&self) -> Hello {
        let about = self.about();
        Hello {
            version: VERSION,
            incarnation: self.me.0,
            node: about.node,
            pipelet_version: about.version,
            started_ms: about.started_ms,
            http: about.http,
            grpc: about.grpc,
            ocpp: about.ocpp,
            owned: about
                .owned
                .into_iter()
                .map(|(shard, term)| (shard.0.into(), term))
                .collect(),
            drained: about.drained,
            stations: about.load.stations,
            pending: about.load.pending,
            goodbye: false,
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Table");
        shown.field("me", &self.me).field("own", &self.own);
        shown.field("others", &self.others).finish_non_exhaustive()
    }
}

impl From<Hello> for About {
    fn from(hello: Hello) -> Self {
        Self {
            node: hello.node,
            version: hello.pipelet_version,
            started_ms: hello.started_ms,
            http: hello.http,
            grpc: hello.grpc,
            ocpp: hello.ocpp,
            owned: hello
                .owned
                .into_iter()
                .filter_map(|(shard, term)| Some((ShardId(shard.try_into().ok()?), term)))
                .collect(),
            drained: hello.drained,
            load: Load {
                stations: hello.stations,
                pending: hello.pending,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn homes(nodes: &[&str]) -> Vec<Option<Incarnation>> {
        let able = nodes.iter().map(|name| {
            let number = name.bytes().map(u64::from).sum();
            ((*name).to_owned(), Incarnation(number))
        });
        let seen = Seen {
            able: able.collect(),
            ..Seen::default()
        };
        (0..16).map(|shard| seen.home(ShardId(shard), 16)).collect()
    }

    #[test]
    fn shards_spread_evenly_and_few_move() {
        assert_eq!(homes(&[]), [None; 16]);
        let all = ["a", "b", "c", "d", "e"];
        for count in 1..=all.len() {
            let homes_now = homes(&all[..count]);
            let mut parts: BTreeMap<_, usize> = BTreeMap::new();
            for home in &homes_now {
                *parts.entry(home.unwrap()).or_default() += 1;
            }
            assert_eq!(parts.len(), count);
            let part = 16 / count;
            assert!(
                parts.values().all(|it| (part..=part + 1).contains(it)),
                "{parts:?}"
            );
            // One that goes leaves its own, and few of the others' move for that.
            let before = homes(&all[..count.saturating_sub(1)]);
            let moved = before.iter().zip(&homes_now);
            let moved = moved.filter(|(before, now)| before != now).count();
            assert!(moved <= 16 / count + 16 / 4, "{count}: {moved}");
        }
    }
}
