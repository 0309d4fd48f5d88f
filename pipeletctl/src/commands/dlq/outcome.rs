//! What became of dead letters, in a sentence and an exit status: all, some and none are told apart.

use std::fmt::Write as _;

use pipelet_proto::v1;
use serde::Serialize;

use crate::{error::ExitStatus, words::counted};

/// How a replay went.
#[derive(Debug, Serialize)]
pub(crate) struct ReplayOutcome {
    pub(super) total: u64,
    pub(super) replayed: u64,
    pub(super) delivered: u64,
    pub(super) failed: u64,
    /// Of those that failed: dead letters again.
    pub(super) dead: u64,
    pub(super) skipped: u64,
    /// Asked for by id, but not there.
    pub(super) missing: u64,
}

impl ReplayOutcome {
    pub(crate) fn new(message: &v1::ReplayResponse, asked: Option<u64>) -> Self {
        Self {
            total: message.total,
            replayed: message.replayed,
            delivered: message.delivered,
            failed: message.failed,
            dead: message.dead,
            skipped: message.skipped,
            missing: asked.unwrap_or(0).saturating_sub(message.total),
        }
    }

    /// Replayed, but the first attempt has not ended.
    pub(super) fn under_way(&self) -> u64 {
        self.replayed
            .saturating_sub(self.delivered)
            .saturating_sub(self.failed)
    }

    pub(crate) fn sentence(&self) -> String {
        if self.total == 0 && self.missing == 0 {
            return "no dead letters to replay".to_owned();
        }
        let mut text = format!(
            "replayed {} of {}",
            self.replayed,
            counted(self.total + self.missing, "dead letter", "dead letters")
        );
        for (count, what) in [
            (self.delivered, "delivered"),
            (self.under_way(), "under way"),
            (
                self.failed.saturating_sub(self.dead),
                "failed again, and will be retried",
            ),
            (self.dead, "failed again, and are dead letters as before"),
            (
                self.skipped,
                "skipped: gone, or the webhook is disabled or deleted",
            ),
            (self.missing, "not found"),
        ] {
            if count > 0 {
                let _ = write!(text, "; {count} {what}");
            }
        }
        text
    }

    pub(super) fn status(&self) -> ExitStatus {
        let good = self.delivered + self.under_way();
        let bad = self.failed + self.skipped + self.missing;
        match (good, bad) {
            (_, 0) => ExitStatus::Success,
            (0, _) if self.total == 0 => ExitStatus::NotFound,
            (0, _) => ExitStatus::Failed,
            (_, _) => ExitStatus::PartlyFailed,
        }
    }
}

/// How a purge went.
#[derive(Debug, Serialize)]
pub(super) struct PurgeOutcome {
    purged: u64,
    /// Asked for by id, but not there.
    missing: u64,
}

impl PurgeOutcome {
    pub(super) fn new(purged: u64, asked: Option<u64>) -> Self {
        Self {
            purged,
            missing: asked.unwrap_or(0).saturating_sub(purged),
        }
    }

    pub(super) fn sentence(&self) -> String {
        let purged = counted(self.purged, "dead letter", "dead letters");
        match self.missing {
            0 => format!("purged {purged}"),
            missing => format!("purged {purged}; {missing} not found"),
        }
    }

    pub(super) fn status(&self) -> ExitStatus {
        match (self.purged, self.missing) {
            (_, 0) => ExitStatus::Success,
            (0, _) => ExitStatus::NotFound,
            (_, _) => ExitStatus::PartlyFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replayed(numbers: [u64; 5], asked: Option<u64>) -> ReplayOutcome {
        all([numbers, [0; 5]].as_flattened(), asked)
    }

    fn all(numbers: &[u64], asked: Option<u64>) -> ReplayOutcome {
        let [total, replayed, delivered, failed, skipped, dead, ..] = *numbers else {
            panic!("six numbers and more");
        };
        let message = v1::ReplayResponse {
            total,
            replayed,
            delivered,
            failed,
            dead,
            skipped,
            done: true,
        };
        ReplayOutcome::new(&message, asked)
    }

    #[test]
    fn a_replay_ends_as_it_went() {
        use ExitStatus::{Failed, NotFound, PartlyFailed, Success};
        for (numbers, asked, status) in [
            ([0, 0, 0, 0, 0], None, Success),
            ([2, 2, 2, 0, 0], None, Success),
            ([2, 2, 1, 0, 0], Some(2), Success),
            ([2, 2, 1, 1, 0], None, PartlyFailed),
            ([2, 1, 1, 0, 1], None, PartlyFailed),
            ([1, 1, 1, 0, 0], Some(2), PartlyFailed),
            ([2, 2, 0, 2, 0], None, Failed),
            ([1, 0, 0, 0, 1], None, Failed),
            ([0, 0, 0, 0, 0], Some(1), NotFound),
        ] {
            assert_eq!(replayed(numbers, asked).status(), status, "{numbers:?}");
        }
    }

    #[test]
    fn a_replay_says_what_became_of_each() {
        assert_eq!(
            replayed([5, 4, 2, 1, 1], Some(6)).sentence(),
            "replayed 4 of 6 dead letters; 2 delivered; 1 under way; 1 failed again, and \
             will be retried; 1 skipped: gone, or the webhook is disabled or deleted; 1 not found"
        );
        assert_eq!(
            all(&[3, 3, 0, 3, 0, 2], None).sentence(),
            "replayed 3 of 3 dead letters; 1 failed again, and will be retried; 2 failed again, \
             and are dead letters as before"
        );
        assert_eq!(
            replayed([0; 5], None).sentence(),
            "no dead letters to replay"
        );
    }

    #[test]
    fn a_purge_ends_as_it_went() {
        use ExitStatus::{NotFound, PartlyFailed, Success};
        for (purged, asked, status) in [
            (0, None, Success),
            (9, None, Success),
            (2, Some(2), Success),
            (1, Some(2), PartlyFailed),
            (0, Some(1), NotFound),
        ] {
            assert_eq!(PurgeOutcome::new(purged, asked).status(), status);
        }
    }
}
