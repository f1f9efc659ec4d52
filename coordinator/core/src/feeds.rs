//! What delegates tell of their sites: who is there, and what the nodes are at. Not ledgered: it is
//! worth nothing after a restart, and nothing is decided by it but whom to ask who is silent.

use std::collections::{BTreeMap, BTreeSet};

use protocol::feed::{Roster, StageCounts, Stages};
use protocol::limits::{MEMBERS_MAX, ROLLOUTS_MAX, SITES_MAX};
use protocol::{NodeId, RolloutId, Seq, SiteId};

/// All sites.
#[derive(Default)]
pub(crate) struct Feeds {
    sites: BTreeMap<SiteId, Site>,
    /// Over all sites.
    stages: BTreeMap<RolloutId, StageCounts>,
}

#[derive(Default)]
struct Site {
    members: BTreeSet<NodeId>,
    /// Who counted last, the number of the counts, and the counts.
    counted: Option<(NodeId, Seq)>,
    stages: BTreeMap<RolloutId, StageCounts>,
}

impl Feeds {
    /// Takes a change in. The site's members after it; `None` if it does not fit what was told
    /// before, so that everything has to be told.
    pub(crate) fn change(&mut self, site: &SiteId, news: &Roster) -> Option<&BTreeSet<NodeId>> {
        let room = self.sites.len() < SITES_MAX || self.sites.contains_key(site);
        if !room || !news.within_limits() {
            return None;
        }
        let held = self.sites.entry(site.clone()).or_default();
        let mut members = match news.whole {
            true => BTreeSet::new(),
            false => held.members.clone(),
        };
        news.left.iter().for_each(|node| _ = members.remove(node));
        members.extend(&news.joined);
        if Roster::digest(&members) != news.digest || members.len() > MEMBERS_MAX {
            return None;
        }
        held.members = members;
        Some(&held.members)
    }

    /// Who is in a site, as its delegate told last.
    pub(crate) fn members(&self, site: &SiteId) -> Option<&BTreeSet<NodeId>> {
        Some(&self.sites.get(site)?.members)
    }

    /// Takes a delegate's counts of its site in. Of one delegate the highest number wins.
    pub(crate) fn count(&mut self, site: &SiteId, delegate: NodeId, told: &Stages) {
        let Some(held) = self.sites.get_mut(site) else {
            return;
        };
        let older = |(who, seq): (NodeId, Seq)| who == delegate && seq >= told.seq;
        if held.counted.is_some_and(older) {
            return;
        }
        held.counted = Some((delegate, told.seq));
        let rollouts = told.rollouts.iter().take(ROLLOUTS_MAX).cloned();
        let before = std::mem::replace(&mut held.stages, rollouts.collect());
        for (rollout, counts) in before {
            if let Some(sum) = self.stages.get_mut(&rollout) {
                sum.minus(&counts);
            }
        }
        for (rollout, counts) in &held.stages {
            self.stages.entry(rollout.clone()).or_default().plus(counts);
        }
        self.stages
            .retain(|_, counts| *counts != StageCounts::default());
    }

    /// What `open` targets of a rollout are at, as far as delegates told; they add up to `open`.
    pub(crate) fn stages(&self, rollout: &RolloutId, open: u32) -> StageCounts {
        let told = self.stages.get(rollout).copied().unwrap_or_default();
        let mut room = open;
        let mut fit = |count: u32| {
            let fits = count.min(room);
            room -= fits;
            fits
        };
        let (installing, staged) = (fit(told.installing), fit(told.staged));
        let downloading = fit(told.downloading);
        StageCounts {
            received: room,
            downloading,
            staged,
            installing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{node, rollout, seq, site};

    fn news(joined: &[u64], left: &[u64], whole: bool, all: &[u64]) -> Roster {
        let nodes = |numbers: &[u64]| numbers.iter().map(|n| node(*n)).collect::<Vec<_>>();
        let all: BTreeSet<NodeId> = nodes(all).into_iter().collect();
        Roster {
            joined: nodes(joined),
            left: nodes(left),
            whole,
            digest: Roster::digest(&all),
        }
    }

    #[test]
    fn a_change_is_taken_if_it_leads_to_what_the_delegate_sees() {
        let mut feeds = Feeds::default();
        let at = site("s1");
        let mut change = |n: Roster| feeds.change(&at, &n).map(BTreeSet::len);
        assert_eq!(change(news(&[], &[], false, &[1, 2])), None, "never told");
        assert_eq!(change(news(&[1, 2], &[], true, &[1, 2])), Some(2));
        assert_eq!(change(news(&[], &[], false, &[1, 2])), Some(2));
        assert_eq!(change(news(&[3], &[1], false, &[2, 3])), Some(2));
        assert_eq!(change(news(&[3], &[1], false, &[2, 3])), Some(2), "again");
        assert_eq!(
            change(news(&[4], &[], false, &[1, 4])),
            None,
            "not from here"
        );
        assert_eq!(change(news(&[], &[], false, &[2, 3])), Some(2), "it stayed");
    }

    #[test]
    fn counts_of_sites_add_up_and_replace_each_other() {
        let mut feeds = Feeds::default();
        let (id, staged) = (rollout("r"), |n| StageCounts {
            staged: n,
            ..StageCounts::default()
        });
        let told = |at: &str, number, n| Stages {
            site: Some(site(at)),
            seq: seq(number),
            rollouts: vec![(rollout("r"), staged(n))],
        };
        for at in ["s1", "s2"] {
            feeds.change(&site(at), &news(&[1], &[], true, &[1]));
        }
        feeds.count(&site("s1"), node(1), &told("s1", 5, 7));
        feeds.count(&site("s2"), node(2), &told("s2", 1, 2));
        feeds.count(&site("s1"), node(1), &told("s1", 4, 100));
        feeds.count(&site("nowhere"), node(1), &told("nowhere", 9, 100));
        assert_eq!(feeds.stages(&id, 10).staged, 9);
        assert_eq!(feeds.stages(&id, 10).received, 1);
        assert_eq!(feeds.stages(&id, 3).staged, 3, "never more than are open");
        feeds.count(&site("s1"), node(3), &told("s1", 1, 0));
        assert_eq!(
            feeds.stages(&id, 10).staged,
            2,
            "another delegate counts now"
        );
    }
}
