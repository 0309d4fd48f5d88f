//! What `listen` looks like on a terminal.
//!
//! Pure. Invariant: colour only repeats what words say, and all of it fits 80×24.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Paragraph, Wrap},
};

use super::app::{App, ForwardStatus, Row};
use crate::{
    table::{printable, shortened},
    view::Forwarded,
};

const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Bounds how far it is scrolled by what there is.
pub(super) fn draw(frame: &mut Frame, app: &mut App) {
    let [title, list, detail, hint] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(5),
        Constraint::Percentage(40),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head(app)), title);
    frame.render_widget(rows(app, list), list);
    frame.render_widget(selected(app, detail.width), detail);
    frame.render_widget(Paragraph::new(keys(app)), hint);
}

fn head(app: &App) -> Vec<Line<'_>> {
    let counts = format!(" {}", app.counts);
    let first = Line::from(vec![
        Span::styled(" Pipelet listen", STRONG),
        Span::raw(format!(" to {}", app.target)),
    ]);
    let third = app
        .generated_secret
        .as_ref()
        .map_or_else(Line::default, |generated_secret| {
            Line::from(vec![
                Span::raw(" signed with "),
                Span::styled(generated_secret, STRONG),
            ])
        });
    vec![first, Line::from(counts), third]
}

fn rows(app: &App, area: Rect) -> Paragraph<'_> {
    let room = usize::from(area.height.saturating_sub(2));
    let selected = app.selected().unwrap_or_default();
    // The selected one is in sight, and as many before it as there is room for.
    let end = app.rows.len().min((selected + 1).max(room));
    let start = end.saturating_sub(room);
    let lines = app.rows.iter().enumerate().skip(start).take(room);
    let lines = lines.map(|(at, row)| {
        let line = line(row, usize::from(area.width.saturating_sub(2)));
        if at == selected {
            line.style(SELECTED)
        } else {
            line
        }
    });
    let title = match (app.rows.is_empty(), app.is_following()) {
        (true, _) => " waiting for events ",
        (false, true) => " events, the latest last ",
        (false, false) => " events ",
    };
    let unreachable = app.unreachable.as_ref().map(|why| format!(" ✗ {why} "));
    let unreachable = Line::styled(unreachable.unwrap_or_default(), BAD).right_aligned();
    let block = Block::bordered().title(title).title(unreachable);
    Paragraph::new(lines.collect::<Vec<_>>()).block(block)
}

fn line(row: &Row, width: usize) -> Line<'_> {
    let event = &row.event;
    let name = format!(
        "{:<20} {:<16} ",
        shortened(&event.event, 20),
        shortened(&event.station_id, 16)
    );
    let (mark, style) = match row.status {
        ForwardStatus::Pending => ("…", DIM),
        ForwardStatus::Delivered => ("✓", GOOD),
        ForwardStatus::Rejected => ("✗", BAD),
    };
    let last = row.last.as_ref();
    let outcome = last.map_or_else(|| "waits for its turn".to_owned(), Forwarded::outcome);
    let mark = format!("{mark} ");
    let room = width.saturating_sub(mark.chars().count() + name.chars().count());
    Line::from(vec![
        Span::styled(mark, style),
        Span::raw(name),
        Span::styled(shortened(&outcome, room), style),
    ])
}

fn selected(app: &mut App, width: u16) -> Paragraph<'static> {
    let Some(row) = app.selected().map(|at| &app.rows[at]) else {
        return Paragraph::new("").block(Block::bordered());
    };
    let mut lines = Vec::new();
    if !row.answer.is_empty() {
        lines.push(printable(&row.answer));
    }
    let payload: Result<serde_json::Value, _> = serde_json::from_str(&row.event.payload);
    let payload = payload.and_then(|payload| serde_json::to_string_pretty(&payload));
    let payload = payload.unwrap_or_else(|_| row.event.payload.clone());
    lines.extend(payload.lines().map(printable));
    let title = format!(" {} ", row.event.id);
    // The last row stays in sight; a line that is wrapped takes several.
    let width = usize::from(width.saturating_sub(2)).max(1);
    let rows = lines
        .iter()
        .map(|line| line.chars().count().div_ceil(width).max(1));
    let most = u16::try_from(rows.sum::<usize>()).unwrap_or(u16::MAX);
    app.scrolled = app.scrolled.min(most.saturating_sub(1));
    Paragraph::new(lines.into_iter().map(Line::from).collect::<Vec<_>>())
        .scroll((app.scrolled, 0))
        .wrap(Wrap { trim: false })
        .block(Block::bordered().title(title))
}

fn keys(app: &App) -> Line<'_> {
    if app.note.is_empty() {
        Line::from(" ↑↓ select   PgUp PgDn its payload   r resend   End follow   ? marks   q quit")
    } else {
        Line::from(Span::styled(format!(" {}", app.note), STRONG))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossterm::event::KeyCode;
    use pipelet_proto::v1;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::{
        forward::{Attempted, Outcome},
        view::Forwarded,
    };

    fn drawn(width: u16, height: u16, app: &mut App) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn what_came_and_what_became_of_it_is_seen_at_any_size() {
        let mut app = App::new(
            "http://localhost:3000/hooks".to_owned(),
            Some("whsec_made".to_owned()),
        );
        for (number, outcome) in [
            Outcome::Answered(204, String::new()),
            Outcome::Answered(500, "it broke".to_owned()),
            Outcome::NoAnswer("connection refused".to_owned()),
        ]
        .into_iter()
        .enumerate()
        {
            let event = v1::Event {
                id: format!("evt_{number}"),
                event: "StartTransaction".to_owned(),
                station_id: "WALLBOX_001".to_owned(),
                payload: r#"{"connectorId":1}"#.to_owned(),
                ..v1::Event::default()
            };
            app.received(event.clone());
            let attempted = Attempted {
                outcome,
                duration: Duration::from_millis(3),
            };
            let forwarded = Forwarded::new(&event, 1, &attempted);
            let settles = !matches!(attempted.outcome, Outcome::NoAnswer(_));
            app.attempted(forwarded, &attempted.outcome, settles);
        }
        for (width, height) in [(80, 24), (200, 50)] {
            let ui = drawn(width, height, &mut app);
            for seen in [
                "to http://localhost:3000/hooks",
                "✗ no answer: connection refused",
                "3 events: 1 answered well, 1 refused, 1 waiting; 3 POSTs",
                "signed with whsec_made",
                "✓ StartTransaction",
                "✗ StartTransaction",
                "500           3 ms  it broke",
                "… StartTransaction     WALLBOX_001      no answer     3 ms",
                "no answer: connection refused",
                "evt_2",
                "\"connectorId\": 1",
                "r resend",
            ] {
                assert!(ui.contains(seen), "{seen}: {ui}");
            }
        }
        app.handle_key(KeyCode::PageDown);
        assert!(!drawn(80, 24, &mut app).contains("\"connectorId\": 1"));
        app.handle_key(KeyCode::PageUp);
        assert!(drawn(80, 24, &mut app).contains("\"connectorId\": 1"));
        app.handle_key(KeyCode::Char('?'));
        assert!(drawn(80, 24, &mut app).contains("no answer: tried again"));
        // A terminal that is too small is no reason to fail.
        drawn(20, 5, &mut app);
        drawn(80, 24, &mut App::new(String::new(), None));
    }
}
