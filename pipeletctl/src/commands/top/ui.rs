//! What `top` looks like.
//!
//! Pure. Invariant: colour only repeats what words say; what is wrong stands above and first; all of
//! it fits 80×24.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, TableState, Wrap},
};

use super::app::{App, Detail, Health};
use crate::{
    overview::{age, dead_letters, percent, short},
    table::{printable, shortened},
    words::or_dash,
};

const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const WARN: Style = Style::new().fg(Color::Yellow);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

const HELP: &str = "\
↑↓ choose a webhook   Enter its deliveries   Esc back
s  sort: worst first, by what is pending, by p99, by name
r  replay its dead letters     t  send what waits for a retry now
e  enable or disable it        q  quit (what changes something asks first)

OK, P50 and P99 are over the last minute, or over all the time since the daemon started where \
nothing was attempted in it. PENDING is what was not delivered yet; AGE how long its \
oldest event has waited; RETRY those of it that wait for another attempt, and \
NEXT when the first of these is due; DEAD its dead letters.";

/// What the help takes where the screen is 80 wide, its frame included.
const HELP_ROWS: u16 = 12;

const HEADERS: [&str; 11] = [
    "STATE", "ID", "NAME", "PENDING", "AGE", "OK", "P50", "P99", "RETRY", "NEXT", "DEAD",
];

const WIDTHS: [Constraint; 11] = [
    Constraint::Length(10),
    Constraint::Length(3),
    Constraint::Min(8),
    Constraint::Length(7),
    Constraint::Length(5),
    Constraint::Length(5),
    Constraint::Length(5),
    Constraint::Length(5),
    Constraint::Length(5),
    Constraint::Length(5),
    Constraint::Length(5),
];

pub(super) fn draw(frame: &mut Frame, app: &App) {
    let lower = if app.help {
        Constraint::Length(HELP_ROWS)
    } else if app.detail.is_some() {
        Constraint::Percentage(45)
    } else {
        Constraint::Length(0)
    };
    // The outcome of an action is shown whole.
    let note = u16::try_from(app.note.chars().count()).unwrap_or(u16::MAX);
    let hint = if note < frame.area().width { 1 } else { 2 };
    let headlines = headlines(app);
    let [head, rates, list, lower, hint] = Layout::vertical([
        Constraint::Length(headlines.len().try_into().unwrap_or(u16::MAX)),
        Constraint::Length(4),
        Constraint::Min(4),
        lower,
        Constraint::Length(hint),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(headlines), head);
    events(frame, app, rates);
    webhooks(frame, app, list);
    if app.help {
        let help = Paragraph::new(HELP).wrap(Wrap { trim: false });
        frame.render_widget(help.block(Block::bordered().title(" help ")), lower);
    } else if let Some(detail) = &app.detail {
        frame.render_widget(deliveries(detail), lower);
    }
    let keys = Paragraph::new(keys(app)).wrap(Wrap { trim: false });
    frame.render_widget(keys, hint);
}

fn headlines(app: &App) -> Vec<Line<'_>> {
    let Some(now) = app.now() else {
        return vec![Line::from(" Pipelet top")];
    };
    let (state, style) = match &app.unreachable {
        Some(why) => (format!("✗ GONE: {why}; trying again"), BAD),
        None if now.ready => ("✓ ready".to_owned(), GOOD),
        None => (format!("✗ NOT READY: {}", now.reasons.join("; ")), BAD),
    };
    let pending = now.webhooks.iter();
    let pending: u64 = pending.map(|it| it.stats.unwrap_or_default().pending).sum();
    let figures = format!(
        " stations connected {}   webhooks {}   pending {pending}   ",
        now.stations,
        now.webhooks.len()
    );
    let dead = format!("dead letters {}", now.dead);
    let mut lines = vec![
        Line::from(vec![
            Span::styled(" Pipelet top  ", STRONG),
            Span::raw(format!("{}  ", app.server)),
            Span::styled(state, style),
        ]),
        Line::from(vec![
            Span::raw(figures),
            Span::styled(dead, if now.dead > 0 { WARN } else { Style::new() }),
        ]),
    ];
    if !now.troubled.is_empty() {
        let troubled = format!(" ! {}", now.troubled.join("   "));
        lines.push(Line::from(Span::styled(printable(&troubled), WARN)));
    }
    lines
}

fn events(frame: &mut Frame, app: &App, area: Rect) {
    let room = usize::from(area.width.saturating_sub(2));
    let types = app.types().into_iter().take(6);
    let types: Vec<_> = types
        .map(|(name, rate)| format!("{name} {rate}/s"))
        .collect();
    let now = app.rates.back().copied().unwrap_or(0);
    let mut title = format!(" events {now}/s now ");
    if !types.is_empty() {
        title = format!("{title}  last minute: {} ", types.join("  "));
    }
    let title = shortened(&title, room);
    let skip = app.rates.len().saturating_sub(room);
    let line = Sparkline::default().data(app.rates.iter().skip(skip).copied());
    frame.render_widget(line.block(Block::bordered().title(title)), area);
}

