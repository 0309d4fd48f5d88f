//! What `top` knows and what is chosen on it.
//!
//! Pure: looks and keys in, wishes out. Bounded: a minute of looks, and rates for the widest screen.

use std::{cmp::Reverse, collections::VecDeque, time::Duration};

use crossterm::event::KeyCode;
use pipelet_proto::v1;

use crate::overview::{Lately, Overview, age, dead_letters};

/// Over how many looks shares and quantiles are taken.
const LOOKS: usize = 60;
/// Over how many it is judged whether a webhook fails: few, so that one that is mended is so at once.
const LATEST: usize = 5;
const RATES: usize = 400;
/// For how many looks a note is shown.
const NOTED: usize = 15;
/// A backlog that is older is worth a look.
const LATE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Board {
    pub(super) server: String,
    /// The latest last.
    looks: VecDeque<Overview>,
    /// Events a second, the latest last.
    pub(super) rates: VecDeque<u64>,
    /// Why the daemon does not answer.
    pub(super) gone: Option<String>,
    pub(super) sort: Sort,
    /// The id of the chosen webhook.
    chosen: Option<u64>,
    pub(super) detail: Option<Detail>,
    pub(super) asking: Option<Question>,
    pub(super) help: bool,
    pub(super) note: String,
    /// For how many looks it was there.
    noted: usize,
}

#[derive(Debug)]
pub(super) struct Detail {
    pub(super) id: u64,
    pub(super) deliveries: Vec<v1::Delivery>,
}

#[derive(Debug)]
pub(super) struct Question {
    pub(super) text: String,
    wish: Wish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// At a webhook's deliveries.
    Look(u64),
    Replay(u64),
    /// What waits for a retry shall go out now.
    Retry(u64),
    Switch {
        id: u64,
        enabled: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Worst,
    Pending,
    Slowest,
    Name,
}

/// How a webhook fares; the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Fine,
    Off,
    /// It has dead letters, or waits for retries.
    Marked,
    Late,
    Failing,
}

impl Sort {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst first",
            Self::Pending => "by what is pending",
            Self::Slowest => "by p99",
            Self::Name => "by name",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Worst => Self::Pending,
            Self::Pending => Self::Slowest,
            Self::Slowest => Self::Name,
            Self::Name => Self::Worst,
        }
    }
}

impl State {
    /// A mark and a word: colour is never all that tells.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Fine => "✓ fine",
            Self::Off => "· off",
            Self::Marked => "! retries",
            Self::Late => "! late",
            Self::Failing => "✗ failing",
        }
    }
}

/// What came of a wish: something to show, or a sentence.
pub(super) enum Told {
    Deliveries(u64, Vec<v1::Delivery>),
    Sentence(String),
}

