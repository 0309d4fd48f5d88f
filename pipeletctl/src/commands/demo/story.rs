//! What the demo tells, chapter by chapter.
//!
//! Pure: what is seen and how late it is come as values. Invariant: a chapter ends only once what
//! it tells of has been seen, so on a slow machine the story is longer, and never false.

use std::time::Duration;

use super::{books::Books, receiver::Mood};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chapter {
    Starting,
    Booting,
    Charging,
    Failing,
    Silent,
    /// There are dead letters, and somebody has to say what becomes of them.
    Kept,
    Replaying,
    Recovered,
    Closing,
    Over,
}

/// What there is to be seen at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) posts: u64,
    /// Connectors that charge.
    pub(super) charging: usize,
    /// POSTs that were left without an answer.
    pub(super) silences: u64,
    pub(super) books: Books,
    /// Whether all stations have said good-bye.
    pub(super) fleet_ended: bool,
}

#[derive(Debug)]
pub(super) struct Story {
    chapter: Chapter,
    began: Duration,
    /// Whether it turns its own pages, as nobody is there to press a key.
    unattended: bool,
    /// The key was pressed.
    replay: bool,
}

const CHARGERS: usize = 3;

impl Story {
    pub(super) const fn new(unattended: bool) -> Self {
        Self {
            chapter: Chapter::Starting,
            began: Duration::ZERO,
            unattended,
            replay: false,
        }
    }

    pub(super) const fn chapter(&self) -> Chapter {
        self.chapter
    }

    /// Somebody wants the dead letters sent again.
    pub(super) fn replay(&mut self) {
        self.replay = self.chapter == Chapter::Kept;
    }

    /// The chapter that begins now, where one does. `now` counts from the story's beginning.
    pub(super) fn turn(&mut self, seen: &Seen, now: Duration) -> Option<Chapter> {
        let long = |seconds| now.saturating_sub(self.began) >= Duration::from_secs(seconds);
        let Seen { books, .. } = seen;
        let (over, next) = match self.chapter {
            Chapter::Starting => (seen.posts > 0, Chapter::Booting),
            Chapter::Booting => (seen.charging > 0 && long(2), Chapter::Charging),
            Chapter::Charging => {
                let all = seen.charging == CHARGERS;
                (all && long(6) || long(10), Chapter::Failing)
            }
            Chapter::Failing => (books.retrying > 0 && long(3), Chapter::Silent),
            Chapter::Silent => (books.dead > 0 && seen.silences > 0, Chapter::Kept),
            Chapter::Kept => {
                let by_itself = self.unattended && (books.retrying == 0 && long(2) || long(6));
                (self.replay || by_itself, Chapter::Replaying)
            }
            Chapter::Replaying => (books.dead == 0 && long(1), Chapter::Recovered),
            Chapter::Recovered => (books.retrying == 0 && long(5), Chapter::Closing),
            Chapter::Closing => (seen.fleet_ended && books.pending == 0, Chapter::Over),
            Chapter::Over => (false, Chapter::Over),
        };
        if !over {
            return None;
        }
        self.chapter = next;
        self.began = now;
        Some(next)
    }
}

impl Chapter {
    /// All that the reader is led through, for showing how far the story is.
    pub(super) const STATIONS: [(Self, &'static str); 6] = [
        (Self::Booting, "boot"),
        (Self::Charging, "charging"),
        (Self::Failing, "failures"),
        (Self::Kept, "dead letters"),
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
            Self::Silent => "silence",
            Self::Kept => "dead_letter",
            Self::Replaying => "replay",
            Self::Recovered => "delivered",
            Self::Closing => "closing",
            Self::Over => "end",
        }
    }

    /// How the receiver feels meanwhile, after so many POSTs that it left without an answer.
    pub(super) const fn mood(self, silences: u64) -> Mood {
        match self {
            // Each silence holds its station's POSTs up, and nobody wants to watch that for long.
            Self::Silent if silences < 3 => Mood::Silent,
            Self::Failing | Self::Silent => Mood::Failing,
            Self::Starting
            | Self::Booting
            | Self::Charging
            | Self::Kept
            | Self::Replaying
            | Self::Recovered
            | Self::Closing
            | Self::Over => Mood::Well,
        }
    }

