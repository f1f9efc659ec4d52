//! Who brings which piece over the site's WAN: fetchers, owners, claims, leases.
//!
//! Everybody ranks the same candidates (those who said that they fetch the blob) by rendezvous
//! hashing and comes to the same fetchers and the same owner of each piece without a word. Claims
//! mend what differing views break: a claim that stands is respected by everyone, whatever the ranks
//! say; of two that meet while they wait, the lower rank proceeds. Whoever is expected to bring a
//! piece and gives no sign of it for a lease has stalled: the ranks are drawn again without it, until
//! it is heard of.

use std::collections::{BTreeMap, BTreeSet};

use super::orphans::Orphans;
use super::pick::tie;
use litemap::LiteMap;
use protocol::limits::{CLAIM_HURRY, FETCHERS_MAX, MEMBERS_MAX, SINGLE_FETCHER_BELOW_BYTES_PER_S};
use protocol::pieces::PieceSet;
use protocol::positions::rank;
use protocol::wire::Claim;
use protocol::{Hash, NodeId, Span, Time};

/// How many fetchers a blob of `pieces` pieces has in a site with this cap (bytes a second).
pub(super) fn fetcher_count(cap: Option<u64>, pieces: u32) -> usize {
    let thin = cap.is_some_and(|cap| cap < SINGLE_FETCHER_BELOW_BYTES_PER_S);
    if thin || pieces <= 1 { 1 } else { FETCHERS_MAX }
}

/// The weight of `node` as owner of a piece; lowest owns it. One hash for all pieces of a blob,
/// because every node ranks every piece.
pub(super) fn owner_rank(root: &Hash, piece: u32, node: &NodeId) -> u64 {
    tie(owner_key(root, node), u64::from(piece))
}

fn owner_key(root: &Hash, node: &NodeId) -> u64 {
    rank("owner", &root.0, node)
}

/// The weight of `node` as fetcher of a blob; the lowest are its fetchers.
pub(super) fn fetcher_rank(root: &Hash, node: &NodeId) -> u64 {
    rank("fetcher", &root.0, node)
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
    /// A piece that it claimed came into the site since then.
    brought: bool,
    /// It brings pieces, or said that it is about to.
    claims: bool,
    /// Its place among the fetchers, and what its places as owner follow from.
    place: u64,
    key: u64,
    /// When it was last told that something was taken from it.
    thanked: Option<Time>,
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
    /// It says that nothing is to be expected of it; only a claim brings it back.
    Back,
}

/// Who owns a piece by rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Natural {
    /// Nobody has asked since the last ranking.
    Unknown,
    /// By its place in the ranking.
    Place(u16),
    /// Nobody that is ranked, so this node.
    Me,
}

const _: () = assert!(MEMBERS_MAX < u16::MAX as usize);

/// Whose a piece is by its claim.
#[derive(Clone, Copy)]
struct Claimed {
    by: NodeId,
    /// It has some of it.
    begun: bool,
}

/// The state of one piece that this node claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mine {
    /// Claimed; may proceed from then on, unless a better claim comes.
    Waiting(Time),
    /// A fetch over the WAN is under way.
    Flying,
    /// It was, and goes on as soon as there is room: some of its groups are here, so it is not given up.
    Interrupted,
    /// The same after a time in which another may have begun it too: not before then, unless a better claim
    /// comes.
    Resumed(Time),
}

/// Ownership of one blob's pieces in one node's view.
pub(super) struct Owners {
    root: Hash,
    pieces: u32,
    others: LiteMap<NodeId, Sign>,
    stalled: LiteMap<NodeId, Stall>,
    /// Everyone eligible in fetcher order; the first `count` are the fetchers.
    ranked: Vec<NodeId>,
    count: usize,
    /// The view changed: rank again before the next question.
    stale: bool,
    /// By rank: what places as owner follow from.
    keys: Vec<u64>,
    /// My place as fetcher, and that number of mine.
    my_places: Option<(u64, u64)>,
    /// Owners by rank, of the pieces that were asked about since the last ranking.
    natural: Vec<Natural>,
    claims: BTreeMap<u32, Claimed>,
    orphans: Orphans,
    declined: LiteMap<NodeId, PieceSet>,
    lapsed: BTreeSet<u32>,
    expected: LiteMap<NodeId, Time>,
    /// Somebody was waited for in vain a moment ago.
    hurries_until: Time,
    mine: BTreeMap<u32, Mine>,
}

