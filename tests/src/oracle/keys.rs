//! Which API keys let their callers in: what was answered holds, and of what was not, either all or
//! nothing.

use std::time::{Duration, Instant};

use super::Fault;

/// A key that was made: the creation was answered.
#[derive(Debug, Clone)]
pub struct CreatedKey {
    pub id: u64,
    pub key: String,
    /// It expires so long after it was made; that was between these moments.
    pub life: Option<Duration>,
    pub asked: Instant,
    pub answered: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Revocation {
    None,
    /// Not answered: it may have been done.
    Asked,
    Answered,
}

#[derive(Debug)]
struct TrackedKey {
    made: CreatedKey,
    revocation: Revocation,
}

/// The keys of a daemon. One change at a time is asked for, each key by itself.
#[derive(Debug, Default)]
pub struct Keys(Vec<TrackedKey>);

impl Keys {
    /// Beyond that the oldest of those that were revoked are forgotten.
    const MOST_REVOKED: usize = 4;

    pub fn made(&mut self, made: CreatedKey) {
        let revocation = Revocation::None;
        self.0.push(TrackedKey { made, revocation });
    }

    /// The keys that were never asked to be revoked.
    pub fn kept(&self) -> Vec<CreatedKey> {
        let kept = |known: &&TrackedKey| known.revocation == Revocation::None;
        let kept = self.0.iter().filter(kept);
        kept.map(|known| known.made.clone()).collect()
    }

    pub fn all(&self) -> Vec<CreatedKey> {
        self.0.iter().map(|known| known.made.clone()).collect()
    }

    /// Somebody is about to revoke the key.
    pub fn revokes(&mut self, id: u64) {
        self.set(id, Revocation::Asked);
    }

    /// That was done.
    pub fn revoked(&mut self, id: u64) {
        self.set(id, Revocation::Answered);
        let revoked = |known: &TrackedKey| known.revocation == Revocation::Answered;
        if self.0.iter().filter(|known| revoked(known)).count() > Self::MOST_REVOKED {
            let oldest = self.0.iter().position(revoked);
            self.0.remove(oldest.expect("there are some"));
        }
    }

    /// Judges whether the key let its caller in, in a call between these moments. After a start that
    /// ends the uncertainty about a revocation that was not answered.
    pub fn called(&mut self, id: u64, let_in: bool, from: Instant, to: Instant) -> Vec<Fault> {
        let Some(known) = self.0.iter_mut().find(|known| known.made.id == id) else {
            return Vec::new();
        };
        let CreatedKey {
            life,
            asked,
            answered,
            ..
        } = known.made;
        let must_have_ended = life.is_some_and(|life| answered + life < from);
        let may_have_ended = life.is_some_and(|life| asked + life <= to);
        let right = match known.revocation {
            Revocation::Answered => !let_in,
            Revocation::Asked => !(let_in && must_have_ended),
            Revocation::None if let_in => !must_have_ended,
            Revocation::None => may_have_ended,
        };
        if known.revocation == Revocation::Asked && !may_have_ended {
            known.revocation = if let_in {
                Revocation::None
            } else {
                Revocation::Answered
            };
        }
        let fault = Fault::Key { id, let_in };
        if right { Vec::new() } else { vec![fault] }
    }

    fn set(&mut self, id: u64, revocation: Revocation) {
        if let Some(known) = self.0.iter_mut().find(|known| known.made.id == id) {
            known.revocation = revocation;
        }
    }
}
