//! Who brings which piece over the site's WAN: fetchers, owners, claims, leases.
//!
//! Everybody ranks the same candidates (those who said that they fetch the blob) by rendezvous
//! hashing and comes to the same fetchers and the same owner of each piece without a word. Claims
//! mend what differing views break: a claim that stands is respected by everyone, whatever the ranks
//! say; of two that meet while they wait, the lower rank proceeds. Whoever is expected to bring a
//! piece and gives no sign of it for a lease has stalled: the ranks are drawn again without it, until
//! it is heard of.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::{FETCHERS_MAX, SINGLE_FETCHER_BELOW_BYTES_PER_S};
use protocol::pieces::PieceSet;
use protocol::positions::rank;
use protocol::wire::Claim;
use protocol::{Hash, NodeId, Span, Time};

/// How many fetchers a blob of `pieces` pieces has in a site with this cap (bytes a second).
pub(super) fn fetcher_count(cap: Option<u64>, pieces: u32) -> usize {
    let thin = cap.is_some_and(|cap| cap < SINGLE_FETCHER_BELOW_BYTES_PER_S);
    if thin || pieces <= 1 { 1 } else { FETCHERS_MAX }
}

/// The weight of `node` as owner of a piece; lowest owns it.
pub(super) fn owner_rank(root: &Hash, piece: u32, node: &NodeId) -> u64 {
    let mut about = [0; 36];
    about[..32].copy_from_slice(&root.0);
    about[32..].copy_from_slice(&piece.to_le_bytes());
    rank("owner", &about, node)
}

/// Candidates in the order in which they become fetchers.
pub(super) fn fetcher_order(root: &Hash, candidates: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let mut ranked: Vec<(u64, NodeId)> = candidates
        .map(|node| (rank("fetcher", &root.0, &node), node))
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, node)| node).collect()
}

/// What is left of a claim or an expectation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lease {
    /// It stands until then, if nothing is heard.
    Until(Time),
    /// It has lapsed; the ranks were drawn again.
    Lapsed,
}

/// What a foreign claim means for this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clash {
    /// Nothing of mine is touched.
    None,
    /// The claimer does not know that I have it in hand: say so.
    Mine,
}

/// What was heard of another node that fetches the blob.
#[derive(Clone, Copy)]
struct Sign {
    /// Any sign.
    heard: Time,
    /// It had something to show.
    won: Time,
}

/// A node is out of the ranking until it does better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stall {
    /// It was silent; any sign brings it back.
    Silent,
    /// It renewed its claims and won nothing; only a piece brings it back.
    Idle,
    /// It says that it has pieces and does not hand them out; only a fetch from it brings it back.
    Mute,
}

/// The state of one piece that this node claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mine {
    /// Claimed; may proceed from then on, unless a better claim comes.
    Waiting(Time),
    /// A fetch over the WAN is under way.
    Flying,
}

/// Ownership of one blob's pieces in one node's view.
pub(super) struct Owners {
    root: Hash,
    pieces: u32,
    others: BTreeMap<NodeId, Sign>,
    stalled: BTreeMap<NodeId, Stall>,
    /// Everyone eligible in fetcher order; the first `count` are the fetchers.
    ranked: Vec<NodeId>,
    count: usize,
    /// The view changed: rank again before the next question.
    stale: bool,
    natural: BTreeMap<u32, NodeId>,
    claims: BTreeMap<u32, NodeId>,
    declined: BTreeMap<NodeId, PieceSet>,
    lapsed: BTreeSet<u32>,
    expected: BTreeMap<NodeId, Time>,
    mine: BTreeMap<u32, Mine>,
}

impl Owners {
    pub fn new(root: Hash, pieces: u32) -> Owners {
        Owners {
            root,
            pieces,
            others: BTreeMap::new(),
            stalled: BTreeMap::new(),
            ranked: Vec::new(),
            count: 1,
            stale: true,
            natural: BTreeMap::new(),
            claims: BTreeMap::new(),
            declined: BTreeMap::new(),
            lapsed: BTreeSet::new(),
            expected: BTreeMap::new(),
            mine: BTreeMap::new(),
        }
    }

