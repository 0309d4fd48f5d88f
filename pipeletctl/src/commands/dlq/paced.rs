//! A replay with a pace: one webhook after the other, batch by batch, each batch awaited.
//!
//! Invariant: the pace lives here and not in the daemon, so it ends with this command; what a
//! batch holds is durable and goes on there, and what was in no batch is a dead letter still.
//! That is why the same command goes on where this one ended, whatever ended it.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
};

use indicatif::ProgressBar;
use pipelet_proto::v1;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};
use tonic::Code;

use super::{
    outcome::ReplayOutcome,
    selection::{PAGE, Which},
};
use crate::{
    cli::Pace,
    client::{Client, paging::Pages},
    error::{Error, ExitStatus},
    output::Printer,
    system::rate::Rate,
    words::counted,
};

/// Of the latest outcomes, so many are looked at, and so many failures are too many.
const LOOKED_AT: usize = 10;
const TOO_MANY: usize = 3;
/// A batch where no rate is given: as many as the daemon takes at once.
const MAX_BATCH: u64 = 200;

pub(super) async fn replay(
    which: Which,
    pace: Pace,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let (selected, missing) = select(which, client).await?;
    let bar = printer.progress("replaying");
    let mut told = Told {
        printer,
        outcome: PacedOutcome::of(&selected, missing),
        ended: false,
    };
    bar.set_length(told.outcome.replay.total);
    for (webhook, ids) in selected {
        let mut ramp = Ramp::new(pace);
        let mut ids = ids.as_slice();
        let mut next = Instant::now();
        while !ids.is_empty() && !ramp.has_stopped() {
            sleep_until(next).await;
            let (batch, rest) = ids.split_at(ramp.size().min(ids.len()));
            if let Some(rate) = pace.rate {
                next = Instant::now() + rate.duration_of(batch.len());
            }
            send(batch, &mut ramp, &mut told.outcome, &bar, client).await?;
            ids = rest;
        }
        if ramp.has_stopped() {
            told.outcome.stopped.push(webhook);
        }
    }
    drop(bar);
    told.ended = true;
    let outcome = &told.outcome;
    printer.done(outcome, &outcome.sentence())?;
    Ok(outcome.status())
}

/// What is meant, by webhook: what fails from here on is not among it. Also how many were named
/// that are not there.
async fn select(which: Which, client: &Client) -> Result<(BTreeMap<u64, Vec<u64>>, u64), Error> {
    let mut selected: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut take = |failed: v1::FailedDelivery| {
        let ids = selected.entry(failed.webhook_id).or_default();
        ids.push(failed.id);
    };
    let mut missing = 0;
    let mut service = client.failed_deliveries();
    match which {
        Which::Ids(ids) => {
            for id in ids {
                let request = v1::GetFailedDeliveryRequest { id };
                match service.get_failed_delivery(request).await {
                    Ok(answer) => answer
                        .into_inner()
                        .failed_delivery
                        .into_iter()
                        .for_each(&mut take),
                    Err(status) if status.code() == Code::NotFound => missing += 1,
                    Err(status) => return Err(status.into()),
                }
            }
        }
        Which::Filter(filter) => {
            let mut pages = Pages::new(None).with_page_size(PAGE);
            while let Some(failed) = client.next_dead_letters(&filter, &mut pages).await? {
                failed.into_iter().for_each(&mut take);
            }
        }
    }
    Ok((selected, missing))
}

/// Replays one batch and waits for its first attempts.
async fn send(
    batch: &[u64],
    ramp: &mut Ramp,
    outcome: &mut PacedOutcome,
    bar: &ProgressBar,
    client: &Client,
) -> Result<(), Error> {
    let ids = v1::FailedDeliveryIds {
        ids: batch.to_vec(),
    };
    let request = v1::ReplayRequest {
        which: Some(v1::replay_request::Which::Ids(ids)),
        unwatched: false,
    };
    let mut stream = match client.failed_deliveries().replay(request).await {
        Ok(answer) => answer.into_inner(),
        // Another caller was faster.
        Err(status) if status.code() == Code::NotFound => {
            outcome.replay.skipped += 1;
            outcome.left -= 1;
            return Ok(());
        }
        // One alone is refused with the reason, where among others it is skipped: its webhook is
        // disabled or deleted.
        Err(status) if status.code() == Code::FailedPrecondition && batch.len() == 1 => {
            outcome.replay.skipped += 1;
            outcome.left -= 1;
            ramp.ended();
            return Ok(());
        }
        Err(status) => return Err(status.into()),
    };
    let mut seen = v1::ReplayResponse::default();
    while !seen.done {
        let message = stream.message().await?.ok_or(Error::StreamEnded)?;
        let replay = &mut outcome.replay;
        let (delivered, failed) = (
            message.delivered - seen.delivered,
            message.failed - seen.failed,
        );
        ramp.went(delivered, failed);
        replay.delivered += delivered;
        replay.failed += failed;
        replay.dead += message.dead - seen.dead;
        replay.replayed += message.replayed - seen.replayed;
        replay.skipped += message.skipped - seen.skipped;
        outcome.left = replay.total - replay.replayed - replay.skipped;
        bar.set_position(replay.delivered + replay.failed + replay.skipped);
        seen = message;
    }
    ramp.ended();
    Ok(())
}

/// How many to send next, and whether to send any: pure.
#[derive(Debug)]
struct Ramp {
    size: u64,
    most: u64,
    /// The latest outcomes, the oldest first: whether each was delivered.
    latest: VecDeque<bool>,
    /// The next outcome decides alone.
    canary: bool,
    canary_failed: bool,
}

