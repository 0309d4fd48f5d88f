//! From an accepted connection to a station that may speak: TLS, the request, who it is.
//!
//! Whatever is wrong is answered before the upgrade, as HTTP.

use std::{io, net::SocketAddr, sync::Arc};

use pipelet_domain::{events::StationId, registration::SecurityProfile};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsAcceptor;

use super::{
    Services,
    admission::{self, Shown},
    client_names::ClientNames,
    gateway::Context,
    handshake::{self, Asked, HandshakeError, Refusal, Subprotocol, Upgrade},
    refusals::Failure,
    stations::{At, ConnectionLease},
};
use crate::system::{
    limits::Pending,
    tls::{self, Stream},
};

/// A connection that is accepted: its handshake has ended well.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: Stream,
    /// What came with the request.
    pub(super) rest: Vec<u8>,
    pub(super) station: StationId,
    pub(super) subprotocol: Option<String>,
    pub(super) profile: SecurityProfile,
    pub(super) place: Place,
}

/// Where a station's session is to be.
#[derive(Debug)]
pub(super) enum Place {
    /// At this node, which owns its shard.
    Here(ConnectionLease, Arc<Services>),
    Elsewhere,
    /// It speaks another protocol.
    Nowhere,
}

pub(super) async fn shake_hands(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    pending: &Pending,
    context: &Context,
) -> Result<Accepted, HandshakeError> {
    // Frames are small and answers are waited for; Nagle's algorithm would only delay them.
    stream.set_nodelay(true)?;
    let mut stream = match acceptor {
        Some(acceptor) => {
            let accepted = tls::accept(acceptor, stream).await.map_err(tls_failure)?;
            Stream::Tls(Box::new(accepted))
        }
        None => Stream::Plain(stream),
    };
    let agreed = agree(&mut stream, peer, context).await;
    let now = context.clock.now();
    if let Err(error @ HandshakeError::Refused { refusal, .. }) = &agreed {
        let why = Failure::of(error, peer);
        context.stats.refusals.record(&why, now);
        handshake::refuse(&mut stream, *refusal).await?;
    }
    let Agreed {
        upgrade,
        asked,
        rest,
        profile,
        place,
    } = agreed?;
    if upgrade.subprotocol == Subprotocol::NoneCommon {
        let why = Failure {
            reason: Some(handshake::NO_COMMON_SUBPROTOCOL),
            detail: "the station offered other subprotocols than ocpp1.6 only".to_owned(),
            station: Some(&upgrade.station),
            asked: Some(&asked),
            peer,
        };
        context.stats.refusals.record(&why, now);
    }
    // Whoever has its answer is not dropped for others.
    if !pending.settle() {
        return Err(HandshakeError::CrowdedOut);
    }
    handshake::accept(&mut stream, &upgrade).await?;
    let subprotocol = match upgrade.subprotocol {
        Subprotocol::Agreed(name) => Some(name),
        Subprotocol::NotOffered | Subprotocol::NoneCommon => None,
    };
    Ok(Accepted {
        stream,
        rest,
        station: upgrade.station,
        subprotocol,
        profile,
        place,
    })
}

/// That the other end has hung up is none of TLS.
fn tls_failure(error: io::Error) -> HandshakeError {
    match error.kind() {
        io::ErrorKind::InvalidData => HandshakeError::Tls(error),
        _ => HandshakeError::Io(error),
    }
}

struct Agreed {
    upgrade: Upgrade,
    asked: Asked,
    rest: Vec<u8>,
    profile: SecurityProfile,
    place: Place,
}

async fn agree(
    stream: &mut Stream,
    peer: SocketAddr,
    context: &Context,
) -> Result<Agreed, HandshakeError> {
    let (request, rest) = handshake::read(stream).await?;
    let asked = request.asked();
    let refused = |refusal, station: Option<&StationId>| HandshakeError::Refused {
        refusal,
        station: station.cloned(),
        asked: Some(Box::new(asked.clone())),
    };
    let upgrade = handshake::decide(request).map_err(|refusal| refused(refusal, None))?;
    let refused = |refusal| refused(refusal, Some(&upgrade.station));
    let profile = admit(&upgrade, stream, peer, context).map_err(refused)?;
    let protocol = match &upgrade.subprotocol {
        Subprotocol::Agreed(protocol) => Some(Some(protocol.as_str())),
        Subprotocol::NotOffered => Some(None),
        Subprotocol::NoneCommon => None,
    };
    let owner = context.owners.of(&upgrade.station).borrow().clone();
    let place = match (protocol, owner) {
        (None, _) => Place::Nowhere,
        (Some(_), None) => Place::Elsewhere,
        (Some(protocol), Some(services)) => {
            let lease = services.acquire_lease(&upgrade.station, protocol, At::ThisNode);
            Place::Here(lease.map_err(|_| refused(Refusal::Full))?, services)
        }
    };
    Ok(Agreed {
        upgrade,
        asked,
        rest,
        profile,
        place,
    })
}

fn admit(
    upgrade: &Upgrade,
    stream: &Stream,
    peer: SocketAddr,
    context: &Context,
) -> Result<SecurityProfile, Refusal> {
    let names = stream.client_certificate().map(ClientNames::of);
    let shown = Shown {
        station: &upgrade.station,
        tls: stream.is_tls(),
        certificate: names.as_ref(),
        credentials: upgrade.credentials.as_ref(),
    };
    let (registry, guesses) = (&context.registry, &context.guesses);
    let entry = registry.find(&upgrade.station);
    let registration = entry.as_ref().map(|entry| &*entry.registration);
    let is_guess = upgrade.credentials.is_some() && admission::asks_password(registration);
    let now = Instant::now();
    let paid = is_guess.then(|| guesses.spend(peer.ip(), &upgrade.station, now));
    let paid = paid.transpose().map_err(|_| Refusal::TooManyGuesses)?;
    let admitted = admission::admit(registration, registry.admission(), &shown);
    if let Some(paid) = paid
        && admitted != Err(Refusal::WrongCredentials)
    {
        guesses.refund(paid, now);
    }
    admitted
}
