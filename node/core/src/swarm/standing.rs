//! Whether what this node brings over the WAN is of use to its site.
//!
//! A node whose disk is damaged, whose uploads a firewall swallows, or whose word the others do not take
//! for whatever reason may not know it: it would go on bringing its share, and others would bring the same
//! once more. Whoever takes a piece from a node that brings a blob says so. Until somebody did, a node
//! brings a few pieces only; and when nobody takes from it for a lease, it leaves the rest to the others.
//! If nobody else is left, it brings what it needs all the same.

use protocol::limits::{STEP_BACK, STEP_BACK_DOUBLES_MAX, TRIAL_PIECES, TRIAL_WAIT};
use protocol::wire::{Claim, Notice};
use protocol::{NodeId, Span, Time};

use super::blob::Blob;
use super::desk::Desk;

/// This node's standing as one that brings a blob.
#[derive(Default)]
pub(super) struct Standing {
    /// Pieces that it brought since anybody last took one from it, and when the first of them came.
    untaken: usize,
    since: Time,
    /// Somebody took one; what is brought until then is taken for taken, because whoever says that it took
    /// something does not say so again for a while.
    proven_until: Option<Time>,
    /// It leaves it to the others until then; and how often it came to that.
    back_until: Option<Time>,
    times: u32,
}

impl Standing {
    fn bring(&mut self, now: Time) {
        if self.proven_until.is_some_and(|until| now < until) {
            return;
        }
        if self.untaken == 0 {
            self.since = now;
        }
        self.untaken += 1;
    }

    fn took(&mut self, until: Time) {
        *self = Standing {
            proven_until: Some(until),
            ..Standing::default()
        };
    }

    /// When it is to step back, if nobody takes anything until then: soon if nobody ever did, else after a
    /// lease.
    fn overdue(&self, lease: Span) -> Option<Time> {
        let patience = match self.proven_until {
            Some(_) => lease,
            None => lease.min(TRIAL_WAIT),
        };
        (self.untaken >= TRIAL_PIECES && !self.is_back()).then(|| self.since + patience)
    }

    fn step_back(&mut self, now: Time) {
        let span = STEP_BACK.0 << self.times.min(STEP_BACK_DOUBLES_MAX);
        *self = Standing {
            back_until: Some(now + Span(span)),
            times: self.times + 1,
            ..Standing::default()
        };
    }

    fn come_forward(&mut self) {
        (self.back_until, self.untaken) = (None, 0);
    }

    /// It leaves it to the others.
    pub fn is_back(&self) -> bool {
        self.back_until.is_some()
    }

    /// So many pieces more it may bring before anybody took one. What was taken of one blob speaks for the
    /// next.
    fn room(&self, taken: bool) -> usize {
        if taken || self.is_back() {
            usize::MAX
        } else {
            TRIAL_PIECES.saturating_sub(self.untaken)
        }
    }
}

/// So many pieces more this node may bring before anybody took one.
pub(super) fn room(desk: &Desk, blob: &Blob) -> usize {
    blob.standing.room(desk.taken)
}

/// This node brought a piece: is there anybody to take it?
pub(super) fn brought(desk: &Desk, now: Time, blob: &mut Blob, piece: u32) {
    let lacks = |node: &NodeId| {
        let serves = desk.site.serves(node) && !desk.trouble.is_banned(now, node);
        serves && !blob.holders.holds(node, piece)
    };
    if blob.interested.iter().any(lacks) {
        blob.standing.bring(now);
    }
}

/// Somebody took a piece from this node.
pub(super) fn taken(desk: &mut Desk, now: Time, blob: &mut Blob) {
    desk.room_made |= !std::mem::replace(&mut desk.taken, true);
    if blob.standing.is_back() {
        blob.owners.view_changed();
    }
    blob.standing.took(now + pause(desk));
    blob.turns.wan.due = true;
}

/// This node took a piece from `node`.
pub(super) fn thank(desk: &mut Desk, now: Time, blob: &mut Blob, node: &NodeId) {
    if blob.owners.thank(now, node, pause(desk)) {
        let blob = blob.name;
        desk.notify(node, Notice::Took { blob });
    }
}

/// Who took something from a node does not say so again for so long.
fn pause(desk: &Desk) -> Span {
    Span(desk.tempo.claim_lease.0 / 2)
}

/// Steps back when nobody took anything for a lease, and comes forward again when the time has come.
pub(super) fn watch(desk: &mut Desk, now: Time, blob: &mut Blob, lease: Span) {
    match (blob.standing.back_until, blob.standing.overdue(lease)) {
        (Some(until), _) if until <= now => {
            blob.standing.come_forward();
            blob.owners.view_changed();
        }
        (None, Some(overdue)) if overdue <= now => {
            desk.taken = false;
            blob.standing.step_back(now);
            leave_to_others(desk, blob);
        }
        _ => {}
    }
    let next = blob.standing.back_until.or(blob.standing.overdue(lease));
    next.into_iter().for_each(|time| desk.wake_at(time));
}

/// Gives up what it has in hand, which would be of use to nobody else, and says that nothing is to be
/// expected of it.
fn leave_to_others(desk: &mut Desk, blob: &mut Blob) {
    blob.owners.view_changed();
    blob.brought.clear();
    let mine: Vec<u32> = blob.owners.mine().keys().copied().collect();
    for piece in mine {
        blob.owners.let_go(piece);
    }
    blob.cancel(desk, |flight| flight.wan);
    let claim = Claim {
        node: desk.me(),
        blob: blob.name.root,
        pieces: Vec::new(),
        held: false,
        under_way: 0,
    };
    desk.gossip_claim(claim);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Span = Span(5_000);

    #[test]
    fn a_node_brings_few_pieces_until_somebody_took_one_and_then_as_many_as_it_likes() {
        let mut standing = Standing::default();
        for n in 0..TRIAL_PIECES {
            assert_eq!(standing.room(false), TRIAL_PIECES - n);
            assert_eq!(standing.overdue(LEASE), None);
            standing.bring(Time(1_000 + n as u64));
        }
        assert_eq!(standing.room(false), 0);
        assert_eq!(standing.overdue(LEASE), Some(Time(1_000) + TRIAL_WAIT));
        standing.took(Time(9_000));
        (0..100).for_each(|n| standing.bring(Time(8_000 + n)));
        assert_eq!(standing.overdue(LEASE), None);
        // Also later it notices when nobody takes anything any more.
        (0..100).for_each(|n| standing.bring(Time(9_000 + n)));
        assert_eq!(standing.room(true), usize::MAX);
        assert_eq!(standing.overdue(LEASE), Some(Time(14_000)));
    }

    #[test]
    fn who_steps_back_again_does_so_for_twice_as_long_until_somebody_takes_a_piece() {
        let mut standing = Standing::default();
        let mut now = Time(1);
        for times in 0..STEP_BACK_DOUBLES_MAX + 3 {
            standing.step_back(now);
            let span = STEP_BACK.0 << times.min(STEP_BACK_DOUBLES_MAX);
            assert_eq!(standing.back_until, Some(now + Span(span)));
            assert!(standing.is_back() && standing.overdue(LEASE).is_none());
            now = now + Span(span);
            standing.come_forward();
            assert_eq!(
                (standing.is_back(), standing.room(false)),
                (false, TRIAL_PIECES)
            );
        }
        standing.took(now);
        standing.step_back(now);
        assert_eq!(standing.back_until, Some(now + STEP_BACK));
    }
}