    /// Members, caps or my own eligibility changed.
    pub fn view_changed(&mut self) {
        self.stale = true;
    }

    /// Ranks again if something changed. `me` is `None` while I may own nothing; `serves` says who
    /// of the others may. True if the ranking is a new one.
    pub fn rank_again(
        &mut self,
        me: Option<NodeId>,
        count: usize,
        serves: impl Fn(&NodeId) -> bool,
    ) -> bool {
        if !self.stale && self.count == count {
            return false;
        }
        let others = self
            .others
            .keys()
            .filter(|n| !self.stalled.contains_key(n) && serves(n))
            .copied();
        let ranked = fetcher_order(&self.root, others.chain(me));
        let new = ranked != self.ranked || count != self.count;
        if new {
            self.natural.clear();
        }
        (self.ranked, self.count, self.stale) = (ranked, count, false);
        new
    }

    /// The fetchers, best first.
    pub fn fetchers(&self) -> &[NodeId] {
        &self.ranked[..self.count.min(self.ranked.len())]
    }

    /// Who brings `piece`: whoever claimed it, else the lowest owner rank among the fetchers, else
    /// among all who fetch the blob; those who declined it are passed over. `me` if nobody is left.
    pub fn owner(&mut self, piece: u32, me: NodeId) -> NodeId {
        if let Some(node) = self.claims.get(&piece) {
            return *node;
        }
        if let Some(node) = self.natural.get(&piece) {
            return *node;
        }
        let fit = |node: &&NodeId| {
            !self
                .declined
                .get(*node)
                .is_some_and(|set| set.contains(piece))
        };
        let weight = |node: &&NodeId| owner_rank(&self.root, piece, node);
        let (fetchers, rest) = self.ranked.split_at(self.count.min(self.ranked.len()));
        let best = fetchers.iter().filter(fit).min_by_key(weight);
        let owner = best
            .or_else(|| rest.iter().filter(fit).min_by_key(weight))
            .copied()
            .unwrap_or(me);
        self.natural.insert(piece, owner);
        owner
    }

    /// Whether another comes before me for `piece`.
    fn outranks(&self, piece: u32, other: &NodeId, me: &NodeId) -> bool {
        let key = |node: &NodeId| {
            (
                !self.fetchers().contains(node),
                owner_rank(&self.root, piece, node),
                *node,
            )
        };
        key(other) < key(me)
    }

    /// `node` gave a sign that it fetches the blob. True if that was news.
    pub fn heard(&mut self, now: Time, node: NodeId) -> bool {
        let known = self.others.insert(
            node,
            Sign {
                heard: now,
                won: self.others.get(&node).map_or(now, |s| s.won),
            },
        );
        let back = self.stalled.get(&node) == Some(&Stall::Silent);
        if back {
            self.stalled.remove(&node);
        }
        self.stale |= known.is_none() || back;
        known.is_none()
    }

    /// `node` holds a piece more. Only for nodes that fetch the blob this is a sign.
    pub fn showed(&mut self, now: Time, node: &NodeId) {
        if let Some(sign) = self.others.get_mut(node) {
            *sign = Sign {
                heard: now,
                won: now,
            };
            if self.stalled.get(node) != Some(&Stall::Mute) {
                self.stale |= self.stalled.remove(node).is_some();
            }
        }
    }

    /// `node` does not hand out what it says it has: nothing is expected of it.
    pub fn distrust(&mut self, node: NodeId) {
        self.stalled.insert(node, Stall::Mute);
        self.expected.remove(&node);
        self.drop_claims(&node);
        self.stale = true;
    }

    /// `node` handed out a piece.
    pub fn trust(&mut self, node: &NodeId) {
        self.stale |= self.stalled.remove(node).is_some();
    }

    /// `node` is not in the site any more.
    pub fn gone(&mut self, node: &NodeId) {
        self.others.remove(node);
        self.stalled.remove(node);
        self.declined.remove(node);
        self.expected.remove(node);
        self.drop_claims(node);
        self.stale = true;
    }

