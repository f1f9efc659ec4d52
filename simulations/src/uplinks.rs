//! Uplinks that many sites share: the origin's, and a site's whose nodes give to other sites. Sites
//! run by themselves, so what each may take of a source is set from outside, every [`EVERY`], by
//! filling the source's uplink evenly over the sites that take from it: fair between sites, as the
//! origin is. A source with room for all binds nobody.

use std::collections::BTreeMap;

use protocol::Span;

use crate::flows::Use;

/// Shares of a source are set this often.
pub const EVERY: Span = Span::from_millis(100);
/// A site that takes less than this of its share could not take more.
const USED: f64 = 0.9;
/// What such a site may grow by until the next look.
const ROOM: f64 = 1.5;

/// What sites may take from sources with a limit.
#[derive(Default)]
pub struct Uplinks {
    rates: BTreeMap<usize, f64>,
    shares: BTreeMap<(usize, usize), f64>,
}

/// From now on a part may take so much from another; `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grant {
    /// The part that takes.
    pub to: usize,
    /// The part that gives.
    pub from: usize,
    /// Bytes a second.
    pub rate: Option<f64>,
}

impl Uplinks {
    /// Uplinks with a limit, bytes a second, by part.
    pub fn new(rates: BTreeMap<usize, f64>) -> Uplinks {
        Uplinks {
            rates,
            shares: BTreeMap::new(),
        }
    }

    /// Shares anew; `uses` by the part that takes, then by the part that gives.
    pub fn share(&mut self, uses: &[(usize, Use)]) -> Vec<Grant> {
        let mut takers: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
        for (to, one) in uses {
            if !self.rates.contains_key(&one.from) {
                continue;
            }
            let share = self.shares.get(&(one.from, *to)).copied();
            let binds = share.is_none_or(|share| one.rate >= share * USED);
            let wish = match binds {
                true => one.most,
                false => one.most.min(one.rate * ROOM),
            };
            takers.entry(one.from).or_default().push((*to, wish));
        }
        self.shares.clear();
        let mut grants = Vec::new();
        for (from, takers) in takers {
            let rate = self.rates[&from];
            let all: f64 = takers.iter().map(|(_, wish)| wish).sum();
            let level = fill(rate, takers.iter().map(|(_, wish)| *wish).collect());
            for (to, wish) in takers {
                let share = (all > rate).then_some(wish.min(level));
                share.map(|share| self.shares.insert((from, to), share));
                grants.push(Grant {
                    to,
                    from,
                    rate: share,
                });
            }
        }
        grants.sort_by_key(|grant| (grant.to, grant.from));
        grants
    }
}

/// The level up to which wishes are met when `rate` is shared evenly.
fn fill(rate: f64, mut wishes: Vec<f64>) -> f64 {
    wishes.sort_by(f64::total_cmp);
    let (mut left, mut open) = (rate, wishes.len());
    for wish in wishes {
        let level = left / open as f64;
        if wish >= level {
            return level;
        }
        left -= wish;
        open -= 1;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(to: usize, rate: f64, most: f64) -> (usize, Use) {
        let from = 9;
        (to, Use { from, rate, most })
    }

    fn rates(grants: &[Grant]) -> Vec<Option<f64>> {
        grants.iter().map(|g| g.rate).collect()
    }

    #[test]
    fn an_uplink_is_filled_evenly_over_sites() {
        let mut uplinks = Uplinks::new([(9, 90.0)].into());
        let uses = [
            takes(0, 0.0, 10.0),
            takes(1, 0.0, 100.0),
            takes(2, 0.0, 100.0),
        ];
        assert_eq!(
            rates(&uplinks.share(&uses)),
            [Some(10.0), Some(40.0), Some(40.0)]
        );
        // the last one takes less than it may: the others have the rest
        let uses = [
            takes(0, 10.0, 10.0),
            takes(1, 40.0, 100.0),
            takes(2, 10.0, 100.0),
        ];
        assert_eq!(
            rates(&uplinks.share(&uses)),
            [Some(10.0), Some(65.0), Some(15.0)]
        );
    }

    #[test]
    fn a_source_with_room_for_all_binds_nobody() {
        let mut uplinks = Uplinks::new([(9, 90.0)].into());
        let uses = [takes(0, 0.0, 10.0), takes(1, 0.0, 70.0)];
        assert_eq!(rates(&uplinks.share(&uses)), [None, None]);
        assert_eq!(
            uplinks.share(&[(
                0,
                Use {
                    from: 3,
                    rate: 1.0,
                    most: 1.0
                }
            )]),
            []
        );
    }
}
