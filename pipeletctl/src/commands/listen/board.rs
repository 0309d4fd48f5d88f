//! What came and what the application made of it, for the screen.
//!
//! Pure, and bounded: the oldest rows go. It knows no terminal.

use std::collections::VecDeque;

use crossterm::event::KeyCode;
use pipelet_proto::v1;

use super::lanes::Job;
use crate::{forward::Outcome, view::Forwarded};

const MAX_ROWS: usize = 1000;

#[derive(Debug)]
pub(super) struct Board {
    pub(super) target: String,
    /// A secret that was made for this time.
    pub(super) made: Option<String>,
    /// The latest last.
    pub(super) rows: VecDeque<Row>,
    /// None follows the latest.
    selected: Option<usize>,
    pub(super) answered_well: u64,
    pub(super) failed: u64,
    /// The last remark.
    pub(super) note: String,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) event: v1::Event,
    /// None while it waits or is on its way.
    pub(super) last: Option<Forwarded>,
    /// What the application said to it.
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
            answered_well: 0,
            failed: 0,
            note: String::new(),
        }
    }

    pub(super) fn came(&mut self, event: v1::Event) {
        if self.rows.len() == MAX_ROWS {
            self.rows.pop_front();
            self.selected = self.selected.map(|at| at.saturating_sub(1));
        }
        self.rows.push_back(Row {
            event,
            last: None,
            answer: String::new(),
            attempts: 1,
        });
    }

    pub(super) fn attempted(&mut self, told: Forwarded, outcome: &Outcome) {
        if told.ok {
            self.answered_well += 1;
        } else {
            self.failed += 1;
        }
        let row = self.rows.iter_mut().rev();
        let Some(row) = { row }.find(|row| row.event.id == told.id) else {
            return;
        };
        row.attempts = row.attempts.max(told.attempt);
        row.answer = match outcome {
            Outcome::Answered(_, said) => said.clone(),
            Outcome::NoAnswer(why) => why.clone(),
            Outcome::TimedOut => String::new(),
        };
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
        let at = self.selected()?;
        match key {
            KeyCode::Up | KeyCode::Char('k') => self.selected = Some(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => {
                self.selected = Some(at + 1).filter(|at| at + 1 < self.rows.len());
            }
            KeyCode::Home => self.selected = Some(0),
            KeyCode::End | KeyCode::Esc => self.selected = None,
            KeyCode::Char('r') => {
                let row = &mut self.rows[at];
                row.attempts = row.attempts.saturating_add(1);
                self.note = format!("sent {} once more", row.event.id);
                return Some(Job {
                    event: row.event.clone(),
                    attempt: row.attempts,
                });
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