fn webhooks(frame: &mut Frame, app: &App, area: Rect) {
    let now = app.now().map(|now| now.at).unwrap_or_default();
    let rows = app.webhooks().into_iter().map(|webhook| {
        let (health, lately) = (Health::of(webhook), app.recent_attempts(webhook));
        let stats = webhook.stats.unwrap_or_default();
        let next = webhook.next_retry_at.and_then(|next| {
            let next = jiff::Timestamp::new(next.seconds, next.nanos).ok()?;
            Some(next.duration_since(now).try_into().unwrap_or_default())
        });
        let span = |span: Option<Duration>| match span {
            None => "-".to_owned(),
            Some(Duration::ZERO) => "now".to_owned(),
            Some(span) => short(span),
        };
        let style = match health {
            Health::Healthy => GOOD,
            Health::Disabled => Style::new(),
            Health::Retrying | Health::Lagging => WARN,
            Health::Flapping | Health::Failing => BAD,
        };
        Row::new([
            Cell::from(Span::styled(health.label(), style)),
            Cell::from(webhook.id.to_string()),
            Cell::from(shortened(&webhook.name, 40)),
            Cell::from(stats.pending.to_string()),
            Cell::from(span(age(webhook, now))),
            Cell::from(percent(lately.success)),
            Cell::from(span(lately.p50)),
            Cell::from(span(lately.p99)),
            Cell::from(stats.retrying.to_string()),
            Cell::from(span(next)),
            Cell::from(dead_letters(&stats).to_string()),
        ])
    });
    let title = format!(" webhooks, {} ", app.sort.name());
    let table = Table::new(rows, WIDTHS)
        .header(Row::new(HEADERS).style(STRONG))
        .row_highlight_style(SELECTED)
        .block(Block::bordered().title(title));
    let mut state = TableState::default().with_selected(app.selected());
    frame.render_stateful_widget(table, area, &mut state);
}

fn deliveries(detail: &Detail) -> Paragraph<'_> {
    let lines = detail.deliveries.iter().map(|delivery| {
        let last = delivery.attempts.last();
        let outcome = last.map_or_else(
            || "no attempt yet".to_owned(),
            |last| match (last.status_code, &last.error) {
                (Some(status), None) => format!("{status} in {} ms", last.duration_ms),
                (Some(status), Some(_)) => format!("{status} {}", or_dash(last.code.as_ref())),
                (None, _) => or_dash(last.code.as_ref()),
            },
        );
        let style = match delivery.status.as_str() {
            "delivered" => GOOD,
            "dead" => BAD,
            _ => WARN,
        };
        Line::from(vec![
            Span::styled(format!("{:<9} ", delivery.status), style),
            Span::raw(format!(
                "{:<20} {:<14} try {:<2} ",
                shortened(&delivery.event, 20),
                shortened(&delivery.station_id, 14),
                delivery.attempts.len()
            )),
            Span::raw(shortened(&outcome, 100)),
        ])
    });
    let title = format!(" webhook {}: what waits, then the latest ", detail.id);
    Paragraph::new(lines.collect::<Vec<_>>()).block(Block::bordered().title(title))
}

fn keys(app: &App) -> Line<'_> {
    if let Some(confirmation) = &app.confirmation {
        return Line::from(Span::styled(format!(" {} y/n", confirmation.text), STRONG));
    }
    if !app.note.is_empty() {
        return Line::from(Span::styled(format!(" {}", app.note), STRONG));
    }
    Line::from(" ↑↓ choose  Enter look  s sort  r replay  t retry  e on/off  ? help  q quit")
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyCode;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::overview::tests::overview;

    fn drawn(width: u16, height: u16, app: &App) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn what_is_wrong_is_seen_at_any_size() {
        let mut app = App::new("http://127.0.0.1:50051".to_owned());
        drawn(80, 24, &app);
        app.update(overview(1, 100, 100, [100, 0, 0, 0]));
        app.update(overview(2, 110, 105, [100, 10, 0, 0]));
        for (width, height) in [(80, 24), (200, 50)] {
            let ui = drawn(width, height, &app);
            for seen in [
                "✓ ready",
                "stations connected 12",
                "dead letters 3",
                "events 10/s now",
                "MeterValues 10/s",
                "✗ failing",
                "Billing",
                "50.0%",
                "37",
                "q quit",
            ] {
                assert!(ui.contains(seen), "{seen}: {ui}");
            }
        }
        app.handle_key(KeyCode::Char('?'));
        let help = drawn(80, 24, &app);
        assert!(help.contains("replay its dead letters"), "{help}");
        assert!(help.contains("its dead letters.  "), "{help}");
        app.note = format!("{} the end", "a long outcome ".repeat(7));
        assert!(drawn(80, 24, &app).contains("the end"));
        app.note.clear();
        app.handle_key(KeyCode::Char('e'));
        assert!(drawn(80, 24, &app).contains("disable webhook 1? y/n"));
        app.set_unreachable("connection refused");
        assert!(drawn(80, 24, &app).contains("✗ GONE: connection refused"));
        // A terminal that is too small is no reason to fail.
        drawn(10, 4, &app);
    }
}
