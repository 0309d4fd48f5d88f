//! What the demo shows, phase by phase.
//!
//! Pure: the progress and the time come as values. Invariant: a phase ends only once what it shows
//! has happened, so on a slow machine the tour takes longer, and is never false.

use std::time::Duration;

use super::{deliveries::DeliveryCounts, receiver::ReceiverMode};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Starting,
    Booting,
    Charging,
    Failing,
    TimingOut,
    /// There are dead letters, which wait for a replay.
    DeadLettered,
    Replaying,
    Recovered,
    Closing,
    Done,
}

/// What has happened by a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) posts: u64,
    /// Connectors that charge.
    pub(super) charging: usize,
    /// POSTs that were left without an answer.
    pub(super) timeouts: u64,
    pub(super) delivery_counts: DeliveryCounts,
    /// Whether all stations have ended.
    pub(super) fleet_ended: bool,
}

#[derive(Debug)]
pub(super) struct Tour {
    phase: Phase,
    began: Duration,
    /// Whether it goes on by itself, without a key.
    unattended: bool,
    /// The key was pressed.
    replay: bool,
}

const CHARGERS: usize = 3;

impl Tour {
    pub(super) const fn new(unattended: bool) -> Self {
        Self {
            phase: Phase::Starting,
            began: Duration::ZERO,
            unattended,
            replay: false,
        }
    }

    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    /// The dead letters are to be sent again.
    pub(super) fn replay(&mut self) {
        self.replay = self.phase == Phase::DeadLettered;
    }

    /// The phase that begins now, where one does. `now` counts from the tour's beginning.
    pub(super) fn advance(&mut self, progress: &Progress, now: Duration) -> Option<Phase> {
        let long = |seconds| now.saturating_sub(self.began) >= Duration::from_secs(seconds);
        let Progress {
            delivery_counts, ..
        } = progress;
        let (over, next) = match self.phase {
            Phase::Starting => (progress.posts > 0, Phase::Booting),
            Phase::Booting => (progress.charging > 0 && long(2), Phase::Charging),
            Phase::Charging => {
                let all = progress.charging == CHARGERS;
                (all && long(6) || long(10), Phase::Failing)
            }
            Phase::Failing => (delivery_counts.retrying > 0 && long(3), Phase::TimingOut),
            Phase::TimingOut => (
                delivery_counts.dead > 0 && progress.timeouts > 0,
                Phase::DeadLettered,
            ),
            Phase::DeadLettered => {
                let by_itself =
                    self.unattended && (delivery_counts.retrying == 0 && long(2) || long(6));
                (self.replay || by_itself, Phase::Replaying)
            }
            Phase::Replaying => (delivery_counts.dead == 0 && long(1), Phase::Recovered),
            Phase::Recovered => (delivery_counts.retrying == 0 && long(5), Phase::Closing),
            Phase::Closing => (
                progress.fleet_ended && delivery_counts.pending == 0,
                Phase::Done,
            ),
            Phase::Done => (false, Phase::Done),
        };
        if !over {
            return None;
        }
        self.phase = next;
        self.began = now;
        Some(next)
    }
}

