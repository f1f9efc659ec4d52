//! How far one blob has spread over the sites: who holds which piece, who is about to, who waits.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::{SPREAD_HOLDERS_MAX, SPREAD_LISTED_MAX, SPURN};
use protocol::pieces::{Geometry, PieceSet};
use protocol::wire::Contact;
use protocol::{NodeId, Time};

/// A node of a site that holds pieces, because it brought them there.
struct Holder {
    contact: Contact,
    site: usize,
    have: PieceSet,
    /// It failed: nobody is referred to it until then.
    spurned_until: Time,
}

/// A transfer under way, by its number.
pub(super) type Trip = u64;

/// One blob.
pub(super) struct Spread {
    pub cut: Geometry,
    /// When somebody asked for it last.
    pub asked: Time,
    holders: Vec<Holder>,
    numbers: BTreeMap<NodeId, usize>,
    /// A site's holders.
    of_site: BTreeMap<usize, Vec<usize>>,
    /// For each piece its first holders, and how many hold it in all.
    listed: Vec<Vec<usize>>,
    counts: Vec<u32>,
    /// Pieces on their way from the origin that nobody else holds.
    pub first: BTreeMap<u32, Trip>,
    /// What is under way to a node.
    pub trips: BTreeMap<(u32, NodeId), Trip>,
    /// Requests that wait, by their lowest piece.
    pub waiting: BTreeMap<u32, BTreeSet<u64>>,
}

impl Spread {
    pub fn new(cut: Geometry) -> Spread {
        let pieces = cut.pieces() as usize;
        Spread {
            cut,
            asked: Time(0),
            holders: Vec::new(),
            numbers: BTreeMap::new(),
            of_site: BTreeMap::new(),
            listed: vec![Vec::new(); pieces],
            counts: vec![0; pieces],
            first: BTreeMap::new(),
            trips: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Nobody waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.trips.is_empty()
    }

    /// A node asks: it will hold what it is given. In a site with as many holders as can be known it takes
    /// the place of the one that is known to hold least. False if the node is known in another site.
    pub fn know(&mut self, contact: &Contact, site: usize) -> bool {
        if let Some(number) = self.numbers.get(&contact.node) {
            let holder = &mut self.holders[*number];
            holder.contact.clone_from(contact);
            return holder.site == site;
        }
        let newcomer = Holder {
            contact: contact.clone(),
            site,
            have: PieceSet::empty(self.cut.pieces()),
            spurned_until: Time(0),
        };
        let of_site = self.of_site.entry(site).or_default();
        let number = if of_site.len() < SPREAD_HOLDERS_MAX {
            let number = self.holders.len();
            of_site.push(number);
            self.holders.push(newcomer);
            number
        } else {
            let Some(least) = self.least_of(site) else {
                return false;
            };
            self.forget(least);
            self.holders[least] = newcomer;
            least
        };
        self.numbers.insert(contact.node, number);
        true
    }

    /// The holder of a site that is missed least: nothing is under way to it, if possible, and it holds
    /// fewest pieces.
    fn least_of(&self, site: usize) -> Option<usize> {
        let under_way: BTreeSet<NodeId> = self.trips.keys().map(|(_, node)| *node).collect();
        let of_site = self.of_site.get(&site)?.iter().copied();
        of_site.min_by_key(|number| {
            let holder = &self.holders[*number];
            let busy = under_way.contains(&holder.contact.node);
            (busy, holder.have.count(), *number)
        })
    }

    fn forget(&mut self, number: usize) {
        let holder = &mut self.holders[number];
        let have = std::mem::replace(&mut holder.have, PieceSet::empty(self.cut.pieces()));
        self.numbers.remove(&holder.contact.node);
        for piece in have.iter() {
            self.counts[piece as usize] -= 1;
            self.listed[piece as usize].retain(|listed| *listed != number);
        }
    }

    /// A known node holds a piece. True if that is news.
    pub fn holds(&mut self, node: &NodeId, piece: u32) -> bool {
        let Some(number) = self.numbers.get(node).copied() else {
            return false;
        };
        if piece >= self.cut.pieces() || !self.holders[number].have.insert(piece) {
            return false;
        }
        self.counts[piece as usize] += 1;
        let listed = &mut self.listed[piece as usize];
        if listed.len() < SPREAD_LISTED_MAX {
            listed.push(number);
        }
        true
    }

    /// A node did not give a piece to which it was referred.
    pub fn failed(&mut self, now: Time, node: &NodeId, piece: u32) {
        let Some(number) = self.numbers.get(node).copied() else {
            return;
        };
        let holder = &mut self.holders[number];
        holder.spurned_until = now + SPURN;
        if holder.have.remove(piece) {
            self.counts[piece as usize] -= 1;
            self.listed[piece as usize].retain(|n| *n != number);
        }
    }

    /// The site of a node that asked.
    pub fn site_of(&self, node: &NodeId) -> Option<usize> {
        self.numbers.get(node).map(|n| self.holders[*n].site)
    }

    /// Pieces that somebody waits for and a site holds, of which there may be few.
    pub fn waited_for(&self, site: usize) -> Vec<u32> {
        let Some(of_site) = self.of_site.get(&site) else {
            return Vec::new();
        };
        let held = |piece: &u32| {
            of_site
                .iter()
                .any(|n| self.holders[*n].have.contains(*piece))
        };
        self.waiting.keys().copied().filter(held).collect()
    }

    /// Whether any site but this one is believed to hold a piece.
    pub fn is_elsewhere(&self, piece: u32, site: usize, spurned: &[NodeId]) -> bool {
        let listed = &self.listed[piece as usize];
        self.counts[piece as usize] as usize > listed.len()
            || listed.iter().any(|n| self.is_other(*n, site, spurned))
    }

    /// Whether nobody at all is known to hold a piece.
    pub fn is_nowhere(&self, piece: u32) -> bool {
        self.counts[piece as usize] == 0
    }

    /// Whether so few hold a piece that they are all listed.
    pub fn is_rare(&self, piece: u32) -> bool {
        self.counts[piece as usize] as usize <= self.listed[piece as usize].len()
    }

    /// The holders of a piece outside a site: those that are listed, or, if there are more than can be,
    /// nothing: then one looks at the sites that can give, with [`Spread::at`].
    pub fn listed(
        &self,
        now: Time,
        piece: u32,
        site: usize,
        spurned: &[NodeId],
    ) -> Option<Vec<(usize, &Contact)>> {
        let listed = &self.listed[piece as usize];
        self.is_rare(piece).then(|| {
            let fit = listed
                .iter()
                .filter(|n| self.fits(now, **n, site, spurned))
                .map(|n| (self.holders[*n].site, &self.holders[*n].contact));
            fit.collect()
        })
    }

    /// A holder of a piece in this site.
    pub fn at(&self, now: Time, piece: u32, site: usize, spurned: &[NodeId]) -> Option<&Contact> {
        let of_site = self.of_site.get(&site)?;
        let fits = |n: &&usize| {
            let holder = &self.holders[**n];
            holder.have.contains(piece)
                && holder.spurned_until <= now
                && !spurned.contains(&holder.contact.node)
        };
        let number = of_site.iter().find(fits)?;
        Some(&self.holders[*number].contact)
    }

    fn fits(&self, now: Time, number: usize, site: usize, spurned: &[NodeId]) -> bool {
        self.is_other(number, site, spurned) && self.holders[number].spurned_until <= now
    }

    fn is_other(&self, number: usize, site: usize, spurned: &[NodeId]) -> bool {
        let holder = &self.holders[number];
        holder.site != site && !spurned.contains(&holder.contact.node)
    }
}
