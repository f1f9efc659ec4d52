//! Rule: queues, tables and messages stay within their limits, the protocol's and the simulator's own.

use protocol::limits::{
    CONNECTIONS_MAX, CONTROL_REQUESTS_MAX, FETCHES_MAX, FETCHES_PER_PEER_MAX, GOSSIP_MAX_BYTES,
    UPLINK_STATUSES_MAX,
};

/// Actions that a brain may ask for in answer to one event.
pub const ACTIONS_MAX: usize = 20_000;
/// Timeouts in a row after each of which a brain is due again at once.
pub const SPINS_MAX: usize = 20;

/// Something that has a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limited {
    /// Actions in answer to one event.
    Actions,
    /// Timeouts after which a brain was due at once.
    Spins,
    /// A node's fetches under way.
    Fetches,
    /// Those of them with one peer.
    FetchesWithPeer,
    /// A node's control connections inside its site.
    Connections,
    /// A node's control requests under way.
    Requests,
    /// Bytes of a gossip message.
    GossipBytes,
    /// Statuses in one uplink.
    UplinkStatuses,
}

impl Limited {
    /// Its limit.
    pub fn most(self) -> usize {
        match self {
            Limited::Actions => ACTIONS_MAX,
            Limited::Spins => SPINS_MAX,
            Limited::Fetches => FETCHES_MAX,
            Limited::FetchesWithPeer => FETCHES_PER_PEER_MAX,
            Limited::Connections => CONNECTIONS_MAX as usize,
            Limited::Requests => CONTROL_REQUESTS_MAX,
            Limited::GossipBytes => GOSSIP_MAX_BYTES,
            Limited::UplinkStatuses => UPLINK_STATUSES_MAX,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Limited::Actions => "actions in answer to one event",
            Limited::Spins => "timeouts in a row that were due at once",
            Limited::Fetches => "fetches under way",
            Limited::FetchesWithPeer => "fetches under way with one peer",
            Limited::Connections => "control connections",
            Limited::Requests => "control requests under way",
            Limited::GossipBytes => "bytes in a gossip message",
            Limited::UplinkStatuses => "statuses in an uplink",
        }
    }

    /// Holds what there is against the limit.
    ///
    /// # Errors
    /// How much it is over.
    pub fn holds(self, there_are: usize) -> Result<(), String> {
        if there_are <= self.most() {
            return Ok(());
        }
        Err(format!(
            "{there_are} {}, at most {} are allowed",
            self.what(),
            self.most()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_over_any_limit_is_seen() {
        use Limited as L;
        let all = [
            L::Actions,
            L::Spins,
            L::Fetches,
            L::FetchesWithPeer,
            L::Connections,
            L::Requests,
            L::GossipBytes,
            L::UplinkStatuses,
        ];
        for limited in all {
            assert_eq!(limited.holds(0), Ok(()));
            assert_eq!(limited.holds(limited.most()), Ok(()), "{limited:?}");
            assert!(limited.holds(limited.most() + 1).is_err(), "{limited:?}");
        }
        let why = L::Fetches.holds(33).unwrap_err();
        assert_eq!(why, "33 fetches under way, at most 32 are allowed");
    }
}
