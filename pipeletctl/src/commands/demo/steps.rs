//! The story as it was told so far: for people in lines, for programs as JSON.
//!
//! Invariant: what is counted here was seen, and the books are the daemon's own.

use std::{fmt, io, time::Duration};

use serde::Serialize;

use super::{
    books::Books,
    receiver::{Answer, Post},
    story::Chapter,
};
use crate::output::{Format, Printer};

/// POSTs of each chapter that are shown in lines; the rest is counted.
const SHOWN: u32 = 3;

#[derive(Debug)]
pub(super) struct Steps {
    /// On a screen nothing is printed until it is gone.
    silent: bool,
    told: Vec<Step>,
    /// POSTs since the last step.
    since: u32,
    counts: Counts,
    books: Books,
}

#[derive(Debug, Clone, Serialize)]
struct Step {
    at_ms: u64,
    #[serde(rename = "step")]
    name: &'static str,
    text: &'static str,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Counts {
    posts: u64,
    /// POSTs that were answered with 500.
    failures: u64,
    /// POSTs that were not answered.
    timeouts: u64,
    /// POSTs that were the first of their delivery.
    first_attempts: u64,
    /// All others but the replays.
    retries: u64,
    dead_letters: u64,
    replayed: u64,
}

#[derive(Debug, Serialize)]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<&'a [Step]>,
    #[serde(flatten)]
    counts: Counts,
    books: Books,
    balanced: bool,
}

impl Steps {
    pub(super) const fn new(silent: bool) -> Self {
        Self {
            silent,
            told: Vec::new(),
            since: 0,
            counts: Counts {
                posts: 0,
                failures: 0,
                timeouts: 0,
                first_attempts: 0,
                retries: 0,
                dead_letters: 0,
                replayed: 0,
            },
            books: Books {
                received: 0,
                delivered: 0,
                pending: 0,
                dead: 0,
                cancelled: 0,
                retrying: 0,
            },
        }
    }

    pub(super) const fn posts(&self) -> u64 {
        self.counts.posts
    }

    pub(super) const fn silences(&self) -> u64 {
        self.counts.timeouts
    }

    pub(super) const fn books_balance(&self) -> bool {
        self.books.balance() && self.books.pending == 0
    }

    /// So many deliveries got a new round, whose first attempts are no retries.
    pub(super) const fn replayed(&mut self, deliveries: u64) {
        self.counts.replayed += deliveries;
    }

    pub(super) fn see(&mut self, books: Books) {
        self.books = books;
        self.counts.dead_letters = self.counts.dead_letters.max(books.dead);
    }

    /// A chapter begins.
    pub(super) fn tell(
        &mut self,
        chapter: Chapter,
        now: Duration,
        printer: &Printer,
    ) -> io::Result<()> {
        self.since = 0;
        let step = Step {
            at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            name: chapter.name(),
            text: chapter.headline(),
        };
        match printer.format() {
            Format::Table if !self.silent => {
                printer.text(&step.line())?;
                printer.text(&format!("          {}", chapter.explanation()))?;
            }
            Format::Jsonl => printer.follow(&step, "")?,
            Format::Table | Format::Json | Format::Yaml => {}
        }
        self.told.push(step);
        Ok(())
    }

    /// A POST came.
    pub(super) fn take(&mut self, post: &Post, now: Duration, printer: &Printer) -> io::Result<()> {
        let counts = &mut self.counts;
        counts.posts += 1;
        counts.first_attempts += u64::from(post.attempt == 1);
        match post.answer {
            Answer::Failed => counts.failures += 1,
            Answer::None => counts.timeouts += 1,
            Answer::Taken | Answer::WrongSecret => {}
        }
        self.since += 1;
        if self.silent || printer.format() != Format::Table || self.since > SHOWN {
            return Ok(());
        }
        printer.text(&format!(
            "{:7.1} s    POST {} of {}, attempt {}: {}",
            now.as_secs_f32(),
            post.event,
            post.station,
            post.attempt,
            post.answer.as_str(),
        ))
    }

    /// Says how it ended.
    pub(super) fn close(&self, printer: &Printer) -> io::Result<()> {
        let counts = self.counts.closed();
        let summary = Summary {
            steps: (printer.format() != Format::Jsonl).then_some(&self.told),
            counts,
            books: self.books,
            balanced: self.books_balance(),
        };
        if printer.format() != Format::Table {
            return printer.either(&summary, "");
        }
        if self.silent {
            // The screen is gone; what it told stays.
            for step in &self.told {
                printer.text(&step.line())?;
            }
        }
        printer.text(&format!("\n{counts}\n{}", self.books))
    }
}

impl Counts {
    /// At the end: each replay had its one POST, unless somebody could not wait for it.
    fn closed(self) -> Self {
        let later = self.posts - self.first_attempts;
        let replayed = self.replayed.min(later);
        Self {
            retries: later - replayed,
            replayed,
            ..self
        }
    }
}

/// The POSTs, added up in two ways.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            posts,
            failures,
            timeouts,
            first_attempts,
            retries,
            replayed,
            ..
        } = self;
        let taken = posts.saturating_sub(failures + timeouts);
        writeln!(
            f,
            "{posts} POSTs = {first_attempts} first attempts + {retries} retries + {replayed} \
             replays"
        )?;
        write!(
            f,
            "{posts} POSTs = {taken} taken + {failures} answered with 500 + {timeouts} not answered"
        )
    }
}

impl Step {
    fn line(&self) -> String {
        let tenths = self.at_ms / 100;
        format!("{:>5}.{} s  {}", tenths / 10, tenths % 10, self.text)
    }
}
