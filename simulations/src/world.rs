//! The world: its parts, and how they run side by side.
//!
//! A part hears of another only by letters, and a letter takes its way. So in every round those parts that
//! have something to do in the next [`Shared::lookahead`] run by themselves as far as [`Reach`] lets them,
//! on as many threads as one likes, and then their letters are handed out in an order that does not
//! depend on who ran first.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use protocol::plan::RolloutPlan;
use protocol::{Span, Time};

use crate::checks::audit::Bounds;
use crate::checks::findings::Findings;
use crate::checks::watch::Watch;
use crate::crew::{Crew, Order};
use crate::hub::Hub;
use crate::island::Island;
use crate::mail;
use crate::reach::Reach;
use crate::scenario::Scenario;
use crate::shared::Shared;
use crate::uplinks::{self, Uplinks};

/// Once a wave has soaked and all of it has ended, the gate is judged within this.
const VERDICT: Span = Span::from_secs(60);

/// The pretend world.
pub struct World {
    /// What everyone in it knows.
    pub shared: Arc<Shared>,
    /// The coordinator and the operators.
    pub hub: Hub,
    /// The sites, and the data centre.
    pub islands: Vec<Island>,
}

impl World {
    /// Makes the world of a scenario; nothing has happened yet.
    ///
    /// # Errors
    /// When the scenario's names are malformed.
    pub fn new(scenario: Scenario) -> Result<World> {
        let shared = Arc::new(Shared::new(scenario)?);
        let parts = 0..=shared.centre();
        Ok(World {
            hub: Hub::new(shared.clone()),
            islands: parts
                .map(|part| Island::new(shared.clone(), part))
                .collect(),
            shared,
        })
    }

    /// Lets the world run to its end on so many threads, 0 for the machine's cores. What comes of it
    /// does not depend on them.
    pub fn run(&mut self, threads: usize) {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let islands = std::mem::take(&mut self.islands);
        let rates = islands.iter().filter_map(|i| Some((i.part, i.uplink()?)));
        let uplinks = Uplinks::new(rates.collect::<BTreeMap<_, _>>());
        let (hub, shared) = (&mut self.hub, &self.shared);
        self.islands = std::thread::scope(|scope| {
            let mut crew = Crew::new(scope, shared, islands, threads);
            go(hub, shared, &mut crew, uplinks);
            crew.disband()
        });
    }

    /// Virtual time since the beginning.
    pub fn time(&self) -> Time {
        let islands = self.islands.iter().map(Island::time);
        islands.chain([self.hub.time()]).max().unwrap_or(Time(0))
    }

    /// Happenings so far.
    pub fn events(&self) -> u64 {
        self.hub.events + self.islands.iter().map(|i| i.events).sum::<u64>()
    }

    /// What the brains were told, by kind.
    pub fn heard(&self) -> BTreeMap<&'static str, u64> {
        let mut heard = BTreeMap::new();
        for (kind, count) in self.islands.iter().flat_map(|i| &i.tally.heard) {
            *heard.entry(*kind).or_default() += count;
        }
        heard
    }

    /// What the brains noted: milliseconds, event, line.
    pub fn notes(&self) -> Vec<(u64, &'static str, String)> {
        let islands = self.islands.iter().flat_map(|i| &i.notes);
        let mut notes: Vec<_> = islands.chain(&self.hub.story.notes).cloned().collect();
        notes.sort_by_key(|(at, ..)| *at);
        notes
    }

    /// All that the checkers found, at once and looking back.
    pub fn findings(&self) -> Findings {
        // the origin installs nothing, so nobody waits for it
        let sites = self.islands.iter().filter(|i| i.site().is_some());
        let watches: Vec<&Watch> = sites.map(|i| &i.watch).collect();
        let bounds = Bounds {
            quiet: self.shared.quiet(),
            end: self.time(),
            verdict: VERDICT,
        };
        let bound = |part: usize, plan: &RolloutPlan| self.shared.converges_in(part, plan);
        let mut found = self.hub.audit.settle(&watches, bounds, &bound);
        found.merge(self.hub.audit.found.clone());
        for island in &self.islands {
            found.merge(island.watch.found.clone());
        }
        found
    }
}

fn go(hub: &mut Hub, shared: &Arc<Shared>, crew: &mut Crew<'_>, mut uplinks: Uplinks) {
    let end = Time::from_secs(shared.scenario.duration_s) + Span(1);
    let mut look = Time(0);
    let mut grants = Vec::new();
    // faults are drawn before anything runs
    let mut letters = hub.run(Time(0));
    let mut crew_next = Some(Time(0));
    let mut crew_reach = Reach::default();
    (0..=shared.centre()).for_each(|part| crew_reach.has(shared, part, Time(0)));
    while !hub.over {
        let waiting = letters.iter().map(|l| l.at).min();
        let hub_next = hub.next_at();
        let Some(next) = hub_next.into_iter().chain(crew_next).chain(waiting).min() else {
            return;
        };
        if next >= end {
            return;
        }
        let mut reach = crew_reach;
        for letter in &letters {
            reach.has(shared, letter.to, letter.at);
        }
        hub_next
            .into_iter()
            .for_each(|at| reach.has(shared, shared.hub(), at));
        let until = (next + shared.lookahead).min(end);
        let looks = until >= look;
        if looks {
            look = until + uplinks::EVERY;
        }
        mail::sort(&mut letters);
        let first = letters.partition_point(|l| l.to < shared.hub());
        let to_hub = letters.split_off(first);
        crew.order(Order {
            until,
            reach,
            end,
            letters: std::mem::take(&mut letters),
            grants: std::mem::take(&mut grants),
            looks,
        });
        hub.take(to_hub);
        letters = hub.run(reach.of(shared, shared.hub()).min(end));
        // a thread that panicked is joined where the crew disbands
        let Some(done) = crew.report() else {
            return;
        };
        letters.extend(done.letters);
        (crew_next, crew_reach) = (done.next, done.reach);
        if looks {
            grants = uplinks.share(&done.uses);
        }
    }
}
