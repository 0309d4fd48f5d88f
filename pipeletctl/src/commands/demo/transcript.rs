//! What the demo has shown so far: for people in lines, for programs as JSON.
//!
//! Invariant: the POSTs counted here were received, and the deliveries are as the daemon counts them.

use std::{fmt, io, time::Duration};

use serde::Serialize;

use super::{
    deliveries::DeliveryCounts,
    receiver::{Answer, Post},
    tour::Phase,
};
use crate::output::{Format, Printer};

/// POSTs of each phase that are shown in lines; the rest is counted.
const MAX_SHOWN_POSTS: u32 = 3;

#[derive(Debug)]
pub(super) struct Transcript {
    /// On a screen nothing is printed until it is gone.
    silent: bool,
    printed_steps: Vec<Step>,
    /// POSTs since the last step.
    posts_in_step: u32,
    counts: PostCounts,
    delivery_counts: DeliveryCounts,
}

#[derive(Debug, Clone, Serialize)]
struct Step {
    at_ms: u64,
    #[serde(rename = "step")]
    name: &'static str,
    text: &'static str,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct PostCounts {
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
    counts: PostCounts,
    books: DeliveryCounts,
    balanced: bool,
}

impl Transcript {
    pub(super) const fn new(silent: bool) -> Self {
        Self {
            silent,
            printed_steps: Vec::new(),
            posts_in_step: 0,
            counts: PostCounts {
                posts: 0,
                failures: 0,
                timeouts: 0,
                first_attempts: 0,
                retries: 0,
                dead_letters: 0,
                replayed: 0,
            },
            delivery_counts: DeliveryCounts {
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

    pub(super) const fn timeouts(&self) -> u64 {
        self.counts.timeouts
    }

    pub(super) const fn is_balanced(&self) -> bool {
        self.delivery_counts.is_balanced() && self.delivery_counts.pending == 0
    }

    /// This many deliveries got a new round, whose first attempts are no retries.
    pub(super) const fn replayed(&mut self, deliveries: u64) {
        self.counts.replayed += deliveries;
    }

    pub(super) fn update(&mut self, counts: DeliveryCounts) {
        self.delivery_counts = counts;
        self.counts.dead_letters = self.counts.dead_letters.max(counts.dead);
    }

    /// A phase begins.
    pub(super) fn begin_phase(
        &mut self,
        phase: Phase,
        now: Duration,
        printer: &Printer,
    ) -> io::Result<()> {
        self.posts_in_step = 0;
        let step = Step {
            at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            name: phase.name(),
            text: phase.headline(),
        };
        match printer.format() {
            Format::Table if !self.silent => {
                printer.text(&step.line())?;
                printer.text(&format!("          {}", phase.explanation()))?;
            }
            Format::Jsonl => printer.follow(&step, "")?,
            Format::Table | Format::Json | Format::Yaml => {}
        }
        self.printed_steps.push(step);
        Ok(())
    }

    /// A POST came.
    pub(super) fn record_post(
        &mut self,
        post: &Post,
        now: Duration,
        printer: &Printer,
    ) -> io::Result<()> {
        let counts = &mut self.counts;
        counts.posts += 1;
        counts.first_attempts += u64::from(post.attempt == 1);
        match post.answer {
            Answer::Failed => counts.failures += 1,
            Answer::None => counts.timeouts += 1,
            Answer::Taken | Answer::WrongSecret => {}
        }
        self.posts_in_step += 1;
        if self.silent || printer.format() != Format::Table || self.posts_in_step > MAX_SHOWN_POSTS
        {
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
    pub(super) fn finish(&self, printer: &Printer) -> io::Result<()> {
        let counts = self.counts.settled();
        let summary = Summary {
            steps: (printer.format() != Format::Jsonl).then_some(&self.printed_steps),
            counts,
            books: self.delivery_counts,
            balanced: self.is_balanced(),
        };
        if printer.format() != Format::Table {
            return printer.either(&summary, "");
        }
        if self.silent {
            // The screen is gone; its steps stay as lines.
            for step in &self.printed_steps {
                printer.text(&step.line())?;
            }
        }
        printer.text(&format!("\n{counts}\n{}", self.delivery_counts))
    }
}

impl PostCounts {
    /// At the end: each replay had its one POST, unless the demo was quit before.
    fn settled(self) -> Self {
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
impl fmt::Display for PostCounts {
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