impl Owners {
    pub fn new(root: Hash, pieces: u32) -> Owners {
        Owners {
            root,
            pieces,
            others: LiteMap::new(),
            stalled: LiteMap::new(),
            ranked: Vec::new(),
            count: 1,
            stale: true,
            keys: Vec::new(),
            my_places: None,
            natural: vec![Natural::Unknown; pieces as usize],
            claims: BTreeMap::new(),
            orphans: Orphans::default(),
            declined: LiteMap::new(),
            lapsed: BTreeSet::new(),
            expected: LiteMap::new(),
            hurries_until: Time(0),
            mine: BTreeMap::new(),
        }
    }

    /// Members, caps or my own eligibility changed.
    pub fn view_changed(&mut self) {
        self.stale = true;
    }

    /// Ranks again if something changed: those who bring pieces already come first, because every
    /// newcomer that took over would leave its forerunner's fetches under way. `me` is `None` while I
    /// may own nothing; `serves` says who of the others may. True if the ranking is a new one.
    pub fn rank_again(
        &mut self,
        me: Option<NodeId>,
        my_claims: bool,
        count: usize,
        serves: impl Fn(&NodeId) -> bool,
    ) -> bool {
        if !self.stale && self.count == count {
            return false;
        }
        let others = self
            .others
            .iter()
            .filter(|(n, _)| !self.stalled.contains_key(n) && serves(n))
            .map(|(n, sign)| (!sign.claims, sign.place, *n, sign.key));
        let mine = me.map(|me| {
            let places = self
                .my_places
                .get_or_insert_with(|| (fetcher_rank(&self.root, &me), owner_key(&self.root, &me)));
            (!my_claims, places.0, me, places.1)
        });
        let mut ranked: Vec<(bool, u64, NodeId, u64)> = others.chain(mine).collect();
        ranked.sort_unstable();
        self.keys = ranked.iter().map(|(.., key)| *key).collect();
        let ranked: Vec<NodeId> = ranked.into_iter().map(|(.., node, _)| node).collect();
        let new = ranked != self.ranked || count != self.count;
        if new {
            self.natural.fill(Natural::Unknown);
        }
        (self.ranked, self.count, self.stale) = (ranked, count, false);
        new
    }

    /// The view changed since the last ranking.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Others that fetch the blob.
    pub fn known(&self) -> impl Iterator<Item = &NodeId> {
        self.others.keys()
    }

    /// Whether another node is known to fetch the blob.
    pub fn is_known(&self, node: &NodeId) -> bool {
        self.others.contains_key(node)
    }

    /// Whether `me` brings something, or is one of those who would.
    pub fn brings(&self, me: &NodeId) -> bool {
        !self.mine.is_empty() || self.fetchers().contains(me)
    }

    /// The fetchers, best first.
    pub fn fetchers(&self) -> &[NodeId] {
        &self.ranked[..self.count.min(self.ranked.len())]
    }

    /// Who brings `piece`: whoever claimed it, else the lowest owner rank among the fetchers, else
    /// among all who fetch the blob; those who declined it are passed over. `me` if nobody is left.
    pub fn owner(&mut self, piece: u32, me: NodeId) -> NodeId {
        if let Some(claimed) = self.claims.get(&piece) {
            return claimed.by;
        }
        match self.natural.get(piece as usize) {
            Some(Natural::Place(place)) => return self.ranked[usize::from(*place)],
            Some(Natural::Me) => return me,
            Some(Natural::Unknown) | None => {}
        }
        let fit = |i: &usize| {
            !self
                .declined
                .get(&self.ranked[*i])
                .is_some_and(|set| set.contains(piece))
        };
        let weight = |i: &usize| tie(self.keys[*i], u64::from(piece));
        let (all, fetchers) = (self.ranked.len(), self.count.min(self.ranked.len()));
        let best = (0..fetchers).filter(fit).min_by_key(weight);
        let best = best.or_else(|| (fetchers..all).filter(fit).min_by_key(weight));
        let natural = best.map_or(Natural::Me, |i| Natural::Place(i as u16));
        self.set_natural(piece, natural);
        best.map_or(me, |i| self.ranked[i])
    }

    fn set_natural(&mut self, piece: u32, new: Natural) {
        if let Some(natural) = self.natural.get_mut(piece as usize) {
            *natural = new;
        }
    }

    /// Whether `one` proceeds with `piece` if both claim it. Who the fetchers are does not matter: views
    /// of that differ, and the two must come to the same end.
    fn outranks(&self, piece: u32, one: &NodeId, other: &NodeId) -> bool {
        let key = |node: &NodeId| (owner_rank(&self.root, piece, node), *node);
        key(one) < key(other)
    }