impl Board {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            looks: VecDeque::new(),
            rates: VecDeque::new(),
            gone: None,
            sort: Sort::Worst,
            chosen: None,
            detail: None,
            asking: None,
            help: false,
            note: String::new(),
            noted: 0,
        }
    }

    pub(super) fn look(&mut self, seen: Overview) {
        if let Some(last) = self.looks.back() {
            let events = seen.all_events().checked_sub(last.all_events());
            let seconds = seen.at.duration_since(last.at).as_secs_f64();
            match events {
                Some(events) if seconds > 0.1 => self.rates.push_back(rate(events, seconds)),
                Some(_) => {}
                // Another process, which counts from the beginning.
                None => self.looks.clear(),
            }
        }
        self.looks.push_back(seen);
        while self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        while self.rates.len() > RATES {
            self.rates.pop_front();
        }
        self.gone = None;
        self.noted += 1;
        if self.noted > NOTED {
            self.note.clear();
        }
    }

    pub(super) fn lost(&mut self, why: &str) {
        self.gone = Some(why.to_owned());
    }

    pub(super) fn told(&mut self, told: Result<Told, String>) {
        self.note = match told {
            Ok(Told::Deliveries(id, deliveries)) => {
                if let Some(detail) = self.detail.as_mut().filter(|detail| detail.id == id) {
                    detail.deliveries = deliveries;
                }
                return;
            }
            Ok(Told::Sentence(sentence)) => sentence,
            Err(why) => format!("that failed: {why}"),
        };
        self.noted = 0;
    }

    pub(super) fn now(&self) -> Option<&Overview> {
        self.looks.back()
    }

    /// Over the last minute; where nothing was attempted in it, or nobody looked yet, since the
    /// daemon started.
    pub(super) fn lately(&self, webhook: &v1::WebhookOverview) -> Lately {
        self.over([LOOKS], webhook)
    }

    /// Over the first of these windows in which something was attempted, counted in looks.
    fn over<const N: usize>(&self, windows: [usize; N], webhook: &v1::WebhookOverview) -> Lately {
        let Some(now) = self.now() else {
            return Lately::default();
        };
        let first = |window| self.looks.get(self.looks.len().saturating_sub(window));
        let lately = windows.map(|window| now.lately(webhook, first(window)));
        let tried = lately.into_iter().find(|lately| lately.attempts > 0);
        tried.unwrap_or_else(|| now.lately(webhook, None))
    }

    /// Events of each type a second over the window, the most first.
    pub(super) fn types(&self) -> Vec<(&str, u64)> {
        let (Some(first), Some(now)) = (self.looks.front(), self.looks.back()) else {
            return Vec::new();
        };
        let seconds = now.at.duration_since(first.at).as_secs_f64();
        let types = now.events.iter().map(|(name, events)| {
            let before = first.events.get(name).copied().unwrap_or(0);
            (name.as_str(), rate(events.saturating_sub(before), seconds))
        });
        let mut types: Vec<_> = types.filter(|(_, rate)| *rate > 0).collect();
        types.sort_by_key(|(name, rate)| (Reverse(*rate), *name));
        types
    }

    pub(super) fn state(&self, webhook: &v1::WebhookOverview) -> State {
        let success = self.over([LATEST, LOOKS], webhook).success;
        let stats = webhook.stats.unwrap_or_default();
        // What failed waits for a retry, or is dead: without either, all is mended.
        let has_failed = stats.retrying > 0 || dead_letters(&stats) > 0;
        let now = self.now().map(|now| now.at).unwrap_or_default();
        if !webhook.enabled {
            State::Off
        } else if has_failed && success.is_some_and(|success| success < 0.9) {
            State::Failing
        } else if age(webhook, now).is_some_and(|age| age > LATE) {
            State::Late
        } else if has_failed {
            State::Marked
        } else {
            State::Fine
        }
    }

    /// The webhooks in their order.
    pub(super) fn webhooks(&self) -> Vec<&v1::WebhookOverview> {
        let Some(now) = self.now() else {
            return Vec::new();
        };
        let mut webhooks: Vec<_> = now.webhooks.iter().collect();
        let pending = |it: &v1::WebhookOverview| it.stats.unwrap_or_default().pending;
        match self.sort {
            Sort::Worst => {
                webhooks.sort_by_key(|it| (Reverse(self.state(it)), Reverse(pending(it))));
            }
            Sort::Pending => webhooks.sort_by_key(|it| Reverse(pending(it))),
            Sort::Slowest => webhooks.sort_by_key(|it| Reverse(self.lately(it).p99)),
            Sort::Name => webhooks.sort_by(|a, b| a.name.cmp(&b.name)),
        }
        webhooks
    }

    /// The place of the chosen webhook in the list.
    pub(super) fn chosen(&self) -> usize {
        let webhooks = self.webhooks();
        let at = webhooks.iter().position(|it| Some(it.id) == self.chosen);
        at.unwrap_or(0)
    }

    /// What has to be asked with each look.
    pub(super) fn watched(&self) -> Option<Wish> {
        self.detail.as_ref().map(|detail| Wish::Look(detail.id))
    }

    pub(super) const fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    pub(super) fn pressed(&mut self, key: KeyCode) -> Option<Wish> {
        if let Some(question) = self.asking.take() {
            let wish = matches!(key, KeyCode::Char('y' | 'Y')).then_some(question.wish);
            if let Some(Wish::Replay(id)) = wish {
                self.note = format!("webhook {id}: its dead letters are sent again …");
            }
            return wish;
        }
        self.note.clear();
        self.noted = 0;
        self.help = false;
        match key {
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.chosen().checked_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(Some(self.chosen() + 1)),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Esc => self.detail = None,
            key => return self.pressed_on_webhook(key),
        }
        None
    }

    fn pressed_on_webhook(&mut self, key: KeyCode) -> Option<Wish> {
        let at = self.chosen();
        let webhook = self.webhooks().get(at).copied()?.clone();
        let id = webhook.id;
        self.chosen = Some(id);
        match key {
            KeyCode::Enter => {
                self.detail = Some(Detail {
                    id,
                    deliveries: Vec::new(),
                });
                return Some(Wish::Look(id));
            }
            KeyCode::Char('r') if dead_letters(&webhook.stats.unwrap_or_default()) == 0 => {
                self.note = format!("webhook {id} has no dead letters");
            }
            KeyCode::Char('r') => self.ask("replay the dead letters of", id, Wish::Replay(id)),
            KeyCode::Char('t') if webhook.stats.unwrap_or_default().retrying == 0 => {
                self.note = format!("nothing of webhook {id} waits for a retry");
            }
            KeyCode::Char('t') => self.ask("send what waits now to", id, Wish::Retry(id)),
            KeyCode::Char('e') => {
                let verb = if webhook.enabled { "disable" } else { "enable" };
                let wish = Wish::Switch {
                    id,
                    enabled: !webhook.enabled,
                };
                self.ask(verb, id, wish);
            }
            _ => {}
        }
        None
    }

    /// Chooses the webhook at this place, if there is one.
    fn choose(&mut self, at: Option<usize>) {
        let id = at.and_then(|at| self.webhooks().get(at).map(|it| it.id));
        self.chosen = id.or(self.chosen);
    }

    fn ask(&mut self, verb: &str, id: u64, wish: Wish) {
        let text = format!("{verb} webhook {id}?");
        self.asking = Some(Question { text, wish });
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is a figure for people"
)]
fn rate(events: u64, seconds: f64) -> u64 {
    (events as f64 / seconds.max(0.1)).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::tests::overview;

    fn state(board: &Board) -> State {
        board.state(board.webhooks()[0])
    }

    fn board() -> Board {
        let mut board = Board::new("http://127.0.0.1:50051".to_owned());
        board.look(overview(1, 100, 100, [100, 0, 0, 0]));
        board.look(overview(2, 110, 105, [100, 10, 0, 0]));
        board
    }

    #[test]
    fn rates_come_from_the_differences() {
        let mut board = board();
        assert_eq!(board.rates, [10]);
        assert_eq!(board.types(), [("MeterValues", 10)]);
        assert_eq!(state(&board), State::Failing);
        // A daemon that was started again counts from the beginning.
        board.lost("connection refused");
        board.look(overview(0, 0, 0, [0; 4]));
        assert_eq!((board.gone.as_deref(), board.rates.len()), (None, 1));
        assert_eq!(state(&board), State::Late);
    }

    #[test]
    fn before_a_second_look_what_came_since_the_start_counts() {
        let mut board = Board::new(String::new());
        board.look(overview(2, 110, 11, [100, 10, 0, 0]));
        assert_eq!(board.lately(board.webhooks()[0]).success, Some(0.1));
        assert_eq!(state(&board), State::Failing);
    }

    #[test]
    fn one_that_is_mended_fails_no_more() {
        let mut board = board();
        for second in 3..=6_i64 {
            let well = second.unsigned_abs();
            board.look(overview(second, 108 + well, 103 + well, [100, 10, 0, 0]));
        }
        assert_eq!(board.lately(board.webhooks()[0]).attempts, 14);
        assert_eq!(state(&board), State::Late);
    }

    #[test]
    fn a_note_is_there_for_a_while() {
        let mut board = board();
        board.told(Ok(Told::Sentence("done".to_owned())));
        let look = |board: &mut Board, second| board.look(overview(second, 110, 105, [0; 4]));
        let shown = i64::try_from(NOTED).unwrap();
        (3..3 + shown).for_each(|second| look(&mut board, second));
        assert_eq!(board.note, "done");
        look(&mut board, 3 + shown);
        assert_eq!(board.note, "");
    }

    #[test]
    fn what_changes_something_is_asked_for_twice() {
        let mut board = board();
        assert_eq!(board.pressed(KeyCode::Char('r')), None);
        assert!(board.is_asking());
        assert_eq!(board.pressed(KeyCode::Char('n')), None);
        assert!(!board.is_asking());
        board.pressed(KeyCode::Char('r'));
        assert_eq!(board.pressed(KeyCode::Char('y')), Some(Wish::Replay(1)));
        board.pressed(KeyCode::Char('t'));
        assert_eq!(board.pressed(KeyCode::Char('y')), Some(Wish::Retry(1)));
        board.pressed(KeyCode::Char('e'));
        let off = Wish::Switch {
            id: 1,
            enabled: false,
        };
        assert_eq!(board.pressed(KeyCode::Char('y')), Some(off));
        assert_eq!(board.pressed(KeyCode::Enter), Some(Wish::Look(1)));
        assert!(board.detail.is_some());
        board.pressed(KeyCode::Down);
        board.pressed(KeyCode::Up);
        assert_eq!(board.chosen(), 0);
        board.pressed(KeyCode::Esc);
        assert!(board.detail.is_none());
    }
}
