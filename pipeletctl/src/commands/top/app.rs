//! The state of `top`: what was polled, and what is selected.
//!
//! Pure: overviews and keys in, actions out. Bounded: a minute of overviews, and rates for the
//! widest screen.

use std::{cmp::Reverse, collections::VecDeque};

use crossterm::event::KeyCode;
use pipelet_proto::v1;

use crate::overview::{Lately, Overview, dead_letters};

/// Overviews that are kept: shares and quantiles are taken over them.
const MAX_HISTORY: usize = 60;
const MAX_RATES: usize = 400;
/// Updates for which a note is shown.
const NOTE_UPDATES: usize = 15;

#[derive(Debug)]
pub(super) struct App {
    pub(super) server: String,
    /// The latest last.
    history: VecDeque<Overview>,
    /// Events a second, the latest last.
    pub(super) rates: VecDeque<u64>,
    /// Why the daemon does not answer.
    pub(super) unreachable: Option<String>,
    pub(super) sort: Sort,
    /// The id of the chosen webhook.
    selected: Option<u64>,
    pub(super) detail: Option<Detail>,
    pub(super) confirmation: Option<Confirmation>,
    pub(super) help: bool,
    pub(super) note: String,
    /// Updates since it was set.
    note_age: usize,
}

#[derive(Debug)]
pub(super) struct Detail {
    pub(super) id: u64,
    pub(super) deliveries: Vec<v1::Delivery>,
}

#[derive(Debug)]
pub(super) struct Confirmation {
    pub(super) text: String,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    ListDeliveries(u64),
    Replay(u64),
    /// What waits for a retry shall go out now.
    Retry(u64),
    SetEnabled {
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

/// The worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    Healthy,
    Disabled,
    /// It has dead letters, or waits for retries.
    Retrying,
    Lagging,
    Flapping,
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

impl Health {
    /// As the daemon has it; beside that, what is left of failures.
    pub(super) fn of(webhook: &v1::WebhookOverview) -> Self {
        let stats = webhook.stats.unwrap_or_default();
        let health = webhook.health.as_ref();
        match health.map_or("", |health| health.state.as_str()) {
            "failing" => Self::Failing,
            "flapping" => Self::Flapping,
            "lagging" => Self::Lagging,
            "disabled" => Self::Disabled,
            _ if stats.retrying > 0 || dead_letters(&stats) > 0 => Self::Retrying,
            _ => Self::Healthy,
        }
    }

    /// A mark and a word: colour alone never says it.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Healthy => "✓ ok",
            Self::Disabled => "· off",
            Self::Retrying => "! retries",
            Self::Lagging => "! lagging",
            Self::Flapping => "✗ flapping",
            Self::Failing => "✗ failing",
        }
    }
}

/// What came of an action: something to show, or a message.
pub(super) enum Response {
    Deliveries(u64, Vec<v1::Delivery>),
    Message(String),
}