impl Phase {
    /// For showing how far the tour is.
    pub(super) const MILESTONES: [(Self, &'static str); 6] = [
        (Self::Booting, "boot"),
        (Self::Charging, "charging"),
        (Self::Failing, "failures"),
        (Self::DeadLettered, "dead letters"),
        (Self::Replaying, "replay"),
        (Self::Closing, "books"),
    ];

    /// The name that programs know it by.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Starting => "start",
            Self::Booting => "boot",
            Self::Charging => "charging",
            Self::Failing => "failure",
            Self::TimingOut => "silence",
            Self::DeadLettered => "dead_letter",
            Self::Replaying => "replay",
            Self::Recovered => "delivered",
            Self::Closing => "closing",
            Self::Done => "end",
        }
    }

    /// What the receiver does meanwhile, after this many POSTs that it left without an answer.
    pub(super) const fn mode(self, timeouts: u64) -> ReceiverMode {
        match self {
            // Each of these holds its station's POSTs up, which is not worth watching for long.
            Self::TimingOut if timeouts < 3 => ReceiverMode::Hanging,
            Self::Failing | Self::TimingOut => ReceiverMode::Failing,
            Self::Starting
            | Self::Booting
            | Self::Charging
            | Self::DeadLettered
            | Self::Replaying
            | Self::Recovered
            | Self::Closing
            | Self::Done => ReceiverMode::Healthy,
        }
    }

    /// What happens, in one sentence.
    pub(super) const fn headline(self) -> &'static str {
        match self {
            Self::Starting => "A daemon starts, with a store of its own.",
            Self::Booting => "Three chargers connect and boot.",
            Self::Charging => "Cars are charging.",
            Self::Failing => "The receiver breaks: it answers 500.",
            Self::TimingOut => "Now the receiver does not answer at all.",
            Self::DeadLettered => {
                "The receiver is back; what failed too often is a dead letter now."
            }
            Self::Replaying => "The dead letters are sent again.",
            Self::Recovered => "Every dead letter is delivered.",
            Self::Closing => "The chargers end their sessions, and the books are closed.",
            Self::Done => "Everything that was received is accounted for.",
        }
    }

    /// Why that is no reason to worry, in one or two more.
    pub(super) const fn explanation(self) -> &'static str {
        match self {
            Self::Starting => "It listens on free ports, and leaves nothing behind.",
            Self::Booting => {
                "Each message is on disk before its charger is answered, and then POSTed to the \
                 receiver."
            }
            Self::Charging => {
                "Meter values arrive as they happen, each with the secret that the receiver checks."
            }
            Self::Failing => {
                "Nothing is lost: each delivery is tried again after 1 s, 1 s and 2 s (by default \
                 30 s to 6 h). The chargers notice nothing."
            }
            Self::TimingOut => {
                "An attempt has 1 s here (by default 10 s), and then counts as failed."
            }
            Self::DeadLettered => {
                "It is kept with all of its attempts, until somebody sends it again."
            }
            Self::Replaying => "They get a new round of attempts, under the same webhook-id.",
            Self::Recovered => {
                "Whatever arrived meanwhile went on arriving; nothing had to wait for them."
            }
            Self::Closing => "received = delivered + pending + dead, at any time.",
            Self::Done => "The daemon and its store are gone again.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each phase's earliest end, with what has to happen for it.
    #[test]
    fn it_is_told_to_its_end() {
        let delivery_counts = |retrying, dead, pending| DeliveryCounts {
            pending,
            dead,
            retrying,
            ..DeliveryCounts::default()
        };
        let mut progress = Progress::default();
        let mut tour = Tour::new(true);
        let mut now = Duration::ZERO;
        for (change, seconds, next) in [
            (
                Box::new(|progress: &mut Progress| progress.posts = 1)
                    as Box<dyn Fn(&mut Progress)>,
                0,
                Phase::Booting,
            ),
            (
                Box::new(|progress| progress.charging = 3),
                2,
                Phase::Charging,
            ),
            (Box::new(|_| {}), 6, Phase::Failing),
            (
                Box::new(move |progress| progress.delivery_counts = delivery_counts(5, 0, 5)),
                3,
                Phase::TimingOut,
            ),
            (
                Box::new(move |progress| {
                    progress.timeouts = 1;
                    progress.delivery_counts = delivery_counts(3, 2, 3);
                }),
                0,
                Phase::DeadLettered,
            ),
            (
                Box::new(move |progress| progress.delivery_counts = delivery_counts(0, 2, 0)),
                2,
                Phase::Replaying,
            ),
            (
                Box::new(move |progress| progress.delivery_counts = delivery_counts(0, 0, 1)),
                1,
                Phase::Recovered,
            ),
            (Box::new(|_| {}), 5, Phase::Closing),
            (
                Box::new(move |progress| {
                    progress.fleet_ended = true;
                    progress.delivery_counts = delivery_counts(0, 0, 0);
                }),
                0,
                Phase::Done,
            ),
        ] {
            if seconds > 0 {
                change(&mut progress);
                let too_early = now + Duration::from_millis(seconds * 1_000 - 1);
                assert_eq!(tour.advance(&progress, too_early), None, "{next:?}");
            } else {
                assert_eq!(
                    tour.advance(&progress, now),
                    None,
                    "{next:?} was not seen yet"
                );
                change(&mut progress);
            }
            now += Duration::from_secs(seconds);
            assert_eq!(tour.advance(&progress, now), Some(next));
        }
        assert_eq!(tour.advance(&progress, now * 2), None);
        assert!(now < Duration::from_secs(25), "a person has to read, too");
    }

    #[test]
    fn with_somebody_there_dead_letters_wait_for_the_key() {
        let mut tour = Tour::new(false);
        tour.replay();
        tour.phase = Phase::DeadLettered;
        let progress = Progress::default();
        assert_eq!(tour.advance(&progress, Duration::from_mins(10)), None);
        tour.replay();
        let next = tour.advance(&progress, Duration::from_mins(11));
        assert_eq!(next, Some(Phase::Replaying));
    }
}
