//! Whom the swarm is told that it has around it, and what its site may carry.

use litemap::LiteMap;
use protocol::limits::MEMBERS_MAX;
use protocol::{NodeId, Now, SiteId};

use super::Swarm;
use super::site::Member;

impl Swarm {
    /// The site that the node counts itself to, and its WAN cap in bytes a second, if it has one.
    /// In another site nothing is known of anybody.
    pub fn set_site(&mut self, now: Now, site: Option<(SiteId, Option<u64>)>) {
        let (id, cap) = site.map_or((None, None), |(id, cap)| (Some(id), cap));
        if (&id, cap) == (&self.desk.site.id, self.desk.site.cap) {
            return;
        }
        if cap != self.desk.site.cap {
            self.desk.site.cap = cap;
            self.fetch_anew();
        }
        if id != self.desk.site.id {
            self.desk.site.id = id;
            self.desk.site.since = now.boot;
            self.take_members(now.boot, LiteMap::new());
        }
        self.look_anew();
        self.pass(now.boot);
    }

    /// Whether the site has no peers: then nobody is asked but the origins. True if that changed; then the
    /// members are to be told anew.
    pub fn set_alone(&mut self, now: Now, alone: bool) -> bool {
        if self.desk.site.alone == alone {
            return false;
        }
        self.desk.site.alone = alone;
        self.take_members(now.boot, LiteMap::new());
        self.pass(now.boot);
        true
    }

    /// The site's members without this node. Those who are missing are gone. Without a site there
    /// are none.
    pub fn set_members(&mut self, now: Now, members: impl Iterator<Item = (NodeId, Member)>) {
        let mut new = LiteMap::new();
        if self.desk.site.id.is_some() {
            let me = self.desk.me();
            let others = members.filter(|(node, _)| *node != me);
            let others = others.take(MEMBERS_MAX);
            if self.desk.site.alone {
                self.desk.site.crowd = others.count() + 1;
            } else {
                new = LiteMap::with_capacity(others.size_hint().1.unwrap_or(0));
                new.extend(others);
            }
        }
        if new != self.desk.site.members {
            self.take_members(now.boot, new);
            self.pass(now.boot);
        }
    }

    /// What is under way over the WAN was asked for at a rate that does not hold any more: it is asked for
    /// again. Groups that came are kept.
    fn fetch_anew(&mut self) {
        for blob in self.blobs.values_mut() {
            blob.cancel(&mut self.desk, |flight| flight.wan);
            blob.owners.interrupt();
        }
    }
}
