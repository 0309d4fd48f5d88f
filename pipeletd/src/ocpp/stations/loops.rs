//! Stations that can't settle: one that boots again and again, or whose connection never holds.
//!
//! Told from the events themselves, since the daemon's start.

use std::{collections::BTreeSet, sync::MutexGuard};

use jiff::{SignedDuration, Timestamp};
use pipelet_domain::events::{Event, EventType, StationId};
use serde::Deserialize;

use super::{Live, PoisonError, ShardStations};

/// What comes later than this after the one before does not belong to it.
const WITHIN: SignedDuration = SignedDuration::from_mins(2);
/// So many in a row are a loop.
const LEAST: u32 = 5;
/// A loop is over once nothing has come for so long.
const OVER_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// What a station does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopKind {
    Boots,
    Reconnects,
}

/// A station that can't settle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnstableStation {
    pub station: StationId,
    pub kind: LoopKind,
    pub count: u32,
    pub since: Timestamp,
    pub last_at: Timestamp,
    /// Why its last connection ended.
    pub last_end_reason: Option<Box<str>>,
}

impl LoopKind {
    /// A word that never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boots => "boot_loop",
            Self::Reconnects => "reconnect_loop",
        }
    }

    const fn of(kind: EventType) -> Option<Self> {
        match kind {
            EventType::BootNotification => Some(Self::Boots),
            EventType::StationConnected => Some(Self::Reconnects),
            _ => None,
        }
    }
}

/// The latest of what may be a loop, and those before it in a row.
#[derive(Debug, Clone, Copy)]
struct Streak {
    count: u32,
    since: Timestamp,
    last_at: Timestamp,
}

/// Of one station.
#[derive(Debug, Default)]
pub(super) struct Streaks {
    /// By [`LoopKind`].
    streaks: [Option<Streak>; 2],
    last_end_reason: Option<Box<str>>,
}

impl Streaks {
    /// Takes in an event; tells whether a loop has come of it just now.
    pub(super) fn apply(this: &mut Option<Box<Self>>, event: &Event) -> bool {
        if event.kind == EventType::StationDisconnected
            && let Some(this) = this
        {
            this.last_end_reason = end_reason(event);
        }
        let Some(kind) = LoopKind::of(event.kind) else {
            return false;
        };
        let streak = &mut this.get_or_insert_default().streaks[kind as usize];
        let new = Streak {
            count: 0,
            since: event.time,
            last_at: event.time,
        };
        let before = streak.filter(|before| {
            let gap = event.time.duration_since(before.last_at);
            (SignedDuration::ZERO..=WITHIN).contains(&gap)
        });
        let before = before.unwrap_or(new);
        *streak = Some(Streak {
            count: before.count + 1,
            last_at: event.time,
            ..before
        });
        before.count + 1 == LEAST
    }

    fn unstable(&self, station: &StationId, now: Timestamp) -> Option<UnstableStation> {
        // Who boots in a loop mostly connects in one, too.
        let kinds = [LoopKind::Boots, LoopKind::Reconnects].into_iter();
        let mut found = kinds.filter_map(|kind| {
            let streak = self.streaks[kind as usize]?;
            let lasts = streak.count >= LEAST && now.duration_since(streak.last_at) < OVER_AFTER;
            lasts.then(|| UnstableStation {
                station: station.clone(),
                kind,
                count: streak.count,
                since: streak.since,
                last_at: streak.last_at,
                last_end_reason: self.last_end_reason.clone(),
            })
        });
        found.next()
    }
}

fn end_reason(event: &Event) -> Option<Box<str>> {
    #[derive(Deserialize)]
    struct Ended {
        reason: Box<str>,
    }

    let ended = serde_json::from_slice::<Ended>(event.payload.as_bytes());
    ended.ok().map(|ended| ended.reason)
}

impl Live {
    fn unstable(&self, now: Timestamp) -> Option<UnstableStation> {
        self.streaks.as_ref()?.unstable(&self.state.id, now)
    }
}

impl ShardStations {
    /// Those that can't settle now.
    pub(in crate::ocpp) fn unstable(&self, now: Timestamp) -> Vec<UnstableStation> {
        let ids: Vec<_> = self.unstable_ids().iter().cloned().collect();
        let found = ids.into_iter().filter_map(|id| {
            let found = self
                .find(&id)
                .and_then(|station| station.live().unstable(now));
            if found.is_none() {
                self.unstable_ids().remove(&id);
            }
            found
        });
        found.collect()
    }

    pub(super) fn unstable_ids(&self) -> MutexGuard<'_, BTreeSet<StationId>> {
        let unstable = self.0.unstable.lock();
        unstable.unwrap_or_else(PoisonError::into_inner)
    }
}
