//! What becomes of a letter on its way: lost by chance or by a cut, or late.

use protocol::{Span, Time};
use rand_chacha::ChaCha8Rng;

use crate::mail::Mail;
use crate::scenario::below;
use crate::shared::Shared;

/// The draws of one part of the world for what it sends.
pub(crate) struct Losses {
    rng: ChaCha8Rng,
}

impl Losses {
    pub(crate) fn new(rng: ChaCha8Rng) -> Losses {
        Losses { rng }
    }

    /// How much later than usual a letter comes; none if it does not.
    pub(crate) fn of(
        &mut self,
        shared: &Shared,
        from: usize,
        to: usize,
        now: Time,
        what: &Mail,
    ) -> Option<Span> {
        if what.is_said() && !shared.reaches(from, to, now) {
            return None;
        }
        if !what.is_control() {
            return Some(Span::ZERO);
        }
        let faults = &shared.scenario.faults;
        let loss = u64::from(faults.request_loss_ppm);
        if loss > 0 && below(&mut self.rng, 1_000_000) < loss {
            return None;
        }
        Some(match faults.jitter_ms {
            0 => Span::ZERO,
            most => Span(below(&mut self.rng, most + 1)),
        })
    }
}