impl Ramp {
    fn new(Pace { rate, canary }: Pace) -> Self {
        let most = rate.map_or(MAX_BATCH, Rate::per_second);
        Self {
            size: if canary { 1 } else { most },
            most,
            latest: VecDeque::with_capacity(LOOKED_AT),
            canary,
            canary_failed: false,
        }
    }

    fn size(&self) -> usize {
        usize::try_from(self.size).unwrap_or(usize::MAX)
    }

    fn went(&mut self, delivered: u64, failed: u64) {
        let outcomes = (0..delivered)
            .map(|_| true)
            .chain((0..failed).map(|_| false));
        for outcome in outcomes {
            if self.latest.len() == LOOKED_AT {
                self.latest.pop_front();
            }
            self.latest.push_back(outcome);
        }
    }

    /// A batch has ended: the next one is twice as large.
    fn ended(&mut self) {
        if std::mem::take(&mut self.canary) {
            // One that has not ended in time says nothing good either.
            self.canary_failed = self.latest.back() != Some(&true);
        }
        self.size = (self.size * 2).min(self.most);
    }

    fn has_stopped(&self) -> bool {
        let failures = self.latest.iter().filter(|delivered| !**delivered).count();
        self.canary_failed || failures >= TOO_MANY
    }
}

/// How it went, and what is left of it.
#[derive(Debug, Serialize)]
struct PacedOutcome {
    #[serde(flatten)]
    replay: ReplayOutcome,
    /// Dead letters still.
    left: u64,
    /// The webhooks whose failures returned.
    stopped: Vec<u64>,
}

impl PacedOutcome {
    fn of(selected: &BTreeMap<u64, Vec<u64>>, missing: u64) -> Self {
        let total = selected.values().map(|ids| ids.len() as u64).sum();
        Self {
            replay: ReplayOutcome {
                total,
                replayed: 0,
                delivered: 0,
                failed: 0,
                dead: 0,
                skipped: 0,
                missing,
            },
            left: total,
            stopped: Vec::new(),
        }
    }

    fn sentence(&self) -> String {
        let mut text = self.replay.sentence();
        for webhook in &self.stopped {
            let _ = write!(
                text,
                "; webhook {webhook} fails again, so it was stopped there"
            );
        }
        if self.left > 0 {
            let left = counted(self.left, "dead letter is", "dead letters are");
            let _ = write!(
                text,
                "; {left} left, and the same command goes on with that"
            );
        }
        text
    }

    fn status(&self) -> ExitStatus {
        if self.stopped.is_empty() {
            self.replay.status()
        } else {
            ExitStatus::PartlyFailed
        }
    }
}

/// Says how far it came where it does not come to its end, for which Ctrl-C is enough.
struct Told<'a> {
    printer: &'a Printer,
    outcome: PacedOutcome,
    ended: bool,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.printer
                .note(&format!("interrupted: {}", self.outcome.sentence()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: Option<&str>, canary: bool) -> Pace {
        let rate = rate.map(|rate| rate.parse().unwrap());
        Pace { rate, canary }
    }

    #[test]
    fn a_ramp_begins_with_one_and_ends_at_the_rate() {
        for (rate, canary, expected) in [
            (Some("6/s"), true, [1, 2, 4, 6, 6]),
            (Some("6/s"), false, [6, 6, 6, 6, 6]),
            (Some("30/m"), true, [1, 1, 1, 1, 1]),
            (None, true, [1, 2, 4, 8, 16]),
        ] {
            let mut ramp = Ramp::new(pace(rate, canary));
            let sizes = expected.map(|_| {
                let size = ramp.size;
                ramp.went(size, 0);
                ramp.ended();
                size
            });
            assert_eq!(sizes, expected, "{rate:?} {canary}");
            assert!(!ramp.has_stopped());
        }
    }

    #[test]
    fn it_stops_when_failures_return() {
        for (canary, batches, stopped) in [
            (true, &[(0, 1)][..], true),
            // The canary's outcome did not come in time.
            (true, &[(0, 0)], true),
            (true, &[(1, 0), (0, 2)], false),
            (true, &[(1, 0), (0, 3)], true),
            (false, &[(0, 2), (8, 0), (0, 1)], false),
            (false, &[(0, 2), (7, 0), (0, 1)], true),
            (false, &[(0, 0)], false),
        ] {
            let mut ramp = Ramp::new(pace(Some("5/s"), canary));
            for (delivered, failed) in batches {
                ramp.went(*delivered, *failed);
                ramp.ended();
            }
            assert_eq!(ramp.has_stopped(), stopped, "{canary} {batches:?}");
        }
    }

    #[test]
    fn it_says_what_is_left() {
        let selected = BTreeMap::from([(1, vec![1, 2]), (7, vec![3, 4, 5])]);
        let mut outcome = PacedOutcome::of(&selected, 0);
        outcome.replay.replayed = 3;
        outcome.replay.delivered = 2;
        outcome.replay.failed = 1;
        outcome.left = 2;
        outcome.stopped = vec![7];
        assert_eq!(
            outcome.sentence(),
            "replayed 3 of 5 dead letters; 2 delivered; 1 failed again, and will be \
             retried; webhook 7 fails again, so it was stopped there; 2 dead letters are left, \
             and the same command goes on with that"
        );
        assert_eq!(outcome.status(), ExitStatus::PartlyFailed);
    }
}
