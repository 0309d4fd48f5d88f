//! The terminal as one screen: for commands that draw instead of printing lines.
//!
//! Invariant: whatever ends the command, an error and a panic included, the terminal is left as it
//! was found. It does not know what is drawn, nor what a key means beyond "end this".

use std::io::{self, IsTerminal as _};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use ratatui::{DefaultTerminal, Frame};

/// The screen, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: DefaultTerminal,
    events: EventStream,
}

/// What the person at the terminal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Key(KeyEvent),
    /// The screen has another size now, and wants to be drawn again.
    Resized,
}

impl Screen {
    /// Whether there is a terminal to draw on and to read keys from.
    pub(crate) fn is_available() -> bool {
        io::stdout().is_terminal() && io::stdin().is_terminal()
    }

    /// Takes the terminal over. Must be called within a runtime.
    pub(crate) fn open() -> io::Result<Self> {
        // This also lets a panic restore the terminal before its message is printed.
        let terminal = ratatui::try_init().inspect_err(|_| {
            let _ = ratatui::try_restore();
        })?;
        Ok(Self {
            terminal,
            events: EventStream::new(),
        })
    }

    pub(crate) fn draw(&mut self, picture: impl FnOnce(&mut Frame)) -> io::Result<()> {
        self.terminal.draw(picture).map(drop)
    }

    /// The next thing that is done at the terminal. Safe to be dropped and asked again.
    pub(crate) async fn input(&mut self) -> io::Result<Input> {
        while let Some(event) = self.events.next().await {
            match event? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    return Ok(Input::Key(key));
                }
                Event::Resize(..) => return Ok(Input::Resized),
                _ => {}
            }
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the terminal is gone",
        ))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = ratatui::try_restore();
    }
}

/// Whether the key means "end this" on every screen: `q`, or Ctrl-C, which is a key like any other
/// while the terminal is raw.
pub(crate) fn is_quit(key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q' | 'Q') => true,
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_every_screen() {
        let key = KeyEvent::new;
        for (pressed, expected) in [
            (key(KeyCode::Char('q'), KeyModifiers::NONE), true),
            (key(KeyCode::Char('Q'), KeyModifiers::SHIFT), true),
            (key(KeyCode::Char('c'), KeyModifiers::CONTROL), true),
            (key(KeyCode::Char('c'), KeyModifiers::NONE), false),
            (key(KeyCode::Char('r'), KeyModifiers::NONE), false),
            (key(KeyCode::Esc, KeyModifiers::NONE), false),
        ] {
            assert_eq!(is_quit(pressed), expected, "{pressed:?}");
        }
    }
}
