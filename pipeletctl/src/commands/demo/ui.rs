//! What the demo looks like on a terminal.
//!
//! Pure. Invariant: colour only repeats what words say, and all of it fits 80×24.

use std::time::Duration;

use jiff::Timestamp;
use pipelet_simulator::{ChargePointStatus, ConnectorView, StationView};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Paragraph, Wrap},
};

use super::{
    deliveries::Snapshot,
    receiver::{Post, ReceiverMode},
    tour::Phase,
};
use crate::table::shortened;

/// All that is drawn.
#[derive(Debug)]
pub(super) struct UiState<'a> {
    pub(super) elapsed: Duration,
    pub(super) now: Timestamp,
    pub(super) phase: Phase,
    /// What the receiver does.
    pub(super) mode: ReceiverMode,
    pub(super) chargers: Vec<(&'a str, StationView)>,
    /// The latest last, each with its time since the beginning.
    pub(super) posts: &'a [(Duration, Post)],
    pub(super) snapshot: &'a Snapshot,
}

const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red);
const WAITS: Style = Style::new().fg(Color::Yellow);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// The left side's least width; the right one has what a row of a POST needs.
const LEFT: u16 = 35;

pub(super) fn draw(frame: &mut Frame, state: &UiState) {
    let [title, tour, body, delivery_counts, hint] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Min(3),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let left = LEFT.max(body.width * 2 / 5).min(60);
    let [left, right] =
        Layout::horizontal([Constraint::Length(left), Constraint::Min(20)]).areas(body);
    let [chargers, retries] =
        Layout::vertical([Constraint::Length(11), Constraint::Min(0)]).areas(left);
    frame.render_widget(Paragraph::new(progress(state)), title);
    frame.render_widget(headline(state), tour);
    frame.render_widget(charger_list(state, chargers), chargers);
    frame.render_widget(retry_list(state, retries), retries);
    frame.render_widget(post_list(state, right), right);
    let line = Line::from(vec![
        Span::styled(" Books  ", STRONG),
        Span::raw(state.snapshot.delivery_counts.to_string()),
    ]);
    frame.render_widget(Paragraph::new(line), delivery_counts);
    frame.render_widget(Paragraph::new(keys(state)), hint);
}

/// How far the tour is: done, now, and to come.
fn progress<'a>(state: &UiState) -> Line<'a> {
    let mut spans = vec![Span::styled(" Pipelet demo  ", STRONG)];
    let parts = Phase::MILESTONES;
    for (index, (phase, name)) in parts.iter().enumerate() {
        let next = parts.get(index + 1).map(|(next, _)| *next);
        let done = next.is_some_and(|next| state.phase >= next);
        let (mark, style) = match (state.phase >= *phase, done) {
            (_, true) => ("+", DIM),
            (true, false) => (">", STRONG),
            (false, false) => (" ", DIM),
        };
        spans.push(Span::styled(format!("{mark}{name} "), style));
    }
    spans.push(Span::styled(
        format!("{:>4} s", state.elapsed.as_secs()),
        DIM,
    ));
    Line::from(spans)
}

fn headline<'a>(state: &UiState) -> Paragraph<'a> {
    let style = match state.phase {
        Phase::Failing | Phase::TimingOut => BAD,
        Phase::DeadLettered => WAITS,
        Phase::Starting
        | Phase::Booting
        | Phase::Charging
        | Phase::Replaying
        | Phase::Recovered
        | Phase::Closing
        | Phase::Done => GOOD,
    };
    let lines = vec![
        Line::raw(""),
        Line::styled(state.phase.headline(), style.patch(STRONG)),
        Line::raw(state.phase.explanation()),
    ];
    let margin = ratatui::widgets::Padding::horizontal(1);
    Paragraph::new(lines)
        .block(Block::new().padding(margin))
        .wrap(Wrap { trim: true })
}

fn charger_list<'a>(state: &UiState, area: Rect) -> Paragraph<'a> {
    let width = usize::from(area.width.saturating_sub(2));
    let lines = state.chargers.iter().flat_map(|(id, view)| {
        let connector = view.connectors.first();
        charger(id, view.online, connector, width)
    });
    Paragraph::new(lines.collect::<Vec<_>>()).block(Block::bordered().title(" Chargers "))
}

