//! Many stations at once.

use std::time::Duration;

use fastrand::Rng;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    arrivals::ArrivalPattern,
    charger::Charger,
    clock::Clock,
    connection::Endpoint,
    outages::{Outages, Schedule},
    station::{Station, StationView},
    stats::{FleetStats, Observation},
};

/// Stations wait once this many of their observations have not been counted yet.
const MAX_UNREAD_OBSERVATIONS: usize = 1024;

/// Stations dial one after the other at first, as fast as this.
const DIALS_PER_SECOND: u32 = 500;

#[derive(Debug)]
pub struct Options {
    pub endpoint: Endpoint,
    pub ids: Vec<String>,
    pub connectors: u32,
    pub arrivals: ArrivalPattern,
    pub outages: Outages,
    pub clock: Clock,
    /// The same one makes the same cars come.
    pub seed: u64,
}

/// The stations that run; dropping it ends them at once.
#[derive(Debug)]
pub struct Fleet {
    stations: JoinSet<()>,
    observations: mpsc::Receiver<(usize, Observation)>,
    shut_down: watch::Sender<bool>,
    views: Vec<(String, watch::Receiver<StationView>)>,
    stats: FleetStats,
}

impl Fleet {
    /// Must be called within a runtime.
    pub fn start(options: Options) -> Self {
        let (sender, observations) = mpsc::channel(MAX_UNREAD_OBSERVATIONS);
        let (shut_down, shutting_down) = watch::channel(false);
        let mut rng = Rng::with_seed(options.seed);
        let mut stations = JoinSet::new();
        let mut views = Vec::new();
        let mut first_dial = Instant::now();
        for (index, id) in options.ids.into_iter().enumerate() {
            let (view, seen) = watch::channel(StationView::default());
            views.push((id.clone(), seen));
            let start = options.clock.start();
            let charger =
                Charger::new(&id, options.connectors, options.arrivals, rng.fork(), start);
            let station = Station {
                index,
                id,
                charger,
                endpoint: options.endpoint.clone(),
                clock: options.clock,
                outages: Schedule::new(options.outages, rng.fork(), start),
                rng: rng.fork(),
                observations: sender.clone(),
                view,
                shut_down: shutting_down.clone(),
            };
            stations.spawn(station.run(first_dial));
            first_dial += Duration::from_secs(1) / DIALS_PER_SECOND;
        }
        Self {
            stations,
            observations,
            shut_down,
            views,
            stats: FleetStats::default(),
        }
    }

    /// Waits for the next observation and counts it; false once all stations have ended.
    /// Cancel safe.
    pub async fn record_next(&mut self) -> bool {
        match self.observations.recv().await {
            Some((station, observation)) => {
                self.stats.record(station, observation);
                true
            }
            None => false,
        }
    }

    /// Tells all stations to end: sessions stop, and what is still to be sent is sent.
    pub fn shut_down(&self) {
        self.shut_down.send_replace(true);
    }

    /// Waits until all stations have ended, and counts meanwhile.
    pub async fn join(&mut self) {
        while self.record_next().await {}
        while self.stations.join_next().await.is_some() {}
    }

    pub const fn stats(&self) -> &FleetStats {
        &self.stats
    }

    /// What each station shows now.
    pub fn views(&self) -> impl Iterator<Item = (&str, StationView)> {
        let views = self.views.iter();
        views.map(|(id, view)| (id.as_str(), view.borrow().clone()))
    }

    pub fn online(&self) -> usize {
        let online = |(_, view): &&(String, watch::Receiver<StationView>)| view.borrow().online;
        self.views.iter().filter(online).count()
    }
}
