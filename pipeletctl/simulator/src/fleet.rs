//! Many stations at once.

use std::time::Duration;

use fastrand::Rng;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    charger::Charger,
    habits::Habits,
    line::Endpoint,
    outages::{Outages, Schedule},
    pace::Pace,
    station::{Station, StationView},
    tally::{Fact, Tally},
};

/// How long stations wait for who counts what they do.
const FACTS: usize = 1024;

/// Stations dial one after the other at first, as fast as this.
const DIALS_PER_SECOND: u32 = 500;

#[derive(Debug)]
pub struct Options {
    pub endpoint: Endpoint,
    pub ids: Vec<String>,
    pub connectors: u32,
    pub habits: Habits,
    pub outages: Outages,
    pub pace: Pace,
    /// The same one makes the same cars come.
    pub seed: u64,
}

/// The stations that run; dropping it ends them at once.
#[derive(Debug)]
pub struct Fleet {
    stations: JoinSet<()>,
    facts: mpsc::Receiver<(usize, Fact)>,
    finish: watch::Sender<bool>,
    views: Vec<(String, watch::Receiver<StationView>)>,
    tally: Tally,
}

impl Fleet {
    /// Must be called within a runtime.
    pub fn start(options: Options) -> Self {
        let (sender, facts) = mpsc::channel(FACTS);
        let (finish, finished) = watch::channel(false);
        let mut rng = Rng::with_seed(options.seed);
        let mut stations = JoinSet::new();
        let mut views = Vec::new();
        let mut first_dial = Instant::now();
        for (index, id) in options.ids.into_iter().enumerate() {
            let (view, seen) = watch::channel(StationView::default());
            views.push((id.clone(), seen));
            let start = options.pace.start();
            let charger = Charger::new(&id, options.connectors, options.habits, rng.fork(), start);
            let station = Station {
                index,
                id,
                charger,
                endpoint: options.endpoint.clone(),
                pace: options.pace,
                outages: Schedule::new(options.outages, rng.fork(), start),
                rng: rng.fork(),
                facts: sender.clone(),
                view,
                finish: finished.clone(),
            };
            stations.spawn(station.run(first_dial));
            first_dial += Duration::from_secs(1) / DIALS_PER_SECOND;
        }
        Self {
            stations,
            facts,
            finish,
            views,
            tally: Tally::default(),
        }
    }

    /// Counts until the next thing has happened; false once all stations have ended. Safe to be
    /// dropped and asked again.
    pub async fn go_on(&mut self) -> bool {
        match self.facts.recv().await {
            Some((station, fact)) => {
                self.tally.count(station, fact);
                true
            }
            None => false,
        }
    }

    /// Tells all stations to end: sessions stop, what is left to say is said.
    pub fn finish(&self) {
        self.finish.send_replace(true);
    }

    /// Counts until all have ended.
    pub async fn ended(&mut self) {
        while self.go_on().await {}
        while self.stations.join_next().await.is_some() {}
    }

    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What is to be seen of each station now.
    pub fn views(&self) -> impl Iterator<Item = (&str, StationView)> {
        let views = self.views.iter();
        views.map(|(id, view)| (id.as_str(), view.borrow().clone()))
    }

    pub fn online(&self) -> usize {
        let online = |(_, view): &&(String, watch::Receiver<StationView>)| view.borrow().online;
        self.views.iter().filter(online).count()
    }
}