fn charger<'a>(
    id: &str,
    online: bool,
    connector: Option<&ConnectorView>,
    width: usize,
) -> [Line<'a>; 3] {
    let Some(connector) = connector.filter(|_| online) else {
        let name = Line::from(vec![
            Span::styled(format!(" {id}  "), STRONG),
            Span::styled("not connected", DIM),
        ]);
        return [name, Line::raw(""), Line::raw("")];
    };
    let style = match connector.status {
        ChargePointStatus::Charging => GOOD,
        ChargePointStatus::Preparing | ChargePointStatus::Finishing => WAITS,
        ChargePointStatus::Available | ChargePointStatus::Unavailable => Style::new(),
    };
    let name = Line::from(vec![
        Span::styled(format!(" {id}  "), STRONG),
        Span::styled(connector.status.as_str(), style),
        Span::styled(
            connector
                .id_tag
                .as_ref()
                .map_or_else(String::new, |tag| format!("  {tag}")),
            DIM,
        ),
    ]);
    if connector.requested_wh == 0 {
        return [name, Line::raw(""), Line::raw("")];
    }
    let flows = format!(
        " {:>4} kW   {} of {} kWh",
        tenths(connector.power_w),
        tenths(connector.charged_wh),
        tenths(connector.requested_wh),
    );
    [
        name,
        Line::raw(flows),
        Line::styled(bar(connector, width), style),
    ]
}

fn bar(connector: &ConnectorView, width: usize) -> String {
    let room = width.saturating_sub(2);
    let share = connector.charged_wh.min(connector.requested_wh) * room as u64;
    let full = usize::try_from(share / connector.requested_wh.max(1)).unwrap_or(0);
    format!(" {}{}", "█".repeat(full), "░".repeat(room - full))
}

fn retry_list<'a>(state: &UiState, area: Rect) -> Paragraph<'a> {
    let room = usize::from(area.height.saturating_sub(2));
    let delivery_counts = &state.snapshot.delivery_counts;
    let title = match (delivery_counts.retrying, delivery_counts.dead) {
        (0, 0) => " No retries, no dead letters ".to_owned(),
        (retrying, dead) => format!(" {retrying} to retry, {dead} dead "),
    };
    let mut pending_retries: Vec<_> = state.snapshot.pending_retries.iter().collect();
    pending_retries.retain(|delivery| delivery.attempts > 0);
    pending_retries.sort_by_key(|delivery| delivery.next);
    let lines = pending_retries.into_iter().take(room).map(|delivery| {
        let wait = delivery.next.map_or(Duration::ZERO, |next| {
            Duration::try_from(next.duration_since(state.now)).unwrap_or_default()
        });
        let wait = if wait.is_zero() {
            "now".to_owned()
        } else {
            format!("{:.1}s", wait.as_secs_f32())
        };
        Line::from(vec![
            Span::styled(format!(" {wait:>4} "), WAITS),
            Span::raw(format!("try {} ", delivery.attempts + 1)),
            Span::raw(format!("{:<12}", shortened(&delivery.event, 12))),
            Span::styled(format!(" {}", delivery.station), DIM),
        ])
    });
    Paragraph::new(lines.collect::<Vec<_>>()).block(Block::bordered().title(title))
}

fn post_list<'a>(state: &UiState, area: Rect) -> Paragraph<'a> {
    let mode_of_receiver = match state.mode {
        ReceiverMode::Healthy => "is well",
        ReceiverMode::Failing => "answers 500",
        ReceiverMode::Hanging => "does not answer",
    };
    let room = usize::from(area.height.saturating_sub(2));
    let latest = &state.posts[state.posts.len().saturating_sub(room)..];
    let lines = latest.iter().map(|(at, post)| {
        let style = if post.answer.is_good() { GOOD } else { BAD };
        let again = if post.attempt > 1 {
            Span::styled(format!(" try {}", post.attempt), WAITS)
        } else {
            Span::raw("      ")
        };
        Line::from(vec![
            Span::styled(format!("{:>4}s ", at.as_secs()), DIM),
            Span::raw(format!("{:<18}", shortened(&post.event, 18))),
            Span::styled(format!(" {}", shortened(&post.station, 7)), DIM),
            again,
            Span::styled(format!(" {}", short(post)), style),
        ])
    });
    let title = format!(" POSTs: your receiver {mode_of_receiver} ");
    Paragraph::new(lines.collect::<Vec<_>>()).block(Block::bordered().title(title))
}

