//! The lease by which one connection speaks for a station, and what it may do with it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use pipelet_domain::{
    events::{Event, Seq, StationId},
    projection::StationState,
};
use tokio::{sync::SemaphorePermit, time::Instant};

use super::{Announced, ShardStations, Station};
use crate::ocpp::command_queue::CommandQueue;

/// A station, for whoever journals what happens on it. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::ocpp) struct StationHandle {
    pub(super) stations: ShardStations,
    pub(super) station: Arc<Station>,
    pub(super) id: StationId,
}

/// A connection's claim to speak for a station; it ends with the value.
#[derive(Debug)]
pub(in crate::ocpp) struct ConnectionLease {
    handle: StationHandle,
    generation: u64,
    queue: CommandQueue,
}

impl StationHandle {
    pub(in crate::ocpp) const fn station(&self) -> &StationId {
        &self.id
    }

    /// Waits until nothing else is amid a message of this station.
    pub(in crate::ocpp) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.station.turn.acquire().await.ok()
    }

    /// The connection that was cut when the daemon died, where its end has yet to be announced.
    /// Must be called within the station's turn.
    pub(in crate::ocpp) fn take_cut(&self) -> Option<Announced> {
        self.station
            .live()
            .announced
            .take_if(|before| before.is_cut())
    }

    /// Takes an event of this station into its state, without looking the station up again: the
    /// one thread that does this does it for everybody.
    pub(in crate::ocpp) fn apply(&self) -> impl FnOnce(Seq, &Event) + Send + use<> {
        let Self {
            stations, station, ..
        } = self.clone();
        move |seq, event| stations.apply_to(&station, seq, event)
    }
}

impl ConnectionLease {
    pub(super) const fn new(handle: StationHandle, generation: u64, queue: CommandQueue) -> Self {
        Self {
            handle,
            generation,
            queue,
        }
    }

    pub(in crate::ocpp) const fn handle(&self) -> &StationHandle {
        &self.handle
    }

    pub(in crate::ocpp) const fn station(&self) -> &StationId {
        &self.handle.id
    }

    /// Where others reach this connection.
    pub(in crate::ocpp) const fn queue(&self) -> &CommandQueue {
        &self.queue
    }

    /// Whether a newer connection has taken the lease.
    pub(in crate::ocpp) fn is_replaced(&self) -> bool {
        self.handle.station.live().generation != self.generation
    }

    /// Waits until no other connection of this station is amid a message.
    pub(in crate::ocpp) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.handle.turn().await
    }

    pub(in crate::ocpp) fn with_state<T>(&self, read: impl FnOnce(&StationState) -> T) -> T {
        read(&self.handle.station.live().state)
    }

    /// Any frame shows that the station is alive.
    pub(in crate::ocpp) fn seen(&self, now: Timestamp) {
        self.handle.station.live().last_frame_at = Some(now);
    }

    /// Notes that this connection is announced, and returns the one before it, where its end has
    /// yet to be announced. Must be called within the station's turn.
    pub(in crate::ocpp) fn announce(&self) -> Option<Announced> {
        let ours = Announced {
            generation: self.generation,
            since: Instant::now(),
            lasted_before: Duration::ZERO,
            cut_after: None,
        };
        self.handle.station.live().announced.replace(ours)
    }

    /// Notes that this connection is the one that seemed to be cut, whose end has yet to be announced.
    /// False where there is none. Must be called within the station's turn.
    pub(in crate::ocpp) fn resume(&self) -> bool {
        let mut live = self.handle.station.live();
        let before = live.announced.as_mut().filter(|before| before.is_cut());
        if let Some(cut) = before {
            cut.generation = self.generation;
            cut.lasted_before = cut.cut_after.take().unwrap_or_default();
            cut.since = Instant::now();
            return true;
        }
        false
    }

    /// Gives the lease up, and returns how long the connection lasted, where its end has yet to be
    /// announced. Must be called within the station's turn.
    pub(in crate::ocpp) fn release(&self) -> Option<Duration> {
        self.clear_holder();
        let mut live = self.handle.station.live();
        let ours = |announced: &mut Announced| announced.generation == self.generation;
        live.announced.take_if(ours).map(|ours| ours.lasted())
    }

    fn clear_holder(&self) {
        let mut live = self.handle.station.live();
        if live.generation == self.generation && live.holder.take().is_some() {
            self.handle
                .stations
                .0
                .connected
                .fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        self.clear_holder();
        // Not before: whatever the connection still had to journal of the station is journaled.
        self.handle.stations.rank(&mut self.handle.station.live());
        // No caller shall wait for a connection that is gone, however it went.
        self.queue.close();
    }
}
