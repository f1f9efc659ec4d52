//! How many pieces the origin has on their way at once that no site holds: as many as come in time.
//!
//! Nobody tells the origin what its own uplink carries, so it finds out: every piece that comes in
//! about the time that its receiver's link takes makes room for one more, and one that is late makes
//! the window smaller (additive increase, multiplicative decrease: Chiu & Jain, 1989). Fewer at once are
//! sooner whole, and only whole ones are handed on.

use protocol::Span;

/// Pieces under way at the beginning, at the least and at the most.
const FIRST: f64 = 4.0;
const LEAST: f64 = 2.0;
const MOST: f64 = 1024.0;
/// A piece may take so much longer than its receiver's link takes.
const LATE: f64 = 1.5;
/// And so much more.
const LATE_MORE: Span = Span::from_secs(1);
/// What is left of the window after a piece was late.
const BACK: f64 = 0.8;

/// The window.
pub(super) struct Window {
    open: f64,
    under_way: u32,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            open: FIRST,
            under_way: 0,
        }
    }
}

impl Window {
    pub fn has_room(&self) -> bool {
        f64::from(self.under_way) + 1.0 <= self.open
    }

    pub fn begin(&mut self) {
        self.under_way += 1;
    }

    /// A piece took so long, and was to take so long at its receiver.
    pub fn end(&mut self, took: Span, takes: Span) {
        let busy = f64::from(self.under_way) + 1.0 > self.open;
        self.under_way -= 1;
        if took.0 as f64 > takes.0 as f64 * LATE + LATE_MORE.0 as f64 {
            self.open = (self.open * BACK).max(LEAST);
        } else if busy {
            // A window that is not used shows nothing.
            self.open = (self.open + 1.0).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_while_pieces_come_in_time_and_closes_when_they_are_late() {
        let mut window = Window::default();
        let fill = |window: &mut Window| {
            let before = window.under_way;
            while window.has_room() {
                window.begin();
            }
            window.under_way - before
        };
        assert_eq!(fill(&mut window), 4);
        window.end(Span::from_secs(1), Span::from_secs(1));
        assert_eq!(fill(&mut window), 2);
        for _ in 0..5 {
            window.end(Span::from_secs(30), Span::from_secs(1));
        }
        assert_eq!((fill(&mut window), window.under_way), (2, 2));
        window.end(Span::from_secs(1), Span::from_secs(1));
        window.end(Span::from_secs(1), Span::from_secs(1));
        assert_eq!(
            fill(&mut window),
            3,
            "one of the two came while it was full"
        );
    }
}
