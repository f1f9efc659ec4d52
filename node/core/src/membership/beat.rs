//! The beat: delegates tell now and then which orders they have and whom they see, so that whoever
//! missed something notices. The pauses are Trickle's (RFC 6206): short after a change, doubling in
//! peace, and not at all if the other delegate said the same meanwhile.

use protocol::limits::{BEAT_MAX, BEAT_MIN};
use protocol::wire::{Beat, SiteMessage};
use protocol::{NodeId, Now, Seq, Span, Time};

use super::{Membership, Surroundings};
use crate::contract::Action;

/// The state of Trickle.
#[derive(Default)]
pub(super) struct Beats {
    /// When this node beats, if it does.
    at: Option<Time>,
    interval: Span,
    /// Somebody said the same since the interval began.
    echoed: bool,
    /// The head and the view of the last interval.
    known: Option<(Seq, u64)>,
    count: u32,
}

impl Beats {
    pub(super) fn due(&self) -> Option<Time> {
        self.at
    }
}

impl Membership {
    /// This node's view of the site as a number: equal views have equal ones.
    pub(super) fn view(&self) -> u64 {
        self.prints ^ self.my_print
    }

    /// A node of the site told where it stands. True if it has orders which this one lacks.
    pub(crate) fn beat(&mut self, from: NodeId, beat: Beat, head: Seq, now: Now) -> bool {
        if self.site.is_none() || from == self.me {
            return false;
        }
        let own = self.view();
        self.compare_views(from, beat.view, own, now);
        if beat.head > head {
            if self.members.contains_key(&from) {
                self.ahead.insert(from, beat.head);
            }
            return true;
        }
        if (beat.head, beat.view) == (head, own) {
            self.beats.echoed = true;
            if !self.is_delegate() {
                self.beats.at = None;
            }
        } else if beat.head < head || self.is_delegate() {
            // The one who is behind hears it from somebody soon.
            self.beat_soon(now);
        }
        false
    }

    /// This node's head of the orders.
    pub(crate) fn set_head(&mut self, head: Seq, now: Now) {
        if self.head == head {
            return;
        }
        self.head = head;
        self.ahead.retain(|_, told| *told > head);
        if self.is_delegate() && !self.members.is_empty() {
            self.beat_soon(now);
        }
    }

    fn beat_soon(&mut self, now: Now) {
        let soon = self.beats.at.is_some_and(|at| at <= now.boot + BEAT_MIN);
        if !soon {
            self.beats.interval = BEAT_MIN;
            self.begin_interval(now);
        }
    }

    fn begin_interval(&mut self, now: Now) {
        let half = self.beats.interval.0 / 2;
        self.beats.echoed = false;
        self.beats.at = Some(Time(now.boot.0 + half + self.draw(Span(half)).0));
    }

    pub(super) fn tend_beats(&mut self, now: Now, around: &mut Surroundings<'_>) {
        let delegate = self.is_delegate() && !self.members.is_empty();
        if !delegate && self.beats.at.is_none() {
            return;
        }
        let own = (around.head, self.view());
        if delegate && self.beats.known != Some(own) {
            self.beats.known = Some(own);
            self.beat_soon(now);
        }
        if self.beats.at.is_none_or(|at| at > now.boot) {
            return;
        }
        if !self.beats.echoed {
            self.beats.count = self.beats.count.wrapping_add(1);
            let (head, view) = own;
            let count = self.beats.count;
            let beat = Beat { head, view, count };
            around.out.push(Action::Gossip(SiteMessage::Beat(beat)));
        }
        if delegate {
            let doubled = self.beats.interval.0.saturating_mul(2);
            self.beats.interval = Span(doubled.clamp(BEAT_MIN.0, BEAT_MAX.0));
            self.begin_interval(now);
        } else {
            self.beats.at = None;
        }
    }
}
