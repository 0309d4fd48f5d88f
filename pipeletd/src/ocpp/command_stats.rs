//! How the commands of each action ended since the daemon started, and how long answers took.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use pipelet_domain::events::{Direction, EventType};

use super::commands::{Answer, CommandError};
use crate::system::latencies::{Latencies, LatencySnapshot};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandOutcome {
    Answered,
    /// With a CALLERROR.
    Refused,
    /// It was sent, and no answer that can be read came in time, or before the connection ended.
    Unanswered,
    NotSent,
}

impl CommandOutcome {
    pub const ALL: [Self; 4] = [
        Self::Answered,
        Self::Refused,
        Self::Unanswered,
        Self::NotSent,
    ];

    /// For metrics; these never change.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::NotSent => "not_sent",
        }
    }

    const fn of(outcome: &Result<Answer, CommandError>) -> Self {
        match outcome {
            Ok(Answer::Result(_)) => Self::Answered,
            Ok(Answer::Error { .. }) => Self::Refused,
            Err(
                CommandError::TimedOut
                | CommandError::MalformedAnswer(_)
                | CommandError::ConnectionLost
                | CommandError::NotKept,
            ) => Self::Unanswered,
            Err(
                CommandError::NotACommand(_)
                | CommandError::Invalid(_)
                | CommandError::NoSuchStation(_)
                | CommandError::NotConnected(_)
                | CommandError::NotAccepted { .. }
                | CommandError::Busy(_)
                | CommandError::NoMessageId,
            ) => Self::NotSent,
        }
    }
}

#[derive(Debug)]
pub(super) struct CommandStats(Vec<(EventType, Counts)>);

#[derive(Debug, Default)]
struct Counts {
    outcomes: [AtomicU64; CommandOutcome::ALL.len()],
    latencies: Latencies,
}

/// The commands of one action.
#[derive(Debug, Clone)]
pub struct CommandCounts {
    pub action: EventType,
    outcomes: [u64; CommandOutcome::ALL.len()],
    /// Of those that were answered or refused, from the call to the answer.
    pub latencies: LatencySnapshot,
}

impl CommandCounts {
    /// What both count, of the same action.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.outcomes.iter_mut().zip(other.outcomes) {
            *count += more;
        }
        self.latencies = self.latencies.clone().plus(&other.latencies);
    }

    pub const fn of(&self, outcome: CommandOutcome) -> u64 {
        self.outcomes[outcome as usize]
    }
}

impl Default for CommandStats {
    fn default() -> Self {
        let commands = EventType::ALL.iter().filter(|kind| match kind.direction() {
            Direction::CsmsToStation | Direction::Both => true,
            Direction::StationToCsms | Direction::Connection => false,
        });
        Self(commands.map(|kind| (*kind, Counts::default())).collect())
    }
}

impl CommandStats {
    pub(super) fn ended(
        &self,
        action: EventType,
        outcome: &Result<Answer, CommandError>,
        took: Duration,
    ) {
        // What is no command of the catalogue's is none of an operator's figures.
        let Some((_, counts)) = self.0.iter().find(|(kind, _)| *kind == action) else {
            return;
        };
        let class = CommandOutcome::of(outcome);
        counts.outcomes[class as usize].fetch_add(1, Ordering::Relaxed);
        match class {
            CommandOutcome::Answered | CommandOutcome::Refused => counts.latencies.record(took),
            CommandOutcome::Unanswered | CommandOutcome::NotSent => {}
        }
    }

    pub(super) fn snapshot(&self) -> Vec<CommandCounts> {
        let counts = self.0.iter().map(|(action, counts)| CommandCounts {
            action: *action,
            outcomes: (counts.outcomes.each_ref()).map(|count| count.load(Ordering::Relaxed)),
            latencies: counts.latencies.snapshot(),
        });
        counts.collect()
    }
}
