//! The server of HTTPS that several webhooks have in common, which speaks HTTP/2: what is done to a
//! connection is done to all of its streams.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Response, request::Parts};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use crate::receivers::{Conduct, Connection, Receiver};

/// More interim answers than a sender bears.
const TOO_MANY: usize = 50;

pub(crate) async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, receiver: Receiver) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        connections.spawn(converse(stream, acceptor.clone(), receiver.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Until either side ends it; a daemon that is killed does so at any moment.
async fn converse(stream: TcpStream, acceptor: TlsAcceptor, receiver: Receiver) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let (webhook, gone) = (Connection::default(), Arc::new(Notify::new()));
    let mut streams = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = gone.notified() => {
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else {
            return;
        };
        let (receiver, webhook, gone) = (receiver.clone(), webhook.clone(), Arc::clone(&gone));
        streams.spawn(async move {
            let at = Instant::now();
            let (head, body) = request.into_parts();
            let Some(body) = whole(body).await else {
                return;
            };
            let Parts { uri, headers, .. } = &head;
            let conduct = receiver.receive(&webhook, uri.path(), headers, &body, at);
            // Whoever has gone needs no answer.
            let _ = act(conduct, respond, &gone).await;
        });
        while streams.try_join_next().is_some() {}
    }
}

async fn whole(mut body: RecvStream) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.ok()?;
        body.flow_control().release_capacity(part.len()).ok()?;
        all.extend_from_slice(&part);
    }
    Some(all)
}

async fn act(
    conduct: Conduct,
    mut respond: SendResponse<Bytes>,
    gone: &Notify,
) -> Result<(), h2::Error> {
    let head = |status| {
        let response = Response::builder().status(status).body(());
        response.expect("a valid answer")
    };
    match conduct {
        Conduct::Take => respond.send_response(head(200), true).map(drop),
        Conduct::TakeAfter(time) => {
            sleep(time).await;
            respond.send_response(head(200), true).map(drop)
        }
        Conduct::TakeAndGo => {
            gone.notify_one();
            respond.send_response(head(200), true).map(drop)
        }
        Conduct::Refuse(status) => respond.send_response(head(status), true).map(drop),
        Conduct::BreakOff => {
            let mut answer = respond.send_response(head(200), false)?;
            answer.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
        Conduct::Hang => std::future::pending().await,
        Conduct::Interim => {
            for _ in 0..TOO_MANY {
                respond.send_informational(head(103))?;
            }
            respond.send_response(head(200), true).map(drop)
        }
    }
}