    /// A claim was gossiped by a member that may own. Pieces that the blob does not have are nothing.
    pub fn claimed(&mut self, now: Time, claim: &Claim, me: NodeId) -> Clash {
        let node = claim.node;
        if claim.held {
            self.heard(now, node);
        }
        let mut clash = Clash::None;
        for &piece in claim.pieces.iter().filter(|piece| **piece < self.pieces) {
            if !claim.held {
                if self.claims.get(&piece) == Some(&node) {
                    self.claims.remove(&piece);
                }
                let len = self.pieces;
                self.declined
                    .entry(node)
                    .or_insert_with(|| PieceSet::empty(len))
                    .insert(piece);
                self.natural.remove(&piece);
                continue;
            }
            if self
                .declined
                .get_mut(&node)
                .is_some_and(|set| set.remove(piece))
            {
                self.natural.remove(&piece);
            }
            match self.mine.get(&piece) {
                Some(Mine::Flying) => {
                    clash = Clash::Mine;
                    continue;
                }
                Some(Mine::Waiting(_)) if self.outranks(piece, &me, &node) => {
                    clash = Clash::Mine;
                    continue;
                }
                Some(Mine::Waiting(_)) => {
                    self.mine.remove(&piece);
                }
                None => {}
            }
            if self.stalled.contains_key(&node) {
                continue;
            }
            let before = self.claims.get(&piece).copied();
            if before.is_none_or(|before| self.outranks(piece, &node, &before)) {
                self.claims.insert(piece, node);
            }
        }
        clash
    }

    /// `owner` is expected to bring something: how long is that to be believed?
    pub fn expect(&mut self, now: Time, owner: NodeId, lease: Span, patience: Span) -> Lease {
        let since = *self.expected.entry(owner).or_insert(now);
        let sign = self.others.get(&owner).copied().unwrap_or(Sign {
            heard: since,
            won: since,
        });
        let silent = sign.heard.max(since) + lease;
        let idle = sign.won.max(since) + patience;
        if now < silent.min(idle) {
            return Lease::Until(silent.min(idle));
        }
        self.stalled.insert(
            owner,
            if now >= idle {
                Stall::Idle
            } else {
                Stall::Silent
            },
        );
        self.expected.remove(&owner);
        self.drop_claims(&owner);
        self.stale = true;
        Lease::Lapsed
    }

    /// Only of these something is expected now.
    pub fn expect_only(&mut self, owners: &BTreeSet<NodeId>) {
        self.expected.retain(|node, _| owners.contains(node));
    }

    /// Whether `piece` would be another's, had that one not stalled.
    pub fn is_taken_over(&self, piece: u32, me: &NodeId) -> bool {
        self.lapsed.contains(&piece)
            || self
                .stalled
                .keys()
                .any(|node| owner_rank(&self.root, piece, node) < owner_rank(&self.root, piece, me))
    }

    fn drop_claims(&mut self, node: &NodeId) {
        let lapsed: Vec<u32> = self
            .claims
            .iter()
            .filter(|(_, n)| *n == node)
            .map(|(piece, _)| *piece)
            .collect();
        for piece in lapsed {
            self.claims.remove(&piece);
            self.lapsed.insert(piece);
        }
    }

    /// `piece` is in the site: nobody has to bring it.
    pub fn arrived(&mut self, piece: u32) {
        self.claims.remove(&piece);
        self.lapsed.remove(&piece);
    }

    // ---- my own claims -----------------------------------------------------------------------

    pub fn mine(&self) -> &BTreeMap<u32, Mine> {
        &self.mine
    }

    pub fn claim(&mut self, piece: u32, ready: Time) {
        self.mine.insert(piece, Mine::Waiting(ready));
    }

    pub fn fly(&mut self, piece: u32) {
        self.mine.insert(piece, Mine::Flying);
    }

    /// I do not bring `piece`, or have brought it.
    pub fn let_go(&mut self, piece: u32) {
        self.mine.remove(&piece);
    }
}
