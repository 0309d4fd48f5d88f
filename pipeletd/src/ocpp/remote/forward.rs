//! The gateway's side: a station's connection, whose messages go to the owner of its shard.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pipelet_domain::{events::StationId, shards::ShardId};
use prost::Message as _;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        call_handler::Opening,
        ended::Ended,
        gateway::{Context, Local},
        link::{Link, LinkEvent},
        session::{Served, Unserved},
        wire::{self, ErrorCode, Frame},
    },
    Answer, Done, EndedAt, FromGateway, FromOwner, GATEWAY, Numbered, Open, Said, ToGateway,
    ToOwner, VERSION, Wanted, encoded, owner_of,
};
use crate::cluster::{
    Address, JoinError, Peers, Unanswered,
    members::{Owner, Seen},
};

/// How long an owner may take to answer a message before it is sent again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a station waits for its answer where there is no owner: longer than it takes for another
/// node to become the owner. It keeps its message after that.
const PATIENCE: Duration = Duration::from_secs(15);
/// Before an owner that was not there is asked again, while a station waits for its answer.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// The same, while none does.
const OPEN_AGAIN: Duration = Duration::from_secs(2);
/// What an owner wants of one connection at once.
const INBOX: usize = 4;
/// How often an owner is told that a station is gone, until it answers.
const TELL_END: usize = 3;

/// What owners want of the connections that are here.
#[derive(Debug, Default)]
pub(in crate::ocpp) struct Inboxes {
    open: Mutex<HashMap<u64, mpsc::Sender<Asked>>>,
    last: AtomicU64,
}

/// What an owner wants of a connection.
#[derive(Debug)]
struct Asked {
    wanted: Wanted,
    respond: crate::cluster::Respond,
}

/// A connection whose session is at another node.
#[derive(Debug)]
pub(in crate::ocpp) struct Forward<L> {
    link: L,
    opening: Opening,
    station: StationId,
    /// The station's.
    shard: ShardId,
    context: Arc<Context>,
    peers: Peers,
    seen: watch::Receiver<Seen>,
    inbox: Inbox,
    /// Where the owner is asked that was asked last.
    address: Option<(Owner, Address)>,
    /// The owner that has it.
    opened_at: Option<Owner>,
    /// An owner may have it.
    offered: bool,
    /// How many messages of the station were forwarded.
    texts: u64,
    /// The last one, until it is answered, and whether an owner may have it already.
    unanswered: Option<Utf8Bytes>,
    again: bool,
}

/// What an owner wants of one connection, until it is dropped.
#[derive(Debug)]
struct Inbox {
    asked: mpsc::Receiver<Asked>,
    /// Its number.
    connection: u64,
    context: Arc<Context>,
}

impl Inboxes {
    /// Hands out what owners want of connections here.
    pub(in crate::ocpp) async fn run(&self, peers: &Peers) -> Result<(), JoinError> {
        let mut requests = peers.requests(GATEWAY).await?;
        while let Some(request) = requests.next().await {
            let respond = request.respond;
            let gone = FromGateway { done: false };
            let asked = match ToGateway::decode(request.message) {
                Ok(asked) if asked.version == VERSION => asked,
                Ok(_) | Err(_) => {
                    tracing::warn!("an owner wants something that this version doesn't understand");
                    respond.with(encoded(&gone)).await;
                    continue;
                }
            };
            let inbox = self.open().get(&asked.connection).cloned();
            match (inbox, asked.wanted) {
                (Some(inbox), Some(wanted)) => {
                    // An owner wants one thing after the other: one that is full has stopped.
                    if let Err(refused) = inbox.try_send(Asked { wanted, respond }) {
                        let Asked { respond, .. } = refused.into_inner();
                        respond.with(encoded(&gone)).await;
                    }
                }
                _ => respond.with(encoded(&gone)).await,
            }
        }
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Asked>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.context.inboxes.open().remove(&self.connection);
    }
}

impl Inbox {
    fn open(context: Arc<Context>) -> Self {
        let connection = context.inboxes.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, asked) = mpsc::channel(INBOX);
        context.inboxes.open().insert(connection, sender);
        Self {
            asked,
            connection,
            context,
        }
    }
}

