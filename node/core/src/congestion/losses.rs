//! Whether losses are the line's own, or say that a queue is full.

/// Bytes are remembered until so many packets were seen; then all counts by half.
const MEMORY_PACKETS: u64 = 1024;
/// More of a hundred lost than this is no line that carries: somebody's queue overflows. BBR draws the
/// line at 2 (draft-ietf-ccwg-bbr, BBR.LossThresh); lines of one in a hundred are to be told from it safely.
const OF_A_HUNDRED: u64 = 3;
/// And fewer than so many are no evidence.
const PACKETS_MIN: u64 = 8;

/// Bytes that arrived and bytes that did not.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    arrived: u64,
    lost: u64,
}

impl Losses {
    pub fn arrived(&mut self, bytes: u64, packet: u64) {
        self.arrived = self.arrived.saturating_add(bytes);
        self.fade(packet);
    }

    pub fn lost(&mut self, bytes: u64, packet: u64) {
        self.lost = self.lost.saturating_add(bytes);
        self.fade(packet);
    }

    /// More than a line loses by itself.
    pub fn are_many(&self, packet: u64) -> bool {
        let all = self.arrived.saturating_add(self.lost);
        self.lost >= PACKETS_MIN.saturating_mul(packet) && self.lost > all / 100 * OF_A_HUNDRED
    }

    /// They were acted upon.
    pub fn forget(&mut self) {
        *self = Losses::default();
    }

    fn fade(&mut self, packet: u64) {
        while self.arrived.saturating_add(self.lost) > MEMORY_PACKETS.saturating_mul(packet) {
            self.arrived /= 2;
            self.lost /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_fifty_is_the_line_and_one_in_twenty_is_a_queue() {
        let check = |every: u64, expected: bool| {
            let mut losses = Losses::default();
            for packet in 0..5_000u64 {
                if packet % every == 0 {
                    losses.lost(1_000, 1_000);
                } else {
                    losses.arrived(1_000, 1_000);
                }
            }
            assert_eq!(losses.are_many(1_000), expected, "one in {every}");
        };
        check(1_000, false);
        check(50, false);
        check(20, true);
        check(2, true);
    }

    #[test]
    fn a_few_are_no_evidence_and_old_ones_fade() {
        let mut losses = Losses::default();
        losses.lost(7_000, 1_000);
        assert!(!losses.are_many(1_000));
        losses.lost(1_000, 1_000);
        assert!(losses.are_many(1_000));
        for _ in 0..2_000 {
            losses.arrived(1_000, 1_000);
        }
        assert!(!losses.are_many(1_000));
        losses.lost(u64::MAX, 1_000);
        losses.lost(u64::MAX, 0);
        losses.arrived(u64::MAX, u64::MAX / 1024);
    }
}
