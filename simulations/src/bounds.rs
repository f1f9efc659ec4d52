//! How long things may take once faults have stopped, so that liveness is a rule and no hope.

use protocol::plan::RolloutPlan;
use protocol::{Span, Time};

use crate::island::mbit;
use crate::shared::Shared;

/// Beside the bytes and the installation: being found, told, and leased.
const TALK_S: f64 = 180.0;
/// A disk writes and decodes so many bytes a second at the least.
const DISK_BYTES_PER_S: f64 = 50e6;
/// Hours of the day come again within a week.
const HOURS: Span = Span::from_secs(7 * 86_400);
/// The bytes may take so many times what the links allow.
const SLACK: f64 = 3.0;

impl Shared {
    /// From then on nothing new goes wrong.
    pub fn quiet(&self) -> Time {
        self.fate.calm()
    }

    /// How long a node of a part may take for a rollout, from the moment in which it can be reached
    /// and its wave is open: what the scenario says, else three times what its links need for every
    /// release that is rolled out, and the steps of the installation; and a week if it may have to wait
    /// for hours of the day.
    pub fn converges_in(&self, part: usize, plan: &RolloutPlan) -> Span {
        if let Some(seconds) = self.scenario.converge_s {
            return Span::from_secs(seconds);
        }
        let hours = match self.scenario.rollout.constraints.waits() {
            true => HOURS,
            false => Span(0),
        };
        let Some(site) = self.sites.get(part) else {
            return Span::from_secs(TALK_S as u64);
        };
        let least = site.schedule.iter().map(|hours| hours.percent).min();
        let wan = mbit(site.wan_mbit) * f64::from(least.unwrap_or(100).max(1)) / 100.0;
        let sites = self.sites.iter().filter(|s| s.nodes > 0).count() as f64;
        let uplink = self.scenario.origin.uplink_mbit.map(mbit);
        let rate = uplink.map_or(wan, |rate| wan.min(rate / sites.max(1.0)));
        let rate = rate.min(mbit(site.lan_mbit));
        let bytes = |length: u64| length as f64;
        let all = self.contents.iter().map(|c| {
            let crosses = bytes(c.carrier.length + c.index.length);
            SLACK * (crosses / rate + bytes(c.pack.length) / DISK_BYTES_PER_S)
        });
        let mine = self.contents.iter().position(|c| c.digest == plan.release);
        let spec = mine.map(|n| &self.scenario.releases[n]);
        let longest = |length: Option<crate::scenario::Length>| length.map_or(0.0, |l| l.most_s());
        let steps = spec.map_or(0.0, |spec| {
            spec.health_soak_s as f64 + longest(spec.install_s) + longest(spec.restart_s)
        });
        Span(((TALK_S + all.sum::<f64>() + steps) * 1000.0) as u64 + hours.0)
    }
}
