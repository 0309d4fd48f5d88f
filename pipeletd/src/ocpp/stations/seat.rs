//! Where a station's connection has its place, and what it may do there.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use jiff::Timestamp;
use tokio::sync::SemaphorePermit;

use super::{Left, Station, Stations};
use crate::{
    events::{Event, Seq, StationId},
    ocpp::desk::Desk,
    projection::StationState,
};

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

    /// Notes that the connection was told to be open; false where a newer one has the seat.
    pub(in crate::ocpp) fn open(&self) -> bool {
        let mut live = self.place.station.live();
        let ours = live.generation == self.generation;
        if ours && let Some(seat) = &mut live.seat {
            seat.opened = true;
            live.told = true;
        }
        drop(live);
        self.place.station.settled.notify_waiters();
        ours
    }

    /// Leaves the seat, and tells what that means. Where it is [`Left::Unsettled`], it can be left
    /// again to learn more.
    pub(in crate::ocpp) fn leave(&self) -> Left {
        self.vacate();
        let mut live = self.place.station.live();
        match live.seat.as_ref().map(|newer| newer.opened) {
            Some(false) => Left::Unsettled,
            None if std::mem::take(&mut live.told) => Left::Gone,
            Some(true) | None => Left::Quietly,
        }
    }

    /// Waits until no newer connection is about to open.
    pub(in crate::ocpp) async fn settled(&self) {
        loop {
            let mut settled = pin!(self.place.station.settled.notified());
            // Before the look, so that nothing is missed between the two.
            settled.as_mut().enable();
            if !self.is_contested() {
                return;
            }
            settled.await;
        }
    }

    fn is_contested(&self) -> bool {
        let live = self.place.station.live();
        let newer = live.generation != self.generation;
        newer && live.seat.as_ref().is_some_and(|seat| !seat.opened)
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
        drop(live);
        self.place.station.settled.notify_waiters();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.vacate();
        // Nobody shall wait for a connection that is gone, however it went.
        self.desk.close();
    }
}