    /// What happens, in one sentence.
    pub(super) const fn headline(self) -> &'static str {
        match self {
            Self::Starting => "A daemon starts, with a store of its own.",
            Self::Booting => "Three chargers connect and boot.",
            Self::Charging => "Cars are charging.",
            Self::Failing => "The receiver breaks: it answers 500.",
            Self::Silent => "Now the receiver does not answer at all.",
            Self::Kept => "The receiver is back; what failed too often is a dead letter now.",
            Self::Replaying => "The dead letters are sent again.",
            Self::Recovered => "Every dead letter is delivered.",
            Self::Closing => "The chargers end their sessions, and the books are closed.",
            Self::Over => "Everything that was received is accounted for.",
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
            Self::Silent => "An attempt has 1 s here (by default 10 s), and then counts as failed.",
            Self::Kept => "It is kept with all of its attempts, until somebody sends it again.",
            Self::Replaying => "They get a new round of attempts, under the same webhook-id.",
            Self::Recovered => {
                "Whatever arrived meanwhile went on arriving; nothing had to wait for them."
            }
            Self::Closing => "received = delivered + pending + dead, at any time.",
            Self::Over => "The daemon and its store are gone again.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each chapter's earliest end, with what has to be seen for it.
    #[test]
    fn it_is_told_to_its_end() {
        let books = |retrying, dead, pending| Books {
            pending,
            dead,
            retrying,
            ..Books::default()
        };
        let mut seen = Seen::default();
        let mut story = Story::new(true);
        let mut now = Duration::ZERO;
        for (change, seconds, next) in [
            (
                Box::new(|seen: &mut Seen| seen.posts = 1) as Box<dyn Fn(&mut Seen)>,
                0,
                Chapter::Booting,
            ),
            (Box::new(|seen| seen.charging = 3), 2, Chapter::Charging),
            (Box::new(|_| {}), 6, Chapter::Failing),
            (
                Box::new(move |seen| seen.books = books(5, 0, 5)),
                3,
                Chapter::Silent,
            ),
            (
                Box::new(move |seen| {
                    seen.silences = 1;
                    seen.books = books(3, 2, 3);
                }),
                0,
                Chapter::Kept,
            ),
            (
                Box::new(move |seen| seen.books = books(0, 2, 0)),
                2,
                Chapter::Replaying,
            ),
            (
                Box::new(move |seen| seen.books = books(0, 0, 1)),
                1,
                Chapter::Recovered,
            ),
            (Box::new(|_| {}), 5, Chapter::Closing),
            (
                Box::new(move |seen| {
                    seen.fleet_ended = true;
                    seen.books = books(0, 0, 0);
                }),
                0,
                Chapter::Over,
            ),
        ] {
            if seconds > 0 {
                change(&mut seen);
                let too_early = now + Duration::from_millis(seconds * 1_000 - 1);
                assert_eq!(story.turn(&seen, too_early), None, "{next:?}");
            } else {
                assert_eq!(story.turn(&seen, now), None, "{next:?} was not seen yet");
                change(&mut seen);
            }
            now += Duration::from_secs(seconds);
            assert_eq!(story.turn(&seen, now), Some(next));
        }
        assert_eq!(story.turn(&seen, now * 2), None);
        assert!(now < Duration::from_secs(25), "a person has to read, too");
    }

    #[test]
    fn with_somebody_there_dead_letters_wait_for_the_key() {
        let mut story = Story::new(false);
        story.replay();
        story.chapter = Chapter::Kept;
        let seen = Seen::default();
        assert_eq!(story.turn(&seen, Duration::from_mins(10)), None);
        story.replay();
        let next = story.turn(&seen, Duration::from_mins(11));
        assert_eq!(next, Some(Chapter::Replaying));
    }
}