/// What a narrow row has room for.
fn short(post: &Post) -> &'static str {
    let answer = post.answer.as_str();
    answer
        .split(' ')
        .next()
        .filter(|word| word.parse::<u16>().is_ok())
        .unwrap_or("none")
}

fn keys<'a>(state: &UiState) -> Line<'a> {
    if state.phase == Phase::DeadLettered {
        return Line::from(vec![
            Span::styled(" press r to replay the dead letters", WAITS.patch(STRONG)),
            Span::styled("    q quits", DIM),
        ]);
    }
    Line::styled(" q quits", DIM)
}

/// Thousandths of a unit, as units with one digit.
fn tenths(thousandths: u64) -> String {
    format!("{}.{}", thousandths / 1_000, thousandths % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::{
        super::{
            deliveries::{DeliveryCounts, PendingRetry},
            receiver::Answer,
        },
        *,
    };

    fn drawn(width: u16, height: u16, phase: Phase) -> String {
        let now: Timestamp = "2026-04-14T12:00:00Z".parse().unwrap();
        let connector = ConnectorView {
            status: ChargePointStatus::Charging,
            power_w: 21_340,
            charged_wh: 3_410,
            requested_wh: 6_820,
            id_tag: Some("RFID_12345678".to_owned()),
        };
        let view = StationView {
            online: true,
            connectors: vec![connector],
        };
        let post = Post {
            event: "StatusNotification".to_owned(),
            station: "DEMO-01".to_owned(),
            attempt: 3,
            answer: Answer::Failed,
        };
        let pending_retries = PendingRetry {
            event: "MeterValues".to_owned(),
            station: "DEMO-02".to_owned(),
            attempts: 1,
            next: Some(now + Duration::from_millis(800)),
        };
        let snapshot = Snapshot {
            asked: None,
            delivery_counts: DeliveryCounts {
                received: 9,
                delivered: 6,
                pending: 1,
                dead: 2,
                retrying: 1,
                ..DeliveryCounts::default()
            },
            pending_retries: vec![pending_retries],
        };
        let state = UiState {
            elapsed: Duration::from_secs(17),
            now,
            phase,
            mode: phase.mode(0),
            chargers: vec![("DEMO-01", view), ("DEMO-02", StationView::default())],
            posts: &vec![(Duration::from_secs(16), post); 60],
            snapshot: &snapshot,
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &state)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_that_matters_is_to_be_seen_without_colours() {
        for (width, height) in [(80, 24), (200, 50)] {
            let picture = drawn(width, height, Phase::DeadLettered);
            for text in [
                "+failures >dead letters",
                "The receiver is back; what failed too often is a dead letter now.",
                "DEMO-01  Charging  RFID_12345678",
                "21.3 kW   3.4 of 6.8 kWh",
                "DEMO-02  not connected",
                "1 to retry, 2 dead",
                "0.8s try 2 MeterValues  DEMO-02",
                "16s StatusNotification DEMO-01 try 3 500",
                "9 received = 6 delivered + 1 pending + 2 dead",
                "press r to replay",
            ] {
                assert!(
                    picture.contains(text),
                    "{text} at {width}×{height}:\n{picture}"
                );
            }
        }
    }

    #[test]
    fn no_explanation_is_cut_off() {
        for phase in [
            Phase::Starting,
            Phase::Booting,
            Phase::Charging,
            Phase::Failing,
            Phase::TimingOut,
            Phase::DeadLettered,
            Phase::Replaying,
            Phase::Recovered,
            Phase::Closing,
            Phase::Done,
        ] {
            let picture = drawn(80, 24, phase);
            let last = phase.explanation().rsplit(' ').next().unwrap();
            assert!(picture.contains(last), "{last}:\n{picture}");
        }
    }

    #[test]
    fn a_tiny_terminal_is_no_reason_to_fail() {
        for (width, height) in [(1, 1), (20, 5), (40, 10)] {
            drawn(width, height, Phase::Failing);
        }
    }
}
