//! From an accepted connection to a station that may speak: TLS, the request, who it is.
//!
//! Whatever is wrong is answered before the upgrade, as HTTP.

use std::{io, net::SocketAddr};

use pipelet_domain::{
    events::StationId,
    registration::{Admission, SecurityProfile},
};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Services,
    admission::{self, Shown},
    client_names::ClientNames,
    handshake::{self, Asked, HandshakeError, Refusal, Subprotocol, Upgrade},
    refusals::Failure,
    stations::ConnectionLease,
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
    pub(super) subprotocol: Option<String>,
    pub(super) profile: SecurityProfile,
    /// There is none for a station that speaks another protocol.
    pub(super) lease: Option<ConnectionLease>,
    /// Cancelled when the station may no longer be here; `None` where that can't be.
    pub(super) revoked: Option<CancellationToken>,
}

pub(super) async fn shake_hands(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    pending: &Pending,
    services: &Services,
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
    let agreed = agree(&mut stream, peer, services).await;
    let now = services.clock.now();
    if let Err(error @ HandshakeError::Refused { refusal, .. }) = &agreed {
        let why = Failure::of(error, peer);
        services.stats.refusals.record(&why, now);
        handshake::refuse(&mut stream, *refusal).await?;
    }
    let Agreed {
        upgrade,
        asked,
        rest,
        admitted,
        lease,
    } = agreed?;
    if upgrade.subprotocol == Subprotocol::NoneCommon {
        let why = Failure {
            reason: Some(handshake::NO_COMMON_SUBPROTOCOL),
            detail: "the station offered other subprotocols than ocpp1.6 only".to_owned(),
            station: Some(&upgrade.station),
            asked: Some(&asked),
            peer,
        };
        services.stats.refusals.record(&why, now);
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
        subprotocol,
        profile: admitted.profile,
        lease,
        revoked: admitted.revoked,
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
    admitted: Admitted,
    lease: Option<ConnectionLease>,
}

/// A station that may come in.
struct Admitted {
    profile: SecurityProfile,
    revoked: Option<CancellationToken>,
}

async fn agree(
    stream: &mut Stream,
    peer: SocketAddr,
    services: &Services,
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
    let admitted = admit(&upgrade, stream, peer, services).map_err(refused)?;
    // None at all where another protocol is spoken: then there is no lease.
    let spoken = match upgrade.subprotocol {
        Subprotocol::Agreed(ref protocol) => Some(Some(protocol.as_str())),
        Subprotocol::NotOffered => Some(None),
        Subprotocol::NoneCommon => None,
    };
    let take_lease = |protocol| {
        let now = services.clock.now();
        // Of each shard the same part.
        let max = services
            .config
            .max_stations
            .div_ceil(services.stations.shards().count());
        let is_registered = |station: &StationId| services.registry.find(station).is_some();
        let station = &upgrade.station;
        let stations = services.stations.of(station);
        let lease = stations.acquire_lease(station, now, protocol, max, &is_registered);
        lease.map_err(|_| refused(Refusal::Full))
    };
    let lease = spoken.map(take_lease).transpose()?;
    Ok(Agreed {
        upgrade,
        asked,
        rest,
        admitted,
        lease,
    })
}

fn admit(
    upgrade: &Upgrade,
    stream: &Stream,
    peer: SocketAddr,
    services: &Services,
) -> Result<Admitted, Refusal> {
    let names = stream.client_certificate().map(ClientNames::of);
    let shown = Shown {
        station: &upgrade.station,
        tls: stream.is_tls(),
        certificate: names.as_ref(),
        credentials: upgrade.credentials.as_ref(),
    };
    let (registry, guesses) = (&services.registry, &services.guesses);
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
    let profile = admitted?;
    let revoked = match (registry.admission(), entry) {
        (Admission::Registered, Some(entry)) => Some(entry.removed),
        // Without its entry, the station could come back as it is.
        (Admission::Open | Admission::Registered, _) => None,
    };
    Ok(Admitted { profile, revoked })
}
