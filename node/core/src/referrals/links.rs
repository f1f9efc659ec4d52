//! What the sites' links have left: every transfer between sites is given its rate beforehand, cut out
//! of the receiver's WAN inward and the giver's WAN outward. So several sources that do not know of
//! each other keep a site's cap together, and a giver is not asked for more than it can give.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use protocol::SiteId;
use protocol::limits::{REFERRED_MAX, REFERRED_UNRATED_MAX};

/// So many seconds a transfer shall take at the least, as far as that goes: between two of them lies
/// the way to the origin and back, and the others have to fill it.
const OVERLAP_S: f64 = 1.5;
/// Transfers at once that a site's WAN inward is divided by, at least and at most.
const SLOTS: (u64, u64) = (4, 8);
/// What is left of a link whose rate nobody said.
const UNRATED: u64 = u64::MAX;

/// One way of a site's WAN.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Bytes a second; none: nobody said.
    rate: Option<u64>,
    /// Promised of them.
    taken: u64,
    /// Transfers under way.
    count: u32,
}

impl Way {
    fn most(&self) -> u32 {
        match self.rate {
            Some(_) => REFERRED_MAX,
            None => REFERRED_UNRATED_MAX,
        }
    }

    /// Bytes a second that may yet be promised.
    fn left(&self) -> u64 {
        match self.rate {
            _ if self.count >= self.most() => 0,
            Some(rate) => rate.saturating_sub(self.taken),
            None => UNRATED,
        }
    }
}

/// A site's WAN.
#[derive(Clone, Debug, Default)]
struct Link {
    inward: Way,
    outward: Way,
}

/// All sites that relay, by their number here.
#[derive(Default)]
pub(super) struct Links {
    numbers: BTreeMap<SiteId, usize>,
    links: Vec<Link>,
    /// Who can give, those with the most left first.
    givers: BTreeSet<(Reverse<u64>, usize)>,
}

impl Links {
    /// A site is one that relays, with these rates, bytes a second; its number. Known before, it keeps
    /// its number and what is promised.
    pub fn set(&mut self, name: &SiteId, down: Option<u64>, up: Option<u64>) -> usize {
        let new = self.links.len();
        let number = *self.numbers.entry(name.clone()).or_insert(new);
        if number == new {
            self.links.push(Link::default());
        }
        self.change(number, |link| {
            link.inward.rate = down;
            link.outward.rate = up;
        });
        number
    }

    /// The number of a site, if it relays.
    pub fn number(&self, name: &SiteId) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    /// What the next transfer of a piece of so many bytes into a site is to be promised, bytes a second
    /// (0: no limit); `None` while the site has all that it can take, or, if `spare`, all but one.
    pub fn room_in(&self, site: usize, piece_bytes: u64, spare: bool) -> Option<u64> {
        let way = &self.links[site].inward;
        let left = way.left();
        if way.rate.is_none() {
            let most = way.most() - u32::from(spare);
            return (left > 0 && way.count < most).then_some(0);
        }
        if left == 0 {
            return None;
        }
        let slot = self.slot(site, piece_bytes);
        // Some gave less than was wanted: what they left is worth a transfer too, if it is not too little.
        let kept = if spare { slot } else { 0 };
        (left >= slot / 2 + kept).then_some(slot.min(left))
    }

    /// What a transfer of a piece of so many bytes into a site is promised if the site has it, bytes a
    /// second (0: no limit).
    pub fn slot(&self, site: usize, piece_bytes: u64) -> u64 {
        let Some(rate) = self.links[site].inward.rate else {
            return 0;
        };
        let slots = (rate as f64 * OVERLAP_S / piece_bytes.max(1) as f64) as u64;
        (rate / slots.clamp(SLOTS.0, SLOTS.1)).max(1)
    }

    /// What a site can give to one that is to have `wanted` bytes a second (0: no limit); `None` if it
    /// has too little left. Who has half of it gives that.
    pub fn room_out(&self, site: usize, wanted: u64) -> Option<u64> {
        let way = &self.links[site].outward;
        let left = way.left();
        if left == UNRATED {
            return Some(wanted);
        }
        let idle = way.count == 0;
        let wanted = if wanted == 0 { left } else { wanted };
        (left > 0 && (idle || left >= wanted / 2)).then_some(wanted.min(left))
    }