impl<L: Link> Forward<L> {
    /// None where there are no other nodes.
    pub(in crate::ocpp) fn new(unserved: Unserved<L>, context: Arc<Context>) -> Option<Self> {
        let Unserved {
            link,
            opening,
            station,
            unanswered,
        } = unserved;
        let peers = context.peers.clone()?;
        Some(Self {
            link,
            opening,
            shard: context.owners.id_of(&station),
            station,
            seen: peers.seen(),
            peers,
            inbox: Inbox::open(Arc::clone(&context)),
            context,
            address: None,
            opened_at: None,
            offered: false,
            texts: u64::from(unanswered.is_some()),
            unanswered,
            again: true,
        })
    }

    /// What is left where [`Self::run`] says that the shard is here.
    pub(in crate::ocpp) fn into_parts(self) -> Unserved<L> {
        Unserved {
            link: self.link,
            opening: self.opening,
            station: self.station,
            unanswered: self.unanswered,
        }
    }

    /// Serves the station until one of the two ends it, or its shard is here.
    pub(in crate::ocpp) async fn run(&mut self, shutdown: &CancellationToken) -> Served {
        let ended = match self.converse(shutdown).await {
            Ok(()) => return Served::HandedOver,
            Err(ended) => ended,
        };
        self.link.let_go(&ended).await;
        let station = &self.station;
        tracing::info!(%station, reason = ended.reason(), detail = %ended, "connection ended");
        self.context.stats.ended.count(ended.reason());
        self.link.close(&ended).await;
        for _ in 0..TELL_END {
            let at = EndedAt {
                reason: ended.reason().to_owned(),
                detail: ended.to_string(),
            };
            // One that never had it says so.
            if !self.offered || matches!(self.ask(Said::Ended(at)).await, Ok(Some(_))) {
                break;
            }
        }
        Served::Ended
    }

