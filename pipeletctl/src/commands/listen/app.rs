//! The state of the screen: events, and how the application answered them.
//!
//! Pure, and bounded: the oldest rows go. It knows no terminal.

use std::{collections::VecDeque, fmt};

use crossterm::event::KeyCode;
use pipelet_proto::v1;

use super::per_station::Job;
use crate::{forward::Outcome, view::Forwarded, words::counted};

const MAX_ROWS: usize = 1000;
/// Lines at once.
const SCROLL: u16 = 5;
const MARKS: &str = "✓ answered 2xx   ✗ another answer, sent no more   … no answer: tried again";

#[derive(Debug)]
pub(super) struct App {
    pub(super) target: String,
    /// A secret that was made for this time.
    pub(super) generated_secret: Option<String>,
    /// The latest last.
    pub(super) rows: VecDeque<Row>,
    /// None follows the latest.
    selected: Option<usize>,
    /// How many lines of the selected one's answer and payload are above what is seen.
    pub(super) scrolled: u16,
    /// Events, each at one place, and all POSTs.
    pub(super) counts: Counts,
    /// Why the latest POST got no answer, if it got none.
    pub(super) unreachable: Option<String>,
    /// The last remark, until a key is pressed.
    pub(super) note: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) waiting: u64,
    pub(super) delivered: u64,
    pub(super) rejected: u64,
    pub(super) posts: u64,
}

/// Where an event stands, by its latest attempt.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForwardStatus {
    /// On its way, or it will be tried again.
    #[default]
    Pending,
    Delivered,
    /// By the application, or not answered in time.
    Rejected,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) event: v1::Event,
    pub(super) status: ForwardStatus,
    /// None until the first attempt ended.
    pub(super) last: Option<Forwarded>,
    /// What came of that, whole.
    pub(super) answer: String,
    attempts: u32,
}

impl App {
    pub(super) fn new(target: String, generated_secret: Option<String>) -> Self {
        Self {
            target,
            generated_secret,
            rows: VecDeque::new(),
            selected: None,
            scrolled: 0,
            counts: Counts::default(),
            unreachable: None,
            note: String::new(),
        }
    }

    pub(super) fn received(&mut self, event: v1::Event) {
        if self.is_following() {
            self.scrolled = 0;
        }
        if self.rows.len() == MAX_ROWS {
            self.rows.pop_front();
            self.selected = self.selected.map(|at| at.saturating_sub(1));
        }
        self.counts.waiting += 1;
        self.rows.push_back(Row {
            event,
            status: ForwardStatus::Pending,
            last: None,
            answer: String::new(),
            attempts: 1,
        });
    }

    /// `settles`: no other attempt follows by itself. An event that still waits for its own does so
    /// whatever came of one that a key asked for.
    pub(super) fn attempted(&mut self, forwarded: Forwarded, outcome: &Outcome, settles: bool) {
        self.counts.posts += 1;
        self.unreachable = match outcome {
            Outcome::Answered(..) => None,
            none => Some(none.to_string()),
        };
        let row = self.rows.iter_mut().rev();
        let Some(row) = { row }.find(|row| row.event.id == forwarded.id) else {
            return;
        };
        row.attempts = row.attempts.max(forwarded.attempt);
        row.answer = outcome.to_string();
        let status = match forwarded.ok {
            true => ForwardStatus::Delivered,
            false if !settles && row.status == ForwardStatus::Pending => ForwardStatus::Pending,
            false => ForwardStatus::Rejected,
        };
        *self.counts.at(row.status) -= 1;
        *self.counts.at(status) += 1;
        row.status = status;
        row.last = Some(forwarded);
    }

    /// The place of the selected row.
    pub(super) fn selected(&self) -> Option<usize> {
        let latest = self.rows.len().checked_sub(1)?;
        Some(self.selected.map_or(latest, |at| at.min(latest)))
    }

    pub(super) const fn is_following(&self) -> bool {
        self.selected.is_none()
    }

    pub(super) fn handle_key(&mut self, key: KeyCode) -> Option<Job> {
        self.note.clear();
        if key == KeyCode::Char('?') {
            MARKS.clone_into(&mut self.note);
        }
        let at = self.selected()?;
        match key {
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(SCROLL),
            KeyCode::PageDown => self.scrolled = self.scrolled.saturating_add(SCROLL),
            _ => self.select(key, at),
        }
        if key != KeyCode::Char('r') {
            return None;
        }
        let row = &mut self.rows[at];
        row.attempts = row.attempts.saturating_add(1);
        let v1::Event {
            event, station_id, ..
        } = &row.event;
        self.note = format!("sending once more: {event} of {station_id}");
        Some(Job {
            event: row.event.clone(),
            attempt: row.attempts,
        })
    }

