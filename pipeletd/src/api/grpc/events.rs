//! `EventService`.

use std::sync::Arc;

use pipelet_proto::v1::{self, event_service_server::EventService};
use tokio::sync::{Semaphore, broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{super::error::ApiError, access::Needs, convert};
use crate::{
    auth::Role,
    events::{Event, EventType},
    journal::Journal,
};

/// Events that wait for a reader of `TailEvents`.
const TAIL_QUEUE: usize = 256;
/// Readers of `TailEvents` at once: each may let a whole queue wait.
const MAX_TAILS: usize = 64;

pub(super) struct EventRpc {
    journal: Journal,
    shutdown: CancellationToken,
    room: Arc<Semaphore>,
}

impl EventRpc {
    pub(super) fn new(journal: Journal, shutdown: CancellationToken) -> Self {
        Self {
            journal,
            shutdown,
            room: Arc::new(Semaphore::new(MAX_TAILS)),
        }
    }
}

/// What a reader wants to see; empty lists mean all.
struct Wanted {
    kinds: Vec<EventType>,
    stations: Vec<String>,
}

impl Wanted {
    fn contains(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && (self.stations.is_empty()
                || self.stations.iter().any(|id| id == event.station.as_str()))
    }
}

/// What the caller of each method needs.
pub(super) const NEEDS: Needs = &[
    ("ListEventTypes", Role::ReadOnly),
    ("TailEvents", Role::ReadOnly),
];

#[tonic::async_trait]
impl EventService for EventRpc {
    type TailEventsStream = BoxStream<v1::TailEventsResponse>;

    async fn list_event_types(
        &self,
        _: Request<v1::ListEventTypesRequest>,
    ) -> Result<Response<v1::ListEventTypesResponse>, Status> {
        let event_types = EventType::ALL.iter().map(|kind| v1::EventType {
            name: kind.name().to_owned(),
            direction: kind.direction().name().to_owned(),
            profile: kind.profile().name().to_owned(),
            group: kind.group().name().to_owned(),
        });
        let event_types = event_types.collect();
        Ok(Response::new(v1::ListEventTypesResponse { event_types }))
    }

    async fn tail_events(
        &self,
        request: Request<v1::TailEventsRequest>,
    ) -> Result<Response<Self::TailEventsStream>, Status> {
        let v1::TailEventsRequest {
            events,
            station_ids,
        } = request.into_inner();
        let kinds = events.iter().enumerate();
        let kinds = kinds.map(|(i, name)| convert::event_type(name, &format!("/events/{i}")));
        let wanted = Wanted {
            kinds: kinds.collect::<Result<_, _>>()?,
            stations: station_ids,
        };
        let place = Arc::clone(&self.room).try_acquire_owned();
        let place = place.map_err(|_| ApiError::TooMany {
            code: "too_many_tails",
            message: format!("{MAX_TAILS} readers tail the events already"),
        })?;
        let (sender, receiver) = mpsc::channel(TAIL_QUEUE);
        // Ends with its reader or with the daemon.
        let forwarding = forward(self.journal.clone(), wanted, sender, self.shutdown.clone());
        tokio::spawn(async move {
            forwarding.await;
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Sends what is journaled to one reader, and tells it what it missed by being slow.
async fn forward(
    journal: Journal,
    wanted: Wanted,
    reader: mpsc::Sender<Result<v1::TailEventsResponse, Status>>,
    shutdown: CancellationToken,
) {
    let mut tail = journal.tail();
    let mut missed = 0;
    loop {
        let received = tokio::select! {
            received = tail.recv() => received,
            () = reader.closed() => return,
            () = shutdown.cancelled() => return,
        };
        let event: Arc<Event> = match received {
            Ok((_, event)) => event,
            Err(RecvError::Lagged(count)) => {
                missed += count;
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        if wanted.contains(&event) {
            let event = Some(convert::event(&event));
            let response = v1::TailEventsResponse {
                event,
                missed: std::mem::take(&mut missed),
            };
            if reader.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}
