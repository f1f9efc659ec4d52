//! What of a round trip is the path's, and what is a queue's.

use super::Micros;

/// The base delay is the least of so many spans (RFC 6817's BASE_HISTORY), the running one included: long
/// enough that a neighbour's download is not taken for the path, short enough that a longer path is
/// believed in the end.
const SPANS: usize = 5;
/// See [`SPANS`].
const SPAN: Micros = Micros::from_millis(60_000);
/// The present delay is the least of so many batches of acknowledgements (RFC 6817's CURRENT_FILTER):
/// a batch may hold an acknowledgement that its sender put off, or that waited for a processor.
const BATCHES: usize = 4;

/// The least delay of the last minutes.
#[derive(Clone, Debug)]
pub(super) struct BaseDelay {
    least: [Option<Micros>; SPANS],
    span: u64,
}

impl BaseDelay {
    pub fn new() -> BaseDelay {
        BaseDelay {
            least: [None; SPANS],
            span: 0,
        }
    }

    pub fn note(&mut self, now: Micros, delay: Micros) {
        // A clock that goes back stays in the span that it was in.
        let span = (now.0 / SPAN.0).max(self.span);
        for past in (self.span..span).take(SPANS) {
            let forgotten = (past + 1) as usize % SPANS;
            self.least[forgotten] = None;
        }
        if span - self.span >= SPANS as u64 {
            self.least = [None; SPANS];
        }
        self.span = span;
        let least = &mut self.least[span as usize % SPANS];
        *least = Some(least.map_or(delay, |l| l.min(delay)));
    }

    /// None before anything was noted.
    pub fn get(&self) -> Option<Micros> {
        self.least.iter().flatten().min().copied()
    }
}

/// The least delay of the last batches.
#[derive(Clone, Debug)]
pub(super) struct PresentDelay {
    batches: [Option<Micros>; BATCHES],
    next: usize,
}

impl PresentDelay {
    pub fn new() -> PresentDelay {
        PresentDelay {
            batches: [None; BATCHES],
            next: 0,
        }
    }

    pub fn note(&mut self, least_of_batch: Micros) {
        self.batches[self.next] = Some(least_of_batch);
        self.next = (self.next + 1) % BATCHES;
    }

    /// None before anything was noted.
    pub fn get(&self) -> Option<Micros> {
        self.batches.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn the_base_is_the_least_of_the_last_minutes() {
        let mut base = BaseDelay::new();
        assert_eq!(base.get(), None);
        base.note(Micros::from_millis(30_000), Micros(20_000));
        for minute in 1..5 {
            base.note(
                Micros::from_millis(minute * MINUTE),
                Micros(50_000 + minute),
            );
            assert_eq!(base.get(), Some(Micros(20_000)), "minute {minute}");
        }
        base.note(Micros::from_millis(5 * MINUTE), Micros(50_005));
        assert_eq!(base.get(), Some(Micros(50_001)), "the short path is past");
        base.note(Micros::from_millis(50 * MINUTE), Micros(60_000));
        assert_eq!(base.get(), Some(Micros(60_000)), "after a long silence");
        base.note(Micros::from_millis(MINUTE), Micros(10));
        assert_eq!(base.get(), Some(Micros(10)), "a clock that went back");
    }

    #[test]
    fn a_late_acknowledgement_is_no_queue() {
        let mut present = PresentDelay::new();
        for late in [900, 25_000, 26_000, 25_000] {
            present.note(Micros(late));
            assert_eq!(present.get(), Some(Micros(900)));
        }
        present.note(Micros(24_000));
        assert_eq!(present.get(), Some(Micros(24_000)));
    }
}
