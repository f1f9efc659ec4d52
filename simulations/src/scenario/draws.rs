//! Everything that is drawn follows from the seed.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// The stream of draws for one purpose: a new draw here changes nothing there.
pub fn stream(seed: u64, purpose: &str) -> ChaCha8Rng {
    let name = protocol::Hash::of(purpose.as_bytes());
    let mut key = name.0;
    for (byte, s) in key.iter_mut().zip(seed.to_le_bytes()) {
        *byte ^= s;
    }
    ChaCha8Rng::from_seed(key)
}

/// A number below `bound`.
pub fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    rng.next_u64() % bound.max(1)
}
