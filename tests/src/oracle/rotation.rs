//! The signing secret of one webhook, which is rotated again and again: every delivery can be
//! verified by a receiver that changes over with each answer, and by one that does with the next.

use std::time::Instant;

use super::Registrations;

/// Replaced secrets that still sign, at most.
const STILL_SIGN: u32 = 3;

/// It begins with version 0.
#[derive(Debug, Default)]
pub struct Rotation {
    /// The version that was last asked for.
    asked: u32,
    /// The version that was last answered.
    answered: u32,
    /// What it was before, until when at most, as long as something signed with it may be underway.
    replaced: Vec<(u32, Instant)>,
    /// The one before all of these.
    before: u32,
}

impl Rotation {
    /// Somebody is about to rotate to the version that is returned.
    pub const fn asks(&mut self) -> u32 {
        self.asked += 1;
        self.asked
    }

    /// That was done.
    pub fn answered(&mut self, now: Instant) {
        self.replaced.push((self.answered, now));
        self.answered = self.asked;
    }

    /// A version and the one before: what arrives now is signed with both of one of these pairs.
    /// None where that is uncertain, because more rotations were not answered than secrets still
    /// sign.
    pub fn pairs(&mut self, now: Instant) -> Option<Vec<[u32; 2]>> {
        while let Some(&(version, since)) = self.replaced.first()
            && since + Registrations::SETTLES < now
        {
            self.before = version;
            self.replaced.remove(0);
        }
        let replaced = self.replaced.iter().map(|(version, _)| *version);
        let versions = [self.before].into_iter().chain(replaced);
        let versions: Vec<_> = versions.chain([self.answered]).collect();
        let asked_then = versions.iter().skip(2).chain([&self.asked]);
        let mut is_certain = versions.iter().zip(asked_then);
        is_certain
            .all(|(before, asked)| asked - before <= STILL_SIGN)
            .then(|| versions.windows(2).map(|pair| [pair[1], pair[0]]).collect())
    }
}
