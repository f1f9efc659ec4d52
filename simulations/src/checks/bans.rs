//! Rule: nobody bans a peer that is honest. A ban is for ever, so one that is wrong splits a site.

use std::collections::BTreeSet;

/// Who is known to lie.
#[derive(Default)]
pub struct Bans {
    liars: BTreeSet<usize>,
}

impl Bans {
    /// A node is made to lie.
    pub fn lies(&mut self, node: usize) {
        self.liars.insert(node);
    }

    /// A node bans a peer.
    ///
    /// # Errors
    /// When the peer is honest.
    pub fn banned(&self, peer: usize, why: &str) -> Result<(), String> {
        if self.liars.contains(&peer) {
            return Ok(());
        }
        Err(format!("it bans node {peer} ({why}), which is honest"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_of_an_honest_peer_is_seen() {
        let mut bans = Bans::default();
        bans.lies(3);
        assert_eq!(bans.banned(3, "wrong bytes"), Ok(()));
        assert!(bans.banned(4, "wrong bytes").is_err());
    }
}
