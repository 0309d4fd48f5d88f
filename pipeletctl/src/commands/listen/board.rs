//! What came and what the application made of it, for the screen.
//!
//! Pure, and bounded: the oldest rows go. It knows no terminal.

use std::{collections::VecDeque, fmt};

use crossterm::event::KeyCode;
use pipelet_proto::v1;

use super::lanes::Job;
use crate::{forward::Outcome, view::Forwarded, words::counted};

const MAX_ROWS: usize = 1000;
/// Lines at once.
const SCROLL: u16 = 5;
const MARKS: &str = "✓ answered 2xx   ✗ another answer, sent no more   … no answer: tried again";

#[derive(Debug)]
pub(super) struct Board {
    pub(super) target: String,
    /// A secret that was made for this time.
    pub(super) made: Option<String>,
    /// The latest last.
    pub(super) rows: VecDeque<Row>,
    /// None follows the latest.
    selected: Option<usize>,
    /// How many lines of the selected one's answer and payload are above what is seen.
    pub(super) scrolled: u16,
    /// Events, each at one place, and all POSTs.
    pub(super) counts: Counts,
    /// Why the latest POST got no answer, if it got none.
    pub(super) gone: Option<String>,
    /// The last remark, until a key is pressed.
    pub(super) note: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) waiting: u64,
    pub(super) answered_well: u64,
    pub(super) refused: u64,
    pub(super) posts: u64,
}

/// Where an event stands, by its latest attempt.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// On its way, or it will be tried again.
    #[default]
    Waiting,
    AnsweredWell,
    /// By the application, or nobody answered in time.
    Refused,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) event: v1::Event,
    pub(super) fate: Fate,
    /// None until the first attempt ended.
    pub(super) last: Option<Forwarded>,
    /// What came of that, whole.
    pub(super) answer: String,
    attempts: u32,
}

impl Board {
    pub(super) fn new(target: String, made: Option<String>) -> Self {
        Self {
            target,
            made,
            rows: VecDeque::new(),
            selected: None,
            scrolled: 0,
            counts: Counts::default(),
            gone: None,
            note: String::new(),
        }
    }

    pub(super) fn came(&mut self, event: v1::Event) {
        if self.follows() {
            self.scrolled = 0;
        }
        if self.rows.len() == MAX_ROWS {
            self.rows.pop_front();
            self.selected = self.selected.map(|at| at.saturating_sub(1));
        }
        self.counts.waiting += 1;
        self.rows.push_back(Row {
            event,
            fate: Fate::Waiting,
            last: None,
            answer: String::new(),
            attempts: 1,
        });
    }

    /// `settles`: no other attempt follows by itself. An event that still waits for its own does so
    /// whatever came of one that somebody wished for.
    pub(super) fn attempted(&mut self, told: Forwarded, outcome: &Outcome, settles: bool) {
        self.counts.posts += 1;
        self.gone = match outcome {
            Outcome::Answered(..) => None,
            none => Some(none.to_string()),
        };
        let row = self.rows.iter_mut().rev();
        let Some(row) = { row }.find(|row| row.event.id == told.id) else {
            return;
        };
        row.attempts = row.attempts.max(told.attempt);
        row.answer = outcome.to_string();
        let fate = match told.ok {
            true => Fate::AnsweredWell,
            false if !settles && row.fate == Fate::Waiting => Fate::Waiting,
            false => Fate::Refused,
        };
        *self.counts.at(row.fate) -= 1;
        *self.counts.at(fate) += 1;
        row.fate = fate;
        row.last = Some(told);
    }

    /// The place of the selected row.
    pub(super) fn selected(&self) -> Option<usize> {
        let latest = self.rows.len().checked_sub(1)?;
        Some(self.selected.map_or(latest, |at| at.min(latest)))
    }

    pub(super) const fn follows(&self) -> bool {
        self.selected.is_none()
    }

    pub(super) fn pressed(&mut self, key: KeyCode) -> Option<Job> {
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
            self.answered_well,
            self.refused,
            self.waiting,
            counted(self.posts, "POST", "POSTs"),
        )
    }
}

impl Counts {
    pub(super) const fn events(&self) -> u64 {
        self.waiting + self.answered_well + self.refused
    }

    const fn at(&mut self, fate: Fate) -> &mut u64 {
        match fate {
            Fate::Waiting => &mut self.waiting,
            Fate::AnsweredWell => &mut self.answered_well,
            Fate::Refused => &mut self.refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::forward::Attempted;

    fn board(events: usize) -> Board {
        let mut board = Board::new("http://localhost:3000".to_owned(), None);
        for number in 0..events {
            board.came(v1::Event {
                id: format!("evt_{number}"),
                ..v1::Event::default()
            });
        }
        board
    }

    #[test]
    fn the_latest_is_selected_until_another_one_is() {
        let mut board = board(3);
        assert_eq!(board.selected(), Some(2));
        board.pressed(KeyCode::Up);
        board.came(v1::Event::default());
        assert_eq!((board.selected(), board.follows()), (Some(1), false));
        for _ in 0..5 {
            board.pressed(KeyCode::Down);
        }
        assert_eq!((board.selected(), board.follows()), (Some(3), true));
        for _ in 0..9 {
            board.pressed(KeyCode::Up);
        }
        assert_eq!(board.selected(), Some(0));
        assert!(
            Board::new(String::new(), None)
                .pressed(KeyCode::Char('r'))
                .is_none()
        );
    }

    #[test]
    fn the_selected_one_is_sent_once_more() {
        let mut board = board(2);
        board.pressed(KeyCode::Up);
        let again = |board: &mut Board| {
            let job = board.pressed(KeyCode::Char('r')).unwrap();
            (job.event.id, job.attempt)
        };
        assert_eq!(again(&mut board), ("evt_0".to_owned(), 2));
        assert_eq!(again(&mut board), ("evt_0".to_owned(), 3));
    }

    #[test]
    fn one_that_waits_does_so_whatever_came_of_a_wish() {
        let mut board = board(1);
        let mut attempted = |outcome, settles| {
            let attempted = Attempted {
                outcome,
                duration: Duration::ZERO,
            };
            let event = board.rows[0].event.clone();
            let told = Forwarded::new(&event, 1, &attempted);
            board.attempted(told, &attempted.outcome, settles);
            board.rows[0].fate
        };
        let away = || Outcome::NoAnswer("connection refused".to_owned());
        let answered = |status| Outcome::Answered(status, String::new());
        for (outcome, settles, fate) in [
            (away(), false, Fate::Waiting),
            (answered(500), false, Fate::Waiting),
            (answered(204), true, Fate::AnsweredWell),
            (answered(500), false, Fate::Refused),
            (away(), false, Fate::Refused),
        ] {
            assert_eq!(attempted(outcome, settles), fate);
        }
        assert_eq!(board.counts.events(), 1);
    }

    #[test]
    fn rows_are_bounded_and_the_selection_stays_with_its_event() {
        let mut board = board(MAX_ROWS);
        board.pressed(KeyCode::Up);
        let id = |board: &Board| board.rows[board.selected().unwrap()].event.id.clone();
        let before = id(&board);
        board.came(v1::Event::default());
        assert_eq!(id(&board), before);
        assert_eq!(board.rows.len(), MAX_ROWS);
    }
}
