//! Streams of bytes between two nodes, over NATS: what HTTP needs to go from one to the other.
//!
//! Each end has a subject of its own. A chunk has a number; where one is missing, the stream breaks
//! off, as a connection does. Nothing here holds back who writes too much: HTTP/2's windows do.

use std::{io, time::Duration};

use async_nats::{Client, Subscriber};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    time::timeout,
};

use super::{Incarnation, JoinError, Peers, Requests, Unanswered};

/// In bytes, of one message.
const CHUNK: usize = 32 * 1024;
/// In bytes: what is written and not sent, or received and not read.
const BUFFER: usize = 64 * 1024;
/// Before the bytes of a chunk: its number. One without bytes is the last.
const NUMBER: usize = 8;
/// How long the other end may take to begin.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Streams that others begin.
#[derive(Debug)]
pub struct Incoming {
    peers: Peers,
    requests: Requests,
}

impl Peers {
    /// Begins a stream to a node.
    pub async fn connect(&self, node: Incarnation, what: &str) -> Result<DuplexStream, Unanswered> {
        let client = &self.0.client;
        let (ours, received) = self.end().await.map_err(|error| {
            let source = error.into();
            Unanswered::Failed(source)
        })?;
        let address = self.address(node, what);
        let theirs = self.ask(&address, ours.into(), BEGIN_TIMEOUT).await?;
        let theirs = String::from_utf8_lossy(&theirs).into_owned();
        Ok(run(client.clone(), received, theirs))
    }

    /// The streams that others begin, from now on.
    pub async fn incoming(&self, what: &str) -> Result<Incoming, JoinError> {
        Ok(Incoming {
            requests: self.requests(what).await?,
            peers: self.clone(),
        })
    }

    /// An end of a stream: where the other one writes to, and what it writes.
    async fn end(&self) -> Result<(String, Subscriber), JoinError> {
        let client = &self.0.client;
        let subject = format!("{}.bytes.{}", self.0.cluster, client.new_inbox());
        let received = client.subscribe(subject.clone()).await?;
        Ok((subject, received))
    }
}

impl Incoming {
    /// The next one; none once the connection to NATS is given up.
    pub async fn next(&mut self) -> Option<DuplexStream> {
        loop {
            let request = self.requests.next().await?;
            let theirs = String::from_utf8_lossy(&request.message).into_owned();
            match self.peers.end().await {
                Ok((ours, received)) => {
                    request.respond.with(ours).await;
                    return Some(run(self.peers.0.client.clone(), received, theirs));
                }
                Err(error) => tracing::warn!(%error, "a node's stream can't be taken"),
            }
        }
    }
}

/// The stream, which lives until one of both ends.
fn run(client: Client, received: Subscriber, theirs: String) -> DuplexStream {
    let (stream, inner) = duplex(BUFFER);
    let (read, write) = split(inner);
    tokio::spawn(async move {
        let broken = tokio::select! {
            sent = send(client, read, theirs) => sent.err(),
            taken = receive(received, write) => taken.err(),
        };
        if let Some(error) = broken {
            tracing::debug!(%error, "a stream between nodes broke off");
        }
    });
    stream
}

/// Until the other end has been told that this one has ended.
async fn send(client: Client, mut from: ReadHalf<DuplexStream>, to: String) -> io::Result<()> {
    let mut number = 0_u64;
    loop {
        let mut chunk = BytesMut::with_capacity(NUMBER + CHUNK);
        chunk.put_u64(number);
        number += 1;
        let read = from.read_buf(&mut chunk).await?;
        let sent = client.publish(to.clone(), chunk.freeze()).await;
        sent.map_err(io::Error::other)?;
        if read == 0 {
            return Ok(());
        }
    }
}

/// Until the other end has ended.
async fn receive(mut from: Subscriber, mut to: WriteHalf<DuplexStream>) -> io::Result<()> {
    let mut expected = 0_u64;
    // Where the other end has gone before it began, nobody says so.
    let mut first = Some(timeout(BEGIN_TIMEOUT, from.next()).await?);
    while let Some(message) = match first.take() {
        Some(first) => first,
        None => from.next().await,
    } {
        let mut chunk: Bytes = message.payload;
        let number = chunk.split_to(NUMBER.min(chunk.len()));
        if *number != expected.to_be_bytes() {
            return Err(io::Error::other("a part of it is missing"));
        }
        expected += 1;
        if chunk.is_empty() {
            return Ok(());
        }
        to.write_all(&chunk).await?;
    }
    Err(io::ErrorKind::ConnectionReset.into())
}