impl App {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            history: VecDeque::new(),
            rates: VecDeque::new(),
            unreachable: None,
            sort: Sort::Worst,
            selected: None,
            detail: None,
            confirmation: None,
            help: false,
            note: String::new(),
            note_age: 0,
        }
    }

    pub(super) fn update(&mut self, seen: Overview) {
        if let Some(last) = self.history.back() {
            let events = seen.all_events().checked_sub(last.all_events());
            let seconds = seen.at.duration_since(last.at).as_secs_f64();
            match events {
                Some(events) if seconds > 0.1 => self.rates.push_back(rate(events, seconds)),
                Some(_) => {}
                // Another process, which counts from the beginning.
                None => self.history.clear(),
            }
        }
        self.history.push_back(seen);
        while self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
        while self.rates.len() > MAX_RATES {
            self.rates.pop_front();
        }
        self.unreachable = None;
        self.note_age += 1;
        if self.note_age > NOTE_UPDATES {
            self.note.clear();
        }
    }

    pub(super) fn set_unreachable(&mut self, why: &str) {
        self.unreachable = Some(why.to_owned());
    }

    pub(super) fn handle_response(&mut self, response: Result<Response, String>) {
        self.note = match response {
            Ok(Response::Deliveries(id, deliveries)) => {
                if let Some(detail) = self.detail.as_mut().filter(|detail| detail.id == id) {
                    detail.deliveries = deliveries;
                }
                return;
            }
            Ok(Response::Message(sentence)) => sentence,
            Err(why) => format!("that failed: {why}"),
        };
        self.note_age = 0;
    }

    pub(super) fn now(&self) -> Option<&Overview> {
        self.history.back()
    }

    /// Over the last minute; where nothing was attempted in it, or after the first overview, since
    /// the daemon started.
    pub(super) fn recent_attempts(&self, webhook: &v1::WebhookOverview) -> Lately {
        let Some(now) = self.now() else {
            return Lately::default();
        };
        let lately = now.lately(webhook, self.history.front());
        match lately.attempts {
            0 => now.lately(webhook, None),
            _ => lately,
        }
    }

    /// Events of each type a second over the window, the most first.
    pub(super) fn types(&self) -> Vec<(&str, u64)> {
        let (Some(first), Some(now)) = (self.history.front(), self.history.back()) else {
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

    /// The webhooks in their order.
    pub(super) fn webhooks(&self) -> Vec<&v1::WebhookOverview> {
        let Some(now) = self.now() else {
            return Vec::new();
        };
        let mut webhooks: Vec<_> = now.webhooks.iter().collect();
        let pending = |it: &v1::WebhookOverview| it.stats.unwrap_or_default().pending;
        match self.sort {
            Sort::Worst => {
                webhooks.sort_by_key(|it| (Reverse(Health::of(it)), Reverse(pending(it))));
            }
            Sort::Pending => webhooks.sort_by_key(|it| Reverse(pending(it))),
            Sort::Slowest => webhooks.sort_by_key(|it| Reverse(self.recent_attempts(it).p99)),
            Sort::Name => webhooks.sort_by(|a, b| a.name.cmp(&b.name)),
        }
        webhooks
    }

    /// The place of the chosen webhook in the list.
    pub(super) fn selected(&self) -> usize {
        let webhooks = self.webhooks();
        let at = webhooks.iter().position(|it| Some(it.id) == self.selected);
        at.unwrap_or(0)
    }

    /// What has to be asked again with each update.
    pub(super) fn refresh(&self) -> Option<Action> {
        self.detail
            .as_ref()
            .map(|detail| Action::ListDeliveries(detail.id))
    }

    pub(super) const fn is_confirming(&self) -> bool {
        self.confirmation.is_some()
    }

    pub(super) fn handle_key(&mut self, key: KeyCode) -> Option<Action> {
        if let Some(confirmation) = self.confirmation.take() {
            let action = matches!(key, KeyCode::Char('y' | 'Y')).then_some(confirmation.action);
            if let Some(Action::Replay(id)) = action {
                self.note = format!("webhook {id}: its dead letters are sent again …");
            }
            return action;
        }
        self.note.clear();
        self.note_age = 0;
        self.help = false;
        match key {
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected().checked_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(Some(self.selected() + 1)),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Esc => self.detail = None,
            key => return self.handle_webhook_key(key),
        }
        None
    }

    fn handle_webhook_key(&mut self, key: KeyCode) -> Option<Action> {
        let at = self.selected();
        let webhook = self.webhooks().get(at).copied()?.clone();
        let id = webhook.id;
        self.selected = Some(id);
        match key {
            KeyCode::Enter => {
                self.detail = Some(Detail {
                    id,
                    deliveries: Vec::new(),
                });
                return Some(Action::ListDeliveries(id));
            }
            KeyCode::Char('r') if dead_letters(&webhook.stats.unwrap_or_default()) == 0 => {
                self.note = format!("webhook {id} has no dead letters");
            }
            KeyCode::Char('r') => {
                self.confirm("replay the dead letters of", id, Action::Replay(id));
            }
            KeyCode::Char('t') if webhook.stats.unwrap_or_default().retrying == 0 => {
                self.note = format!("nothing of webhook {id} waits for a retry");
            }
            KeyCode::Char('t') => self.confirm("send what waits now to", id, Action::Retry(id)),
            KeyCode::Char('e') => {
                let verb = if webhook.enabled { "disable" } else { "enable" };
                let action = Action::SetEnabled {
                    id,
                    enabled: !webhook.enabled,
                };
                self.confirm(verb, id, action);
            }
            _ => {}
        }
        None
    }

    /// Chooses the webhook at this place, if there is one.
    fn select(&mut self, at: Option<usize>) {
        let id = at.and_then(|at| self.webhooks().get(at).map(|it| it.id));
        self.selected = id.or(self.selected);
    }

    fn confirm(&mut self, verb: &str, id: u64, action: Action) {
        let text = format!("{verb} webhook {id}?");
        self.confirmation = Some(Confirmation { text, action });
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

    fn health(app: &App) -> Health {
        Health::of(app.webhooks()[0])
    }

    fn app() -> App {
        let mut app = App::new("http://127.0.0.1:50051".to_owned());
        app.update(overview(1, 100, 100, [100, 0, 0, 0]));
        app.update(overview(2, 110, 105, [100, 10, 0, 0]));
        app
    }

    #[test]
    fn rates_come_from_the_differences() {
        let mut app = app();
        assert_eq!(app.rates, [10]);
        assert_eq!(app.types(), [("MeterValues", 10)]);
        assert_eq!(health(&app), Health::Failing);
        // A daemon that was started again counts from the beginning.
        app.set_unreachable("connection refused");
        app.update(overview(0, 0, 0, [0; 4]));
        assert_eq!((app.unreachable.as_deref(), app.rates.len()), (None, 1));
    }

    #[test]
    fn before_a_second_overview_what_came_since_the_start_counts() {
        let mut app = App::new(String::new());
        app.update(overview(2, 110, 11, [100, 10, 0, 0]));
        assert_eq!(app.recent_attempts(app.webhooks()[0]).success, Some(0.1));
    }

    #[test]
    fn a_note_is_there_for_a_while() {
        let mut app = app();
        app.handle_response(Ok(Response::Message("done".to_owned())));
        let update = |app: &mut App, second| app.update(overview(second, 110, 105, [0; 4]));
        let shown = i64::try_from(NOTE_UPDATES).unwrap();
        (3..3 + shown).for_each(|second| update(&mut app, second));
        assert_eq!(app.note, "done");
        update(&mut app, 3 + shown);
        assert_eq!(app.note, "");
    }

    #[test]
    fn what_changes_something_is_asked_for_twice() {
        let mut app = app();
        assert_eq!(app.handle_key(KeyCode::Char('r')), None);
        assert!(app.is_confirming());
        assert_eq!(app.handle_key(KeyCode::Char('n')), None);
        assert!(!app.is_confirming());
        app.handle_key(KeyCode::Char('r'));
        assert_eq!(app.handle_key(KeyCode::Char('y')), Some(Action::Replay(1)));
        app.handle_key(KeyCode::Char('t'));
        assert_eq!(app.handle_key(KeyCode::Char('y')), Some(Action::Retry(1)));
        app.handle_key(KeyCode::Char('e'));
        let off = Action::SetEnabled {
            id: 1,
            enabled: false,
        };
        assert_eq!(app.handle_key(KeyCode::Char('y')), Some(off));
        assert_eq!(
            app.handle_key(KeyCode::Enter),
            Some(Action::ListDeliveries(1))
        );
        assert!(app.detail.is_some());
        app.handle_key(KeyCode::Down);
        app.handle_key(KeyCode::Up);
        assert_eq!(app.selected(), 0);
        app.handle_key(KeyCode::Esc);
        assert!(app.detail.is_none());
    }
}
