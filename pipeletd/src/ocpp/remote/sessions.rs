//! The owner's side: sessions of stations whose connections are at other nodes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use pipelet_domain::{events::StationId, registration::SecurityProfile, shards::ShardId};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, interval},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Services,
        call_handler::{CallHandler, Opening},
        ended::Ended,
        link::{Link, LinkEvent, WRITE_TIMEOUT},
        session::{Session, Unserved},
        stations::At,
    },
    Answer, ConnectionId, Done, FromGateway, FromOwner, Full, GATEWAY, NotOpen, Open, Reopen, Said,
    ToGateway, ToOwner, VERSION, Wanted, encoded, owner_of,
};
use crate::cluster::{
    Address, Incarnation, JoinError, Peers, Request, Requests, Respond, members::SILENT,
};

/// What waits of one connection: a gateway sends the next message once the last is answered.
const INCOMING: usize = 4;

/// Sessions of connections at other nodes, of stations of one shard.
#[derive(Debug)]
pub(in crate::ocpp) struct RemoteSessions {
    services: Arc<Services>,
    peers: Peers,
    requests: Requests,
    open: Arc<OpenConnections>,
    /// How many were opened.
    opened: AtomicU64,
}

type OpenConnections = Mutex<HashMap<ConnectionId, OpenConnection>>;

#[derive(Debug)]
struct OpenConnection {
    session: mpsc::Sender<Incoming>,
    since: Instant,
    /// One that is opened anew has the same ID.
    serial: u64,
}

/// What a gateway says of a connection.
#[derive(Debug)]
enum Incoming {
    Text {
        number: u64,
        text: Utf8Bytes,
        again: bool,
        respond: Respond,
    },
    Ended(Ended),
}

/// The way to a station by way of its gateway.
#[derive(Debug)]
pub(in crate::ocpp) struct RemoteLink {
    peers: Peers,
    gateway: Address,
    id: ConnectionId,
    serial: u64,
    incoming: mpsc::Receiver<Incoming>,
    /// The message that is being handled, until it is answered.
    in_hand: Option<(u64, Respond)>,
    /// The last one that was, and its answer.
    answered: (u64, Option<Bytes>),
    open: Arc<OpenConnections>,
}

impl RemoteSessions {
    pub(in crate::ocpp) async fn listen(
        services: Arc<Services>,
        peers: Peers,
    ) -> Result<Self, JoinError> {
        let shard = services.stations.shards().ids().next();
        let topic = owner_of(shard.unwrap_or(ShardId(0)));
        Ok(Self {
            requests: peers.requests(&topic).await?,
            services,
            peers,
            open: Arc::default(),
            opened: AtomicU64::default(),
        })
    }

    /// Serves what gateways forward, until it is closing and all sessions have ended.
    pub(in crate::ocpp) async fn run(mut self, closing: &CancellationToken) {
        let mut seen = self.peers.seen();
        let mut turns = interval(SILENT);
        loop {
            let sessions = self.services.sessions.clone();
            let closed = async {
                closing.cancelled().await;
                sessions.wait().await;
            };
            tokio::select! {
                request = self.requests.next() => match request {
                    Some(request) => self.take(request, closing.is_cancelled()).await,
                    // The connection to NATS is given up.
                    None => return,
                },
                _ = seen.changed() => self.drop_connections(&seen.borrow_and_update().there),
                _ = turns.tick() => self.drop_connections(&seen.borrow().there),
                () = closed => break,
            }
        }
        // Whoever has asked meanwhile needn't wait to learn that it is too late.
        self.requests.stop().await;
        while let Some(request) = self.requests.next().await {
            request.respond.with(not_open()).await;
        }
    }

    async fn take(&self, request: Request, is_closing: bool) {
        let Request { message, respond } = request;
        let said = match ToOwner::decode(message) {
            Ok(said) if said.version == VERSION => said,
            Ok(_) | Err(_) => {
                tracing::warn!("a gateway says something that this version doesn't understand");
                return respond.with(not_open()).await;
            }
        };
        let id = ConnectionId {
            gateway: Incarnation(said.gateway),
            number: said.connection,
        };
        let found = self.connections().get(&id).map(|it| it.session.clone());
        let found = found.filter(|session| !session.is_closed());
        match (said.said, found) {
            // It was opened, and the gateway has not heard of it.
            (Some(Said::Open(_)), Some(_)) => respond.with(done(None)).await,
            (Some(Said::Open(open)), None) if !is_closing => {
                let answer = self.open(id, open);
                respond.with(answer).await;
            }
            (Some(Said::Text(said)), Some(session)) => {
                let Ok(text) = Utf8Bytes::try_from(said.text) else {
                    return respond.with(not_open()).await;
                };
                let incoming = Incoming::Text {
                    number: said.number,
                    text,
                    again: said.again,
                    respond,
                };
                // What there is no room for is sent again.
                let _ = session.try_send(incoming);
            }
            (Some(Said::Ended(at)), Some(session)) => {
                let ended = Ended::at_gateway(&at.reason, at.detail);
                let _ = session.try_send(Incoming::Ended(ended));
                // If that does not get through, it is the end all the same.
                self.connections().remove(&id);
                respond.with(done(None)).await;
            }
            (Some(_) | None, _) => respond.with(not_open()).await,
        }
    }

