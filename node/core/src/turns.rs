//! Whose turn it is among those who send under one cap.
//!
//! The most urgent class goes first. A less urgent one that waits gets every sixteenth turn all the same:
//! a fetch that got nothing at all would be given up as stalled, and begun again elsewhere for nothing.

use protocol::wire::Class;

/// Classes, the least urgent first.
pub const CLASSES: [Class; 3] = [Class::Background, Class::Normal, Class::Emergency];
/// A class that waits is passed over so often in a row at most.
const PASSED_MAX: u32 = 15;

/// Turns of one cap.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// How often in a row each class was passed over while it waited.
    passed: [u32; CLASSES.len()],
}

impl Turns {
    /// The next of the classes that wait (in the order of [`CLASSES`]); none if none does.
    pub fn next(&mut self, waits: [bool; CLASSES.len()]) -> Option<Class> {
        let starved = (0..CLASSES.len()).find(|n| waits[*n] && self.passed[*n] >= PASSED_MAX);
        let urgent = (0..CLASSES.len()).rev().find(|n| waits[*n]);
        let next = starved.or(urgent)?;
        for (n, passed) in self.passed.iter_mut().enumerate() {
            *passed = if n == next || !waits[n] {
                0
            } else {
                *passed + 1
            };
        }
        Some(CLASSES[next])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_urgent_go_first_and_nobody_starves() {
        let mut turns = Turns::default();
        assert_eq!(turns.next([false; 3]), None);
        let mut count = [0; 3];
        for _ in 0..1_600 {
            let next = turns.next([true; 3]).expect("all wait");
            count[next as usize] += 1;
        }
        assert_eq!(count.iter().sum::<u32>(), 1_600);
        assert!(count[2] >= 1_400, "{count:?}");
        assert!(count[0] >= 90 && count[1] >= 90, "{count:?}");
    }

    proptest! {
        #[test]
        fn a_turn_goes_to_one_who_waits_and_no_wait_is_long(
            waits in prop::collection::vec(prop::array::uniform3(any::<bool>()), 1..200),
        ) {
            let mut turns = Turns::default();
            let mut waited = [0u32; 3];
            for waits in waits {
                let next = turns.next(waits).map(|class| class as usize);
                prop_assert_eq!(next.is_some(), waits.contains(&true));
                prop_assert!(next.is_none_or(|n| waits[n]));
                for n in 0..3 {
                    waited[n] = if waits[n] && next != Some(n) { waited[n] + 1 } else { 0 };
                    // two others may be due at the same moment
                    prop_assert!(waited[n] <= PASSED_MAX + 2);
                }
            }
        }
    }
}