    fn select(&mut self, key: KeyCode, at: usize) {
        match key {
            KeyCode::Up | KeyCode::Char('k') => self.selected = Some(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => {
                self.selected = Some(at + 1).filter(|at| at + 1 < self.rows.len());
            }
            KeyCode::Home => self.selected = Some(0),
            KeyCode::End | KeyCode::Esc => self.selected = None,
            _ => return,
        }
        self.scrolled = 0;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} answered well, {} refused, {} waiting; {}",
            counted(self.events(), "event", "events"),
            self.delivered,
            self.rejected,
            self.waiting,
            counted(self.posts, "POST", "POSTs"),
        )
    }
}

impl Counts {
    pub(super) const fn events(&self) -> u64 {
        self.waiting + self.delivered + self.rejected
    }

    const fn at(&mut self, status: ForwardStatus) -> &mut u64 {
        match status {
            ForwardStatus::Pending => &mut self.waiting,
            ForwardStatus::Delivered => &mut self.delivered,
            ForwardStatus::Rejected => &mut self.rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::forward::Attempted;

    fn app(events: usize) -> App {
        let mut app = App::new("http://localhost:3000".to_owned(), None);
        for number in 0..events {
            app.received(v1::Event {
                id: format!("evt_{number}"),
                ..v1::Event::default()
            });
        }
        app
    }

    #[test]
    fn the_latest_is_selected_until_another_one_is() {
        let mut app = app(3);
        assert_eq!(app.selected(), Some(2));
        app.handle_key(KeyCode::Up);
        app.received(v1::Event::default());
        assert_eq!((app.selected(), app.is_following()), (Some(1), false));
        for _ in 0..5 {
            app.handle_key(KeyCode::Down);
        }
        assert_eq!((app.selected(), app.is_following()), (Some(3), true));
        for _ in 0..9 {
            app.handle_key(KeyCode::Up);
        }
        assert_eq!(app.selected(), Some(0));
        assert!(
            App::new(String::new(), None)
                .handle_key(KeyCode::Char('r'))
                .is_none()
        );
    }

    #[test]
    fn the_selected_one_is_sent_once_more() {
        let mut app = app(2);
        app.handle_key(KeyCode::Up);
        let again = |app: &mut App| {
            let job = app.handle_key(KeyCode::Char('r')).unwrap();
            (job.event.id, job.attempt)
        };
        assert_eq!(again(&mut app), ("evt_0".to_owned(), 2));
        assert_eq!(again(&mut app), ("evt_0".to_owned(), 3));
    }

    #[test]
    fn one_that_waits_does_so_whatever_came_of_a_wish() {
        let mut app = app(1);
        let mut attempted = |outcome, settles| {
            let attempted = Attempted {
                outcome,
                duration: Duration::ZERO,
            };
            let event = app.rows[0].event.clone();
            let forwarded = Forwarded::new(&event, 1, &attempted);
            app.attempted(forwarded, &attempted.outcome, settles);
            app.rows[0].status
        };
        let away = || Outcome::NoAnswer("connection refused".to_owned());
        let answered = |status| Outcome::Answered(status, String::new());
        for (outcome, settles, status) in [
            (away(), false, ForwardStatus::Pending),
            (answered(500), false, ForwardStatus::Pending),
            (answered(204), true, ForwardStatus::Delivered),
            (answered(500), false, ForwardStatus::Rejected),
            (away(), false, ForwardStatus::Rejected),
        ] {
            assert_eq!(attempted(outcome, settles), status);
        }
        assert_eq!(app.counts.events(), 1);
    }

    #[test]
    fn rows_are_bounded_and_the_selection_stays_with_its_event() {
        let mut app = app(MAX_ROWS);
        app.handle_key(KeyCode::Up);
        let id = |app: &App| app.rows[app.selected().unwrap()].event.id.clone();
        let before = id(&app);
        app.received(v1::Event::default());
        assert_eq!(id(&app), before);
        assert_eq!(app.rows.len(), MAX_ROWS);
    }
}
