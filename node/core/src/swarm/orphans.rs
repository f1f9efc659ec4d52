//! Pieces that somebody had begun to bring, or that nobody else had yet, when it was lost from sight.
//!
//! Mostly it comes back: it was killed and is started again, it got another address, its link was cut. Then it
//! goes on with what it has, and whoever took the piece over would have brought it once more. So such a
//! piece comes last, as long as there is anything else to bring, and for a while at most.

use std::collections::BTreeMap;

use protocol::Time;
use protocol::limits::{ORPHAN_PATIENCE, ORPHANS_MAX};

/// The pieces, and until when each is left to whoever had begun it.
#[derive(Default)]
pub(super) struct Orphans(BTreeMap<u32, Time>);

impl Orphans {
    pub fn add(&mut self, now: Time, pieces: impl Iterator<Item = u32>) {
        self.0.retain(|_, until| now < *until);
        let until = now + ORPHAN_PATIENCE;
        for piece in pieces {
            if self.0.len() >= ORPHANS_MAX {
                return;
            }
            self.0.insert(piece, until);
        }
    }

    /// It is brought, or is in the site.
    pub fn remove(&mut self, piece: u32) {
        self.0.remove(&piece);
    }

    /// Of `own`, which pieces to bring now, and when that may change. `missing` is all that somebody has to
    /// bring: while others bring some of it, the link is not idle.
    pub fn put_off(&self, now: Time, own: Vec<u32>, missing: &[u32]) -> (Vec<u32>, Option<Time>) {
        let until = |piece: &u32| self.0.get(piece).copied().filter(|until| now < *until);
        if self.0.is_empty() || missing.iter().all(|piece| until(piece).is_some()) {
            return (own, None);
        }
        let next = own.iter().filter_map(until).min();
        let first = own.into_iter().filter(|piece| until(piece).is_none());
        (first.collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Span;

    #[test]
    fn an_orphan_waits_while_there_is_anything_else_to_bring_and_a_while_at_most() {
        let mut orphans = Orphans::default();
        let (now, until) = (Time(5), Time(5) + ORPHAN_PATIENCE);
        orphans.add(now, [1, 3].into_iter());
        let put_off = |orphans: &Orphans, now, own: &[u32], missing: &[u32]| {
            orphans.put_off(now, own.to_vec(), missing)
        };
        let all = [1, 2, 3, 4];
        assert_eq!(
            put_off(&orphans, now, &[1, 2], &all),
            (vec![2], Some(until))
        );
        assert_eq!(put_off(&orphans, now, &[1, 3], &all), (vec![], Some(until)));
        assert_eq!(put_off(&orphans, now, &[1], &[1, 3]), (vec![1], None));
        orphans.remove(1);
        assert_eq!(
            put_off(&orphans, now, &[1, 3], &all),
            (vec![1], Some(until))
        );
        assert_eq!(put_off(&orphans, until, &[1, 3], &all), (vec![1, 3], None));
    }

    #[test]
    fn no_more_orphans_are_remembered_than_may_be() {
        let mut orphans = Orphans::default();
        let many = ORPHANS_MAX as u32 + 7;
        orphans.add(Time(0), 0..many);
        assert_eq!(orphans.0.len(), ORPHANS_MAX);
        let own: Vec<u32> = (0..many).collect();
        assert_eq!(orphans.put_off(Time(1), own.clone(), &own).0.len(), 7);
        orphans.add(Time(0) + ORPHAN_PATIENCE + Span(1), many..many + 1);
        assert_eq!(orphans.0.len(), 1, "what nobody waits for is forgotten");
    }
}
