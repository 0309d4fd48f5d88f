//! Where a station's connection has its place, and what it may do there.

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

use super::{Station, Stations, Told};
use crate::ocpp::desk::Desk;

/// A station, for whoever journals what happens on it. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::ocpp) struct Place {
    pub(super) stations: Stations,
    pub(super) station: Arc<Station>,
    pub(super) id: StationId,
}

/// A connection's claim to speak for a station; it ends with the value.
#[derive(Debug)]
pub(in crate::ocpp) struct Seat {
    place: Place,
    generation: u64,
    desk: Desk,
}

impl Place {
    pub(in crate::ocpp) const fn station(&self) -> &StationId {
        &self.id
    }

    /// Waits until nobody else is amid a message of this station.
    pub(in crate::ocpp) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.station.turn.acquire().await.ok()
    }

    /// The connection that was cut when the daemon died, where its end has yet to be told. Must be
    /// called within the station's turn.
    pub(in crate::ocpp) fn take_cut(&self) -> Option<Told> {
        self.station.live().told.take_if(|told| told.is_cut())
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

impl Seat {
    pub(super) const fn new(place: Place, generation: u64, desk: Desk) -> Self {
        Self {
            place,
            generation,
            desk,
        }
    }

    pub(in crate::ocpp) const fn place(&self) -> &Place {
        &self.place
    }

    pub(in crate::ocpp) const fn station(&self) -> &StationId {
        &self.place.id
    }

    /// Where others reach this connection.
    pub(in crate::ocpp) const fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Whether a newer connection has taken the seat.
    pub(in crate::ocpp) fn is_replaced(&self) -> bool {
        self.place.station.live().generation != self.generation
    }

    /// Waits until no other connection of this station is amid a message.
    pub(in crate::ocpp) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.place.turn().await
    }

    pub(in crate::ocpp) fn look<T>(&self, at: impl FnOnce(&StationState) -> T) -> T {
        at(&self.place.station.live().state)
    }

    /// Any frame shows that the station is alive.
    pub(in crate::ocpp) fn seen(&self, now: Timestamp) {
        self.place.station.live().last_frame_at = Some(now);
    }

    /// Notes that this connection is told of, and gives the one before it, where its end has yet to
    /// be told. Must be called within the station's turn.
    pub(in crate::ocpp) fn open(&self) -> Option<Told> {
        let ours = Told {
            generation: self.generation,
            since: Instant::now(),
            cut_after: None,
        };
        self.place.station.live().told.replace(ours)
    }

    /// Leaves the seat, and gives how long the connection lasted, where its end has yet to be told.
    /// Must be called within the station's turn.
    pub(in crate::ocpp) fn leave(&self) -> Option<Duration> {
        self.vacate();
        let mut live = self.place.station.live();
        let ours = live.told.take_if(|told| told.generation == self.generation);
        ours.map(|told| told.lasted())
    }

    fn vacate(&self) {
        let mut live = self.place.station.live();
        if live.generation == self.generation && live.seat.take().is_some() {
            self.place
                .stations
                .0
                .connected
                .fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.vacate();
        // Not before: whatever the connection still had to tell of the station is told.
        self.place.stations.rank(&mut self.place.station.live());
        // Nobody shall wait for a connection that is gone, however it went.
        self.desk.close();
    }
}
