//! Rule: nobody bans a peer that is honest. A ban is for ever, so one that is wrong splits a site.

/// A node bans a peer, of which it is known whether it was made to lie.
///
/// # Errors
/// When the peer is honest.
pub fn banned(peer: usize, lies: bool, why: &str) -> Result<(), String> {
    if lies {
        return Ok(());
    }
    Err(format!("it bans node {peer} ({why}), which is honest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_of_an_honest_peer_is_seen() {
        assert_eq!(banned(3, true, "wrong bytes"), Ok(()));
        assert!(banned(4, false, "wrong bytes").is_err());
    }
}