    /// Sites that can give, those with the most left first.
    pub fn givers(&self) -> impl Iterator<Item = usize> {
        self.givers.iter().map(|(_, site)| *site)
    }

    /// A transfer begins.
    pub fn take(&mut self, to: usize, from: Option<usize>, rate: u64) {
        self.change(to, |link| {
            link.inward.taken += rate;
            link.inward.count += 1;
        });
        if let Some(from) = from {
            self.change(from, |link| {
                link.outward.taken += rate;
                link.outward.count += 1;
            });
        }
    }

    /// It is over.
    pub fn end(&mut self, to: usize, from: Option<usize>, rate: u64) {
        self.change(to, |link| {
            link.inward.taken -= rate;
            link.inward.count -= 1;
        });
        if let Some(from) = from {
            self.change(from, |link| {
                link.outward.taken -= rate;
                link.outward.count -= 1;
            });
        }
    }

    fn change(&mut self, site: usize, change: impl FnOnce(&mut Link)) {
        let link = &mut self.links[site];
        self.givers.remove(&(Reverse(link.outward.left()), site));
        change(link);
        let left = link.outward.left();
        if left > 0 {
            self.givers.insert((Reverse(left), site));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(rates: &[(u64, u64)]) -> Links {
        let mut links = Links::default();
        for (n, (down, up)) in rates.iter().enumerate() {
            let name = format!("s{n}").parse().expect("a name");
            assert_eq!(links.set(&name, Some(*down), Some(*up)), n);
        }
        links
    }

    #[test]
    fn a_link_is_never_promised_twice() {
        let mut links = links(&[(1_000, 1_000), (1_000, 600)]);
        let slot = links.room_in(0, 1 << 20, false).expect("room");
        assert_eq!(slot, 250);
        links.take(0, Some(1), 500);
        assert_eq!(links.room_in(0, 1 << 20, false), Some(250));
        assert_eq!(links.room_in(0, 1 << 20, true), Some(250));
        links.take(0, None, 250);
        assert_eq!(links.room_in(0, 1 << 20, true), None, "the last is kept");
        links.end(0, None, 250);
        assert_eq!(links.room_out(1, 250), None, "a hundred is too little");
        links.take(0, None, 400);
        assert_eq!(links.room_in(0, 1 << 20, false), None);
        links.end(0, Some(1), 500);
        assert_eq!(links.room_in(0, 1 << 20, false), Some(250));
        assert_eq!(links.room_out(1, 2_000), Some(600), "alone it has all");
    }

    #[test]
    fn a_link_that_is_shut_is_promised_nothing() {
        let links = links(&[(0, 0), (1_000, 600)]);
        assert_eq!(links.room_in(0, 1 << 20, false), None);
        assert_eq!(links.room_out(0, 0), None);
        assert_eq!(links.givers().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn small_pieces_come_by_more_transfers_at_once() {
        let links = links(&[(8_000_000, 1)]);
        assert_eq!(links.room_in(0, 4 << 20, false), Some(2_000_000));
        assert_eq!(links.room_in(0, 2 << 20, false), Some(1_600_000));
        assert_eq!(links.room_in(0, 1 << 10, false), Some(1_000_000));
    }

    #[test]
    fn who_has_most_left_gives_first() {
        let mut links = links(&[(1, 300), (1, 900), (1, 500)]);
        assert_eq!(links.givers().collect::<Vec<_>>(), [1, 2, 0]);
        links.take(0, Some(1), 900);
        assert_eq!(links.givers().collect::<Vec<_>>(), [2, 0]);
        links.end(0, Some(1), 900);
        assert_eq!(links.givers().collect::<Vec<_>>(), [1, 2, 0]);
    }

    #[test]
    fn without_a_rate_transfers_are_counted() {
        let mut links = Links::default();
        let name = "free".parse().expect("a name");
        let site = links.set(&name, None, None);
        for _ in 0..REFERRED_UNRATED_MAX {
            assert_eq!(links.room_in(site, 1 << 20, false), Some(0));
            assert_eq!(links.room_out(site, 0), Some(0));
            links.take(site, Some(site), 0);
        }
        assert_eq!(links.room_in(site, 1 << 20, false), None);
        assert_eq!(links.room_out(site, 0), None);
    }
}
