//! Rule: no start after a halt or a recall was delivered to that node.
//!
//! What counts is the highest number that was delivered, whatever came in between: a resume that is
//! older than the halt lifts nothing. A recall is never lifted.

use std::collections::BTreeMap;

use protocol::orders::{Order, OrderBody};
use protocol::{RolloutId, Seq, Time};

/// What each node was told of stopping, by node and rollout.
#[derive(Default)]
pub struct Halts {
    told: BTreeMap<usize, Vec<(RolloutId, Told)>>,
}

#[derive(Clone, Copy)]
struct Told {
    seq: Seq,
    halted: bool,
    recalled: bool,
    /// In virtual time.
    at: Time,
}

impl Halts {
    /// A node was told an order, in virtual time; `recall` says whether the recall in it is believed,
    /// because without the approval of the plans role it is worth nothing.
    pub fn delivered(&mut self, at: Time, node: usize, order: &Order, recall: bool) {
        let (rollout, halted, recalled) = match &order.body {
            OrderBody::Halt { rollout, .. } => (rollout, true, false),
            OrderBody::Resume { rollout } => (rollout, false, false),
            OrderBody::Recall { rollout, .. } if recall => (rollout, false, true),
            _ => return,
        };
        let mine = self.told.entry(node).or_default();
        let told = match mine.iter_mut().position(|(id, _)| id == rollout) {
            Some(i) => &mut mine[i].1,
            None => {
                let nothing = Told {
                    seq: Seq::default(),
                    halted: false,
                    recalled: false,
                    at,
                };
                mine.push((rollout.clone(), nothing));
                let last = mine.len() - 1;
                &mut mine[last].1
            }
        };
        if recalled {
            told.recalled = true;
            told.at = at;
        } else if order.seq > told.seq {
            (told.seq, told.halted, told.at) = (order.seq, halted, at);
        }
    }

    /// A node starts.
    ///
    /// # Errors
    /// Why it may not.
    pub fn start(&self, node: usize, rollout: &RolloutId) -> Result<(), String> {
        let mine = self.told.get(&node).into_iter().flatten();
        match mine.into_iter().find(|(id, _)| id == rollout) {
            Some((_, told)) if told.recalled => Err(format!(
                "the recall of {rollout} was delivered to it at {} ms",
                told.at.0
            )),
            Some((_, told)) if told.halted => Err(format!(
                "the halt of {rollout} was delivered to it at {} ms",
                told.at.0
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::Fleet;

    #[test]
    fn a_start_after_a_delivered_halt_is_seen() {
        let fleet = Fleet::new(1);
        let id: RolloutId = "r".parse().unwrap();
        let halt = |n| {
            let (rollout, reason) = (id.clone(), "stop".into());
            fleet.order(n, OrderBody::Halt { rollout, reason })
        };
        let resume = |n| {
            fleet.order(
                n,
                OrderBody::Resume {
                    rollout: id.clone(),
                },
            )
        };
        let mut halts = Halts::default();
        assert_eq!(halts.start(1, &id), Ok(()));
        halts.delivered(Time(10), 1, &halt(5), false);
        assert!(halts.start(1, &id).is_err());
        assert_eq!(halts.start(2, &id), Ok(()), "delivered to another");
        assert_eq!(halts.start(1, &"other".parse().unwrap()), Ok(()));
        halts.delivered(Time(11), 1, &resume(4), false);
        assert!(
            halts.start(1, &id).is_err(),
            "an older resume lifts nothing"
        );
        halts.delivered(Time(12), 1, &resume(6), false);
        assert_eq!(halts.start(1, &id), Ok(()));
        halts.delivered(Time(13), 1, &halt(5), false);
        assert_eq!(halts.start(1, &id), Ok(()), "an older halt is over");
        let statement = fleet.release("app", "1", 1);
        let statement = fleet.verified(&statement).envelope().clone();
        let rollout = id.clone();
        let recall = fleet.order(7, OrderBody::Recall { rollout, statement });
        halts.delivered(Time(14), 1, &recall, false);
        assert_eq!(halts.start(1, &id), Ok(()), "nobody approved it");
        halts.delivered(Time(15), 1, &recall, true);
        halts.delivered(Time(16), 1, &resume(8), false);
        assert!(halts.start(1, &id).is_err(), "a recall is not lifted");
    }
}
