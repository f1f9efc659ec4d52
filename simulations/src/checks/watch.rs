//! Who looks at the machines of one part of the world: at every event of each of them.
//!
//! It is told what the machines are told and what they do, and asks no brain.

use std::collections::BTreeMap;

use node_core::contract::{Event, Record};
use protocol::inventory::Subject;
use protocol::plan::RolloutPlan;
use protocol::positions::position;
use protocol::zones::Clock;
use protocol::{Hash, NodeId, Now, RolloutId, SiteId, Time, Verified};

use crate::checks::bans;
use crate::checks::findings::{Findings, Rule};
use crate::checks::halts::Halts;
use crate::checks::hours;
use crate::checks::leases::{Leases, Starter};
use crate::checks::limits::Limited;
use crate::checks::liveness::Histories;
use crate::checks::rates::Rates;
use crate::checks::verified::Installed;
use crate::checks::waves;

/// Looks at one part of the world; machines by their slot in it.
pub struct Watch {
    /// The number of its first machine in the fleet, for people.
    first: usize,
    /// Its machines, by slot.
    nodes: Vec<NodeId>,
    /// Its site.
    site: Option<SiteId>,
    /// What was found.
    pub found: Findings,
    /// What the machines went through.
    pub histories: Histories,
    /// What they switched to.
    pub installed: Installed,
    /// Switches that were begun, by rollout and wave; each machine counts once.
    pub starts: BTreeMap<(RolloutId, u32), u32>,
    plans: BTreeMap<Hash, Verified<RolloutPlan>>,
    leases: Leases,
    halts: Halts,
    rates: Rates,
    /// What its machines' clocks on the wall show.
    clock: Clock,
}

impl Watch {
    /// Looks at a part with these machines; `cap` is that of its WAN inward, bytes a second.
    pub fn new(first: usize, nodes: Vec<NodeId>, site: Option<SiteId>, cap: Option<f64>) -> Watch {
        Watch {
            first,
            site,
            found: Findings::default(),
            histories: Histories::new(nodes.len()),
            nodes,
            installed: Installed::default(),
            starts: BTreeMap::new(),
            plans: BTreeMap::new(),
            leases: Leases::default(),
            halts: Halts::default(),
            rates: Rates::new(cap),
            clock: Clock::utc(),
        }
    }

    /// Its machines' clocks on the wall are of this zone.
    pub fn with_clock(self, clock: Clock) -> Watch {
        Watch { clock, ..self }
    }

    /// Its machines, by slot.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// Its site; none for the data centre.
    pub fn site(&self) -> Option<&SiteId> {
        self.site.as_ref()
    }

    /// A machine's number in the fleet.
    pub fn number(&self, slot: usize) -> usize {
        self.first + slot
    }

    /// Something is wrong with a machine.
    pub fn violated(&mut self, at: Time, rule: Rule, slot: usize, what: &str) {
        let number = self.first + slot;
        self.found
            .violated(at, rule, format!("node {number}: {what}"));
    }

    fn judged(&mut self, at: Time, rule: Rule, slot: usize, judged: Result<(), String>) {
        if let Err(what) = judged {
            self.violated(at, rule, slot, &what);
        }
    }

    /// A machine's brain is told something; `now` is the machine's clock.
    pub fn told(&mut self, at: Time, now: Now, slot: usize, event: &Event) {
        match event {
            Event::Order(order, recall) => {
                self.leases.delivered(now, slot, order);
                self.halts.delivered(at, slot, order, recall.is_some());
            }
            Event::Plan(plan) => {
                let digest = plan.digest();
                self.plans.entry(digest).or_insert_with(|| plan.clone());
            }
            _ => {}
        }
    }

    /// A machine remembers something.
    pub fn remembered(&mut self, at: Time, slot: usize, record: &Record) {
        if let Record::Status(said) = record {
            let status = &said.status;
            self.histories.says(at, slot, &status.rollout, status.state);
        }
    }

    /// A machine begins to switch to a release; `on_disk` says whether all its bytes are there, `now` is
    /// the machine's clock. Of the plans for the release that anyone here was told, one must allow it.
    pub fn switches(
        &mut self,
        (at, now): (Time, Now),
        slot: usize,
        labels: &BTreeMap<String, String>,
        release: &Hash,
        on_disk: bool,
    ) {
        let number = self.first + slot;
        let installed = self.installed.switch(at, number, *release, on_disk);
        self.judged(at, Rule::Unverified, slot, installed);
        let plans = self.plans.values().filter(|p| p.release == *release);
        let plans: Vec<Verified<RolloutPlan>> = plans.cloned().collect();
        let mut fault = (Rule::Unverified, "it switches without a plan".to_owned());
        for plan in &plans {
            match self.may_start(now, slot, labels, plan) {
                Ok(wave) => {
                    if self.histories.starts(at, slot, &plan.rollout) {
                        *self.starts.entry((plan.rollout.clone(), wave)).or_default() += 1;
                    }
                    return;
                }
                Err(why) => fault = why,
            }
        }
        let (rule, what) = fault;
        self.violated(at, rule, slot, &what);
    }