    /// Until the shard is here.
    async fn converse(&mut self, shutdown: &CancellationToken) -> Result<(), Ended> {
        let mut here = self.context.owners.of(&self.station).subscribe();
        let mut open_at = Instant::now();
        loop {
            if here.borrow_and_update().is_some() {
                return Ok(());
            }
            if self.unanswered.is_some() {
                let answering = Box::pin(self.forward(&mut here));
                // It has its answer soon, if at all.
                let late = async {
                    shutdown.cancelled().await;
                    sleep(ANSWER_TIMEOUT).await;
                };
                tokio::select! {
                    answered = answering => answered?,
                    () = late => return Err(Ended::Shutdown),
                }
                continue;
            }
            self.look();
            let must_open = self.owner().is_some() && !self.is_open();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Ended::Shutdown),
                _ = here.changed() => {}
                _ = self.seen.changed() => open_at = Instant::now(),
                Some(asked) = self.inbox.asked.recv() => Box::pin(self.do_for(asked)).await?,
                heard = self.link.next() => match heard? {
                    LinkEvent::Text(text) | LinkEvent::Again(text) => {
                        self.texts += 1;
                        self.unanswered = Some(text);
                        self.again = false;
                    }
                    LinkEvent::NotText => {
                        self.link.send(wire::not_text()).await?;
                    }
                    LinkEvent::Due => Box::pin(self.link.tend()).await?,
                    LinkEvent::Sign => {}
                },
                () = sleep_until(open_at), if must_open => {
                    let asked = self.owner();
                    if !Box::pin(self.open()).await? && asked == self.owner() {
                        open_at = Instant::now() + OPEN_AGAIN;
                    }
                }
            }
        }
    }

    /// Takes in what is known of the other nodes. An owner that was silent for long has given up what
    /// this one has opened.
    fn look(&mut self) {
        let seen = self.seen.borrow_and_update();
        let is_there = |owner: &Owner| seen.there.contains(&owner.node);
        self.opened_at = self.opened_at.filter(is_there);
    }

    /// The owner, where that is another node.
    fn owner(&self) -> Option<Owner> {
        let owner = *self.seen.borrow().owners.get(&self.shard)?;
        (owner.node != self.peers.me()).then_some(owner)
    }

    /// Whether the present owner has the connection, as far as is known.
    fn is_open(&self) -> bool {
        let owner = self.owner();
        owner.is_some() && self.opened_at == owner
    }

    /// Has the owner take the connection. False where there is none that does so now.
    async fn open(&mut self) -> Result<bool, Ended> {
        let owner = self.owner();
        let open = Open {
            station: self.station.as_str().to_owned(),
            peer: self.opening.peer.to_string(),
            subprotocol: self.opening.subprotocol.clone(),
            security_profile: self.opening.profile.number().into(),
            resumed: self.opening.resumed,
        };
        self.offered = true;
        match self.ask(Said::Open(open)).await? {
            Some(Answer::Done(_)) => {
                if !self.opening.resumed {
                    let (station, peer) = (&self.station, self.opening.peer);
                    tracing::info!(%station, %peer, "station connected, and is another node's");
                }
                self.opened_at = owner;
                self.opening.resumed = true;
                Ok(true)
            }
            Some(Answer::Full(_)) => Err(Ended::Full),
            Some(Answer::NotOpen(_)) | None => Ok(false),
        }
    }

    /// Gives the station the answer to its message, which the owner has as soon as there is one. It is
    /// left unanswered where its shard is here.
    async fn forward(&mut self, here: &mut watch::Receiver<Local>) -> Result<(), Ended> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if here.borrow_and_update().is_some() {
                return Ok(());
            }
            self.look();
            if !self.is_open() && !self.open().await? {
                tokio::select! {
                    () = sleep_until(deadline.min(Instant::now() + ASK_AGAIN)) => {}
                    _ = self.seen.changed() => {}
                    _ = here.changed() => {}
                }
                continue;
            }
            let Some(text) = &self.unanswered else {
                return Ok(());
            };
            let said = Said::Text(Numbered {
                number: self.texts,
                text: text.clone().into(),
                again: self.again,
            });
            self.again = true;
            match self.ask(said).await? {
                Some(Answer::Done(Done { text })) => {
                    self.unanswered = None;
                    return match text {
                        // As the owner has made it.
                        Some(answer) => {
                            let answer = String::from_utf8(answer.into());
                            self.link.send(answer.unwrap_or_default()).await
                        }
                        None => Ok(()),
                    };
                }
                Some(Answer::NotOpen(_) | Answer::Full(_)) => self.opened_at = None,
                None => {}
            }
        }
        let station = &self.station;
        tracing::warn!(%station, "no node owns the station's shard");
        let unanswered = self.unanswered.take();
        match unanswered.as_deref().map(wire::parse) {
            Some(Ok(Frame::Call(call))) => {
                let why = "no node can keep the event now, try again";
                let answer = wire::call_error(call.id, ErrorCode::InternalError, why);
                self.link.send(answer).await
            }
            Some(Ok(_) | Err(_)) | None => Ok(()),
        }
    }

    /// Asks the owner, and does what it wants meanwhile. None where it doesn't answer in time.
    async fn ask(&mut self, said: Said) -> Result<Option<Answer>, Ended> {
        let Some(owner) = self.owner() else {
            return Ok(None);
        };
        if self.address.as_ref().is_none_or(|(of, _)| *of != owner) {
            self.address = Some((owner, self.peers.address(owner.node, &owner_of(self.shard))));
        }
        let Some((_, address)) = &self.address else {
            return Ok(None);
        };
        let message = encoded(&ToOwner {
            version: VERSION,
            gateway: self.peers.me().0,
            connection: self.inbox.connection,
            said: Some(said),
        });
        let (peers, address) = (self.peers.clone(), address.clone());
        let asking = peers.ask(&address, message, ANSWER_TIMEOUT);
        let mut asking = std::pin::pin!(asking);
        let (mut seen, shard) = (self.seen.clone(), self.shard);
        let overtaken = async move {
            let is_another = |seen: &Seen| seen.owners.get(&shard) != Some(&owner);
            let _ = seen.wait_for(is_another).await;
        };
        let mut overtaken = std::pin::pin!(overtaken);
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut asking => break answer,
                // That one is no longer the owner: the next one is asked.
                () = &mut overtaken => return Ok(None),
                Some(asked) = self.inbox.asked.recv() => Box::pin(self.do_for(asked)).await?,
            }
        };
        match answer {
            Ok(answer) => Ok(FromOwner::decode(answer).ok().and_then(|it| it.answer)),
            Err(Unanswered::TooLate) => Ok(None),
            Err(why @ (Unanswered::NotThere | Unanswered::Failed(_))) => {
                tracing::debug!(station = %self.station, %why, "not answered");
                self.opened_at = None;
                Ok(None)
            }
        }
    }

    /// Does what the owner wants of the connection.
    async fn do_for(&mut self, asked: Asked) -> Result<(), Ended> {
        let done = match asked.wanted {
            Wanted::Send(text) => self.link.send(text).await,
            Wanted::Close(reason) => Err(Ended::of_owner(&reason)),
            Wanted::Reopen(_) => {
                self.opened_at = None;
                Ok(())
            }
        };
        let answer = FromGateway { done: true };
        asked.respond.with(encoded(&answer)).await;
        done
    }
}
