//! What is to happen to whom, and when: drawn from the seed as plain data before anything runs.
//!
//! The engine asks [`Fate`] and obeys. Every draw has a stream of its own, named after its purpose and
//! the site and machine that it is for, so one node more at one site changes nothing at another.

mod ailments;
mod cuts;
mod presence;
mod rates;
mod traits;

use protocol::{Span, Time};

use crate::scenario::{Scenario, SiteSpec, below, stream};

pub use ailments::Ailment;
pub use cuts::{Cuts, Side};
pub use presence::Absence;
pub use traits::Traits;

/// Nobody dies before this: first everybody comes up.
const FIRST_FAULT: Span = Span::from_secs(2);

/// Something that happens at a site by itself, machines by their slot in it.
#[derive(Clone, PartialEq, Debug)]
pub enum Mishap {
    /// The machine goes away; with a word to the site or without.
    Goes {
        /// Which.
        slot: usize,
        /// Whether it says so.
        farewell: bool,
    },
    /// It comes back.
    Comes {
        /// Which.
        slot: usize,
        /// Whether the whole machine was off: its boot clock begins anew, and leases are gone.
        rebooted: bool,
    },
    /// The site's WAN carries so many thousandths of its rate from now on; 0 while it is cut.
    Wan {
        /// Thousandths.
        permille: u32,
    },
    /// Some place is cut off from now on; see [`Cuts::reaches`].
    Severed,
    /// The site's LAN falls in two; see [`Cuts::half`].
    Splits,
    /// It is whole again.
    Joins,
}

/// All that was drawn for a scenario.
#[derive(Clone, Debug)]
pub struct Fate {
    scenario: Scenario,
    sites: Vec<SiteSpec>,
    cuts: Cuts,
    victims: presence::Victims,
}

impl Fate {
    /// Draws it; `sites` are all sites of the world, by number, those of groups too.
    pub fn of(scenario: &Scenario, sites: &[SiteSpec]) -> Fate {
        Fate {
            cuts: Cuts::draw(scenario, sites),
            victims: presence::Victims::draw(scenario, sites),
            scenario: scenario.clone(),
            sites: sites.to_vec(),
        }
    }

    /// Who cannot reach whom.
    pub fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// What a machine is like.
    pub fn traits(&self, site: usize, slot: usize) -> Traits {
        Traits::draw(&self.scenario, &self.sites[site].name, site, slot)
    }

    /// What a release does to a machine with these traits.
    pub fn ailment(
        &self,
        release: usize,
        traits: &Traits,
        site: usize,
        slot: usize,
    ) -> Option<Ailment> {
        ailments::ailment(&self.scenario, release, traits, site, slot)
    }

    /// When a machine is away, in order and apart from one another.
    pub fn absences(&self, site: usize, slot: usize) -> Vec<Absence> {
        let traits = self.traits(site, slot);
        presence::absences(
            &self.scenario,
            &self.sites[site],
            &traits,
            &self.victims,
            (site, slot),
        )
    }

    /// What happens at a site, in order.
    pub fn mishaps(&self, site: usize) -> Vec<(Time, Mishap)> {
        let mut all = Vec::new();
        let slots = match self.moves() {
            true => 0..self.sites[site].nodes as usize,
            false => 0..0,
        };
        for slot in slots {
            for absence in self.absences(site, slot) {
                let farewell = absence.farewell;
                all.push((absence.from, Mishap::Goes { slot, farewell }));
                let rebooted = absence.rebooted;
                all.push((absence.to, Mishap::Comes { slot, rebooted }));
            }
        }
        all.extend(self.cuts.splits(site));
        let rates = rates::changes(&self.scenario, &self.sites[site], self.cuts.wan(site));
        all.extend(rates);
        all.extend(self.cuts.begins().map(|at| (at, Mishap::Severed)));
        all.sort_by_key(|(at, _)| *at);
        all
    }

    /// Whether any machine is ever away.
    fn moves(&self) -> bool {
        let s = &self.scenario;
        s.laptops.is_some() || s.churn.is_some() || s.faults.crashes + s.faults.reboots > 0
    }

    /// When the coordinator's process dies; it comes back after [`crate::scenario::MachineSpec::boot_s`].
    pub fn coordinator_deaths(&self) -> Vec<(Time, Span)> {
        let faults = &self.scenario.faults;
        let mut rng = stream(self.scenario.seed, "coordinator crashes");
        let mut deaths: Vec<_> = (0..faults.coordinator_crashes)
            .map(|_| {
                (
                    moment(&mut rng, faults.until_s),
                    self.scenario.machines.boot_s.draw(&mut rng),
                )
            })
            .collect();
        deaths.sort_unstable();
        deaths
    }

    /// From then on nothing new goes wrong by the scenario's faults and churn. Laptops go on coming
    /// and going, and messages go on getting lost.
    pub fn calm(&self) -> Time {
        let s = &self.scenario;
        let cuts = s.faults.cuts.iter().map(|c| c.to_s);
        let churn = s.churn.iter().map(|c| c.until_s);
        let ends = cuts.chain(churn).chain([s.faults.until_s]);
        let calm = Time::from_secs(ends.max().unwrap_or(0));
        let absences = (0..self.sites.len()).flat_map(|site| {
            let slots = 0..self.sites[site].nodes as usize;
            slots.flat_map(move |slot| self.absences(site, slot))
        });
        let back = match (s.laptops, s.churn) {
            (None, None) if s.faults.crashes + s.faults.reboots == 0 => None,
            (Some(_), _) => None,
            _ => absences.map(|a| a.to).max(),
        };
        let desk = self.coordinator_deaths().into_iter().map(|(at, d)| at + d);
        desk.chain(back).chain([calm]).max().unwrap_or(calm)
    }
}

/// A moment between the first fault and `until_s`.
fn moment(rng: &mut rand_chacha::ChaCha8Rng, until_s: u64) -> Time {
    let span = Span::from_secs(until_s).0.saturating_sub(FIRST_FAULT.0);
    Time(FIRST_FAULT.0 + below(rng, span))
}

#[cfg(test)]
mod tests;