    /// `node` gave a sign that it fetches the blob. True if that was news.
    pub fn heard(&mut self, now: Time, node: NodeId) -> bool {
        let known = self.others.get(&node).copied();
        if known.is_none() && self.others.len() >= MEMBERS_MAX {
            return false;
        }
        let (place, key) = known.map_or_else(
            || {
                (
                    fetcher_rank(&self.root, &node),
                    owner_key(&self.root, &node),
                )
            },
            |sign| (sign.place, sign.key),
        );
        let won = known.map_or(now, |s| s.won);
        let claims = known.is_some_and(|s| s.claims);
        let sign = Sign {
            heard: now,
            won,
            brought: known.is_some_and(|s| s.brought),
            claims,
            place,
            key,
            thanked: known.and_then(|s| s.thanked),
        };
        self.others.insert(node, sign);
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
            (sign.heard, sign.won) = (now, now);
            if !matches!(self.stalled.get(node), Some(Stall::Mute | Stall::Back)) {
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
        if self.stalled.get(node) != Some(&Stall::Back) {
            self.stale |= self.stalled.remove(node).is_some();
        }
    }

    /// A piece was taken from `node`. Whether it is to be told: if it brings pieces, and has not been told
    /// for so long.
    pub fn thank(&mut self, now: Time, node: &NodeId, pause: Span) -> bool {
        let sign = self.others.get_mut(node).filter(|sign| {
            let lately = |at| now < at + pause;
            sign.claims && !sign.thanked.is_some_and(lately)
        });
        let due = sign.is_some();
        if let Some(sign) = sign {
            sign.thanked = Some(now);
        }
        due
    }

    /// `node` is not in the site any more. It may come back with what it has begun, and with what was
    /// `only_there`.
    pub fn gone(&mut self, now: Time, node: &NodeId, only_there: impl Iterator<Item = u32>) {
        self.others.remove(node);
        self.stalled.remove(node);
        self.declined.remove(node);
        self.expected.remove(node);
        let claimed = self.drop_claims(node);
        let pieces = claimed.into_iter().chain(only_there);
        self.orphans.add(now, pieces);
        self.stale = true;
    }

    /// `node` sends wrong bytes: nothing that it has begun is of use to anybody.
    pub fn shun(&mut self, node: &NodeId) {
        self.drop_claims(node);
    }

    /// Of these pieces, which fall to this node, those to bring now, and when others may follow. What
    /// somebody has begun who is out of sight is left for the end.
    pub fn put_off(&self, now: Time, own: Vec<u32>, missing: &[u32]) -> (Vec<u32>, Option<Time>) {
        self.orphans.put_off(now, own, missing)
    }

    /// Whether somebody else says that it has some of `piece` already.
    pub fn is_being_brought(&self, piece: u32) -> bool {
        self.claims.get(&piece).is_some_and(|c| c.begun)
    }

    /// A claim was gossiped by a member that may own. Pieces that the blob does not have are nothing;
    /// nor is there anything to bring of those that are `here`.
    pub fn claimed(
        &mut self,
        now: Time,
        claim: &Claim,
        me: NodeId,
        here: impl Fn(u32) -> bool,
    ) -> Clash {
        let (node, pieces) = (claim.node, self.pieces);
        let known = claim.pieces.iter().copied().enumerate();
        let known = known.filter(|(_, piece)| *piece < pieces);
        if !claim.held {
            if claim.pieces.is_empty() {
                self.left(node);
            }
            for (_, piece) in known {
                if self.claims.get(&piece).is_some_and(|c| c.by == node) {
                    self.claims.remove(&piece);
                }
                let declined = self.declined.entry(node);
                declined
                    .or_insert_with(|| PieceSet::empty(pieces))
                    .insert(piece);
                self.set_natural(piece, Natural::Unknown);
            }
            return Clash::None;
        }
        self.heard(now, node);
        if self.stalled.get(&node) == Some(&Stall::Back) {
            self.stalled.remove(&node);
            self.stale = true;
        }
        if let Some(sign) = self.others.get_mut(&node).filter(|sign| !sign.claims) {
            sign.claims = true;
            self.stale = true;
        }
        self.claims
            .retain(|piece, claimed| claimed.by != node || claim.pieces.contains(piece));
        let mut clash = Clash::None;
        let stalled = self.stalled.contains_key(&node);
        for (place, piece) in known {
            let under_way = (place as u64) < u64::from(claim.under_way);
            let declined = self.declined.get_mut(&node);
            if declined.is_some_and(|set| set.remove(piece)) {
                self.set_natural(piece, Natural::Unknown);
            }
            // What is under way is not given up for what waits; else the rank decides.
            let mine = match self.mine.get(&piece) {
                // Nor does who has stalled take a piece from those who bring it in its stead.
                Some(_) if stalled => true,
                Some(Mine::Flying | Mine::Interrupted | Mine::Resumed(_)) => {
                    !under_way || self.outranks(piece, &me, &node)
                }
                Some(Mine::Waiting(_)) => !under_way && self.outranks(piece, &me, &node),
                None => false,
            };
            if mine {
                clash = Clash::Mine;
                continue;
            }
            self.mine.remove(&piece);
            if stalled || here(piece) {
                continue;
            }
            let before = self.claims.get(&piece).copied();
            if before.is_none_or(|b| under_way || self.outranks(piece, &node, &b.by)) {
                let (by, begun) = (node, under_way);
                self.claims.insert(piece, Claimed { by, begun });
                self.orphans.remove(piece);
            }
        }
        clash
    }

    /// `node` leaves it to the others. Everybody hears that, so that they rank the same without it.
    fn left(&mut self, node: NodeId) {
        if self.others.contains_key(&node) && self.stalled.get(&node) != Some(&Stall::Mute) {
            self.stalled.insert(node, Stall::Back);
            self.expected.remove(&node);
            self.drop_claims(&node);
            self.stale = true;
        }
    }

    /// `owner` is expected to bring something: how long is that to be believed? Not as long when
    /// nobody claims anything and somebody let this node wait in vain a moment ago: where views differ, each
    /// who takes another for the owner would cost the site a lease.
    pub fn expect(&mut self, now: Time, owner: NodeId, lease: Span, patience: Span) -> Lease {
        let since = *self.expected.entry(owner).or_insert(now);
        let hurries = now < self.hurries_until && self.claims.is_empty();
        let wait = if hurries {
            lease.min(CLAIM_HURRY)
        } else {
            lease
        };
        let sign = self.others.get_mut(&owner);
        let sign = sign.map(|sign| {
            if std::mem::take(&mut sign.brought) {
                sign.won = now;
            }
            *sign
        });
        let silent = sign.map_or(since, |s| s.heard.max(since)) + wait;
        let idle = sign.map_or(since, |s| s.won.max(since)) + patience;
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
        let claimed = self.drop_claims(&owner);
        self.orphans.add(now, claimed.into_iter());
        self.stale = true;
        self.hurries_until = now + lease;
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

    /// Nobody brings what `node` claimed: these pieces. It may have begun any of them since it claimed it.
    fn drop_claims(&mut self, node: &NodeId) -> Vec<u32> {
        let its = self.claims.iter().filter(|(_, claim)| claim.by == *node);
        let pieces: Vec<u32> = its.map(|(piece, _)| *piece).collect();
        self.claims.retain(|_, claim| claim.by != *node);
        self.lapsed.extend(&pieces);
        pieces
    }

    /// `piece` is in the site: nobody has to bring it. Whoever had claimed it has something to show,
    /// though not everybody hears it say so.
    pub fn arrived(&mut self, piece: u32) {
        self.lapsed.remove(&piece);
        self.orphans.remove(piece);
        let Some(Claimed { by, .. }) = self.claims.remove(&piece) else {
            return;
        };
        if let Some(sign) = self.others.get_mut(&by) {
            sign.brought = true;
            if self.stalled.get(&by) == Some(&Stall::Idle) {
                self.stalled.remove(&by);
                self.stale = true;
            }
        }
    }

    // ---- my own claims -----------------------------------------------------------------------

    pub fn mine(&self) -> &BTreeMap<u32, Mine> {
        &self.mine
    }

    pub fn claim(&mut self, piece: u32, ready: Time) {
        self.mine.insert(piece, Mine::Waiting(ready));
    }

    /// Some groups of `piece` are here from before: it is claimed as if it were under way.
    pub fn resume(&mut self, piece: u32, ready: Time) {
        self.mine.insert(piece, Mine::Resumed(ready));
    }

    pub fn fly(&mut self, piece: u32) {
        self.mine.insert(piece, Mine::Flying);
    }

    /// Nothing is under way any more; what was is begun again at once.
    pub fn interrupt(&mut self) {
        for mine in self.mine.values_mut() {
            if *mine == Mine::Flying {
                *mine = Mine::Interrupted;
            }
        }
    }

    /// I do not bring `piece`, or have brought it.
    pub fn let_go(&mut self, piece: u32) {
        self.mine.remove(&piece);
    }
}