    fn open(&self, id: ConnectionId, open: Open) -> Vec<u8> {
        let (Ok(station), Ok(peer)) = (StationId::new(&open.station), open.peer.parse()) else {
            return not_open();
        };
        let opening = Opening {
            peer,
            subprotocol: open.subprotocol,
            profile: SecurityProfile::from_number(open.security_profile.into())
                .unwrap_or(SecurityProfile::Unsecured),
            resumed: open.resumed,
        };
        let services = &self.services;
        let Ok(lease) =
            services.acquire_lease(&station, opening.subprotocol.as_deref(), At::Another)
        else {
            return encoded_answer(Answer::Full(Full {}));
        };
        let (session, incoming) = mpsc::channel(INCOMING);
        let serial = self.opened.fetch_add(1, Ordering::Relaxed);
        let connection = OpenConnection {
            session,
            since: Instant::now(),
            serial,
        };
        self.connections().insert(id, connection);
        let link = RemoteLink {
            gateway: self.peers.address(id.gateway, GATEWAY),
            peers: self.peers.clone(),
            id,
            serial,
            incoming,
            in_hand: None,
            answered: (0, None),
            open: Arc::clone(&self.open),
        };
        let call_handler = CallHandler::new(lease, Arc::clone(services));
        let revoked = services.revoked(&station);
        let unserved = Unserved {
            link,
            opening,
            station,
            unanswered: None,
        };
        let mut session = Session::new(unserved, call_handler, revoked, None);
        tokio::spawn(async move {
            session.run().await;
        });
        done(None)
    }

    /// Ends the connections of gateways that are not there, but for those that have yet to be heard.
    fn drop_connections(&self, there: &[Incarnation]) {
        // Their sessions find that nobody sends any more.
        self.connections()
            .retain(|id, it| there.contains(&id.gateway) || it.since.elapsed() < SILENT);
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<ConnectionId, OpenConnection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RemoteLink {
    /// Answers the message that is in hand.
    async fn answer(&mut self, text: Option<Bytes>) {
        if let Some((number, respond)) = self.in_hand.take() {
            self.answered = (number, text);
            respond.with(done(self.answered.1.clone())).await;
        }
    }

    async fn ask(&self, wanted: Wanted) -> Result<(), Ended> {
        let message = encoded(&ToGateway {
            version: VERSION,
            connection: self.id.number,
            wanted: Some(wanted),
        });
        let asked = self.peers.ask(&self.gateway, message, WRITE_TIMEOUT);
        let answer = asked.await.ok().and_then(|it| FromGateway::decode(it).ok());
        match answer {
            Some(FromGateway { done: true }) => Ok(()),
            Some(FromGateway { done: false }) | None => Err(Ended::BrokenOff),
        }
    }
}

impl Drop for RemoteLink {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_this = |it: &OpenConnection| it.serial == self.serial;
        if open.get(&self.id).is_some_and(is_this) {
            open.remove(&self.id);
        }
    }
}

impl Link for RemoteLink {
    async fn next(&mut self) -> Result<LinkEvent, Ended> {
        // Whoever asks for the next has handled the last.
        if self.in_hand.is_some() {
            self.answer(None).await;
        }
        loop {
            let Some(incoming) = self.incoming.recv().await else {
                return Err(Ended::BrokenOff);
            };
            match incoming {
                Incoming::Text {
                    number,
                    text,
                    again,
                    respond,
                } => {
                    let (answered, answer) = &self.answered;
                    if number == *answered {
                        respond.with(done(answer.clone())).await;
                        continue;
                    }
                    self.in_hand = Some((number, respond));
                    return Ok(if again {
                        LinkEvent::Again(text)
                    } else {
                        LinkEvent::Text(text)
                    });
                }
                Incoming::Ended(ended) => return Err(ended),
            }
        }
    }

    async fn tend(&mut self) -> Result<(), Ended> {
        Ok(())
    }

    async fn send(&mut self, text: String) -> Result<(), Ended> {
        if self.in_hand.is_some() {
            self.answer(Some(text.into())).await;
            return Ok(());
        }
        self.ask(Wanted::Send(text)).await
    }

    async fn let_go(&mut self, _: &Ended) {}

    /// The gateway learns of it with what it has sent already.
    async fn hand_over(&mut self) {
        self.answer(None).await;
        self.incoming.close();
        while let Some(incoming) = self.incoming.recv().await {
            if let Incoming::Text { respond, .. } = incoming {
                respond.with(not_open()).await;
            }
        }
    }

    async fn close(&mut self, ended: &Ended) {
        // A gateway that is gone has closed it.
        if ended.close_frame().is_some() {
            // Before it hears that the connection isn't open here, and opens it once more.
            let _ = self.ask(Wanted::Close(ended.reason().to_owned())).await;
        }
        self.hand_over().await;
        if let Ended::BrokenOff = ended {
            let _ = self.ask(Wanted::Reopen(Reopen {})).await;
        }
    }
}

fn done(text: Option<Bytes>) -> Vec<u8> {
    encoded_answer(Answer::Done(Done { text }))
}

fn not_open() -> Vec<u8> {
    encoded_answer(Answer::NotOpen(NotOpen {}))
}

fn encoded_answer(answer: Answer) -> Vec<u8> {
    FromOwner {
        answer: Some(answer),
    }
    .encode_to_vec()
}
