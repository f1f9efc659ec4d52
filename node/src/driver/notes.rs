//! Typed events for the log, bounded: a hostile peer fills no disk.

use std::time::{Duration, Instant};

/// Lines that are logged within [`SPELL`]; further ones are only counted.
const LINES_MAX: u32 = 100;
const SPELL: Duration = Duration::from_secs(10);

/// Writes typed events to the log.
#[derive(Debug, Default)]
pub struct Notes {
    spell: Option<Instant>,
    lines: u32,
}

impl Notes {
    /// One event: a short name and one line with the culprit and what was done.
    pub fn say(&mut self, event: &'static str, line: impl AsRef<str>) {
        let now = Instant::now();
        if self.spell.is_none_or(|since| now - since > SPELL) {
            if self.lines > LINES_MAX {
                tracing::warn!(
                    event = "flood",
                    "{} more events were not logged",
                    self.lines - LINES_MAX
                );
            }
            (self.spell, self.lines) = (Some(now), 0);
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines <= LINES_MAX {
            tracing::warn!(event, "{}", line.as_ref());
        }
    }
}
