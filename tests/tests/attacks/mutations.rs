//! What chance makes of good bytes.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// At least so many mutated cases belong to a row that takes input.
pub const CASES: usize = 1_000;

/// A stream of damages; the same seed gives the same ones.
pub struct Mutations(ChaCha8Rng);

impl Mutations {
    pub fn new(seed: u64) -> Mutations {
        Mutations(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.next_u32() as usize % end
    }

    /// `bytes` with one to three damages; never as they were.
    pub fn of(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..1 + self.below(3) {
            self.damage(&mut out);
        }
        if out == bytes {
            out.push(0);
        }
        out
    }

    fn damage(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() {
            return out.push(self.below(256) as u8);
        }
        let at = self.below(out.len());
        let run = at..(at + 1 + self.below(16)).min(out.len());
        match self.below(9) {
            0 => out[at] ^= 1 << self.below(8),
            1 => out[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            2 => out.truncate(at),
            3 => drop(out.drain(run)),
            4 => out.insert(at, self.below(256) as u8),
            5 => {
                let again = out[run].to_vec();
                let place = self.below(out.len());
                out.splice(place..place, again);
            }
            6 => {
                let other = self.below(out.len());
                out.swap(at, other);
            }
            7 => out[run].fill(0xff),
            _ => {
                let words: [&[u8]; 6] = [b"[[[[[[[[", b"\"\"", b"{}", b"null", b"-1", b"1e999"];
                let word = words[self.below(words.len())].to_vec();
                out.splice(at..at, word);
            }
        }
    }
}