    fn may_start(
        &self,
        now: Now,
        slot: usize,
        labels: &BTreeMap<String, String>,
        plan: &Verified<RolloutPlan>,
    ) -> Result<u32, (Rule, String)> {
        let wave = waves::start(now, &self.nodes[slot], self.site.as_ref(), plan);
        let wave = wave.map_err(|what| (Rule::Wave, what))?;
        let halted = self.halts.start(slot, &plan.rollout);
        halted.map_err(|what| (Rule::Halt, what))?;
        // machines here say nothing of themselves but their labels
        let says = Subject {
            site: self.site.as_ref(),
            labels,
            attributes: &BTreeMap::new(),
        };
        let who = Starter {
            node: slot,
            position: position(&plan.salt, &plan.release, &self.nodes[slot]),
            cohorts: (plan.test.as_ref()).map_or(0, |test| test.cohorts_of(&says)),
        };
        let leased = self.leases.start(now, who, plan, &plan.digest(), wave);
        leased.map_err(|what| (Rule::Lease, what))?;
        hours::start(now, &self.clock, plan).map_err(|what| (Rule::Hours, what))?;
        Ok(wave)
    }

    /// A machine's process came up; `rebooted` if the machine's boot clock began anew.
    pub fn came_up(&mut self, at: Time, slot: usize, rebooted: bool) {
        self.histories.reachable(at, slot, true);
        if rebooted {
            self.leases.restarted(slot);
        }
    }

    /// A machine's process is gone.
    pub fn went_down(&mut self, at: Time, slot: usize) {
        self.histories.reachable(at, slot, false);
    }

    /// There are so many of something that has a limit.
    pub fn holds(&mut self, at: Time, slot: usize, limited: Limited, there_are: usize) {
        if there_are > limited.most() {
            self.judged(at, Rule::Limits, slot, limited.holds(there_are));
        }
    }

    /// So many bytes came over the WAN between two moments, the later of which is now.
    pub fn over_wan(&mut self, from: Time, to: Time, bytes: f64) {
        if let Err(what) = self.rates.came(from, to, bytes) {
            let site = self.site.as_ref().map_or("the data centre", SiteId::as_str);
            self.found
                .violated(to, Rule::Rates, format!("{site}: {what}"));
        }
    }

    /// The cap of the WAN is another from now on, bytes a second.
    pub fn capped(&mut self, at: Time, cap: Option<f64>) {
        self.rates.set_cap(at, cap);
    }

    /// A machine bans another, named by its number in the fleet and whether it was made to lie.
    pub fn banned(&mut self, at: Time, slot: usize, (peer, lies): (usize, bool), why: &str) {
        let banned = bans::banned(peer, lies, why);
        self.judged(at, Rule::Ban, slot, banned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{CREATED, Fleet, node};
    use protocol::orders::OrderBody;

    /// A node that was told a plan, its lease, and perhaps a halt, and then switches.
    fn found(lease: bool, halt: bool, other: bool, on_disk: bool) -> Vec<String> {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let plan = fleet.verified(&fleet.plan("r", &release, vec![node(1)]));
        let mut watch = Watch::new(40, vec![node(1); 4], None, None);
        let now = |secs| Now {
            boot: Time::from_secs(secs),
            wall: Time(CREATED.0 + secs * 1000),
        };
        let mut told = |secs, event: &Event| {
            watch.told(Time::from_secs(secs), now(secs), 2, event);
        };
        told(1, &Event::Plan(plan.clone()));
        if lease {
            told(
                2,
                &Event::Order(fleet.order(1, fleet.lease(&plan, 0)), None),
            );
        }
        if halt {
            let (rollout, reason) = (plan.rollout.clone(), "stop".into());
            let halt = fleet.order(2, OrderBody::Halt { rollout, reason });
            told(3, &Event::Order(halt, None));
        }
        let release = if other {
            Hash([7; 32])
        } else {
            release.digest()
        };
        let at = (Time::from_secs(4), now(4));
        watch.switches(at, 2, &BTreeMap::new(), &release, on_disk);
        watch.found.lines()
    }

    #[test]
    fn a_switch_that_no_plan_allows_is_seen() {
        assert_eq!(found(true, false, false, true), [""; 0]);
        let line = "at 4000 ms: lease: node 42: no lease of r was delivered to it";
        assert_eq!(found(false, false, false, true), [line]);
        let line = "at 4000 ms: halt: node 42: the halt of r was delivered to it at 3000 ms";
        assert_eq!(found(true, true, false, true), [line]);
        let line = "at 4000 ms: unverified: node 42: it switches without a plan";
        assert_eq!(found(true, false, true, true), [line]);
        assert_eq!(
            found(true, false, false, false).len(),
            1,
            "bytes are missing"
        );
    }
}
