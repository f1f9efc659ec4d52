//! All rollouts of this node: which are taken up, in which order they move, when they are forgotten.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::DOCUMENTS_PATIENCE;
use protocol::status::State;
use protocol::{Hash, Now, RolloutId, SiteId, Span, Time};

use crate::contract::{Failure, JournalRecord, RecordKey, Standing, StepOutcome, Ticket, Wish};
use crate::lease::Leases;
use crate::library::Library;
use crate::offers::wished;
use crate::orders::Orders;
use crate::relations::{Other, in_force};
use crate::report::Reports;
use crate::rollout::Rollout;
use crate::slots::Ask;
use crate::swarm::Swarm;
use crate::task::{Rooms, Task};

/// Wall clocks are set and metadata expires, of which no event tells: a rollout that waits is looked
/// at again this often.
const LOOK_AGAIN: Span = Span::from_secs(60);

/// The rollouts that concern this node.
#[derive(Default)]
pub(crate) struct Rollouts {
    /// In boxes: most nodes have one, and a leaf of the map has room for eleven.
    rollouts: BTreeMap<RolloutId, Box<Rollout>>,
    /// Journals of rollouts that were not taken up again since the start.
    journals: BTreeMap<RolloutId, JournalRecord>,
    /// Releases of which every byte is here.
    staged: BTreeSet<Hash>,
    /// When they were advanced last.
    looked: Time,
    /// What the bulletin names and the library has not.
    unread: Option<Box<Unread>>,
}

/// Documents that are still to come.
struct Unread {
    /// The first rollout that lacks one.
    rollout: RolloutId,
    /// How many lack one.
    count: usize,
    /// Boot time since which it is as many.
    since: Time,
}

impl Rollouts {
    /// A journal that was remembered.
    pub(crate) fn restore(&mut self, journal: JournalRecord) {
        self.journals.insert(journal.rollout.clone(), journal);
    }

    /// The swarm has every byte of a release.
    pub(crate) fn staged(&mut self, release: Hash) {
        self.staged.insert(release);
        self.of_release(release).for_each(Rollout::staged);
    }

    /// The swarm cannot stage a release.
    pub(crate) fn not_staged(&mut self, release: Hash, failure: &Failure) {
        self.of_release(release)
            .for_each(|r| r.not_staged(failure.clone()));
    }

    /// Bytes of a release came in; true if that moves a rollout on.
    pub(crate) fn progressed(&mut self, release: Hash) -> bool {
        let rollouts = self.of_release(release);
        let moved = rollouts.map(Rollout::progressed).filter(|moved| *moved);
        moved.count() > 0
    }

    /// What rollouts look at in each other: of each, whether it waits, is busy, awaits its leave, is
    /// over.
    pub(crate) fn shape(&self) -> Vec<[bool; 4]> {
        let shape = |r: &Rollout| [r.is_waiting(), r.is_busy(), r.stands(), r.is_over()];
        self.all().map(shape).collect()
    }

    /// A step of an installation ended.
    pub(crate) fn step_ended(
        &mut self,
        ticket: Ticket,
        outcome: &StepOutcome,
        rooms: &mut Rooms<'_>,
    ) {
        for rollout in self.rollouts.values_mut() {
            rollout.step_ended(ticket, outcome.clone(), rooms);
        }
    }

    /// Takes up what the bulletin names and this node is concerned by, moves every rollout as far as
    /// it can go, the urgent ones first, and forgets what is over.
    pub(crate) fn advance(&mut self, site: Option<&SiteId>, rooms: &mut Rooms<'_>) {
        self.looked = rooms.now.boot;
        self.take_up(site, rooms);
        self.read(rooms);
        rooms.others = self.others(rooms.orders, rooms.reports, rooms.leases, rooms.now);
        rooms.unread = self.unread(rooms.now.boot);
        let each = self.rollouts.iter();
        let mut order: Vec<_> = each
            .map(|(id, r)| (Reverse(r.task.plan.priority), id.clone()))
            .collect();
        order.sort_unstable();
        self.make_way(rooms);
        for (_, id) in order {
            rooms.busy = self.holds_up(&id);
            rooms.rival = self.has_rival(&id);
            if let Some(rollout) = self.rollouts.get_mut(&id) {
                rollout.advance(rooms);
            }
        }
        rooms.busy = false;
        rooms.rival = false;
        self.forget_what_is_over(rooms);
    }

    /// Looks what the bulletin names that has not come.
    fn read(&mut self, rooms: &Rooms<'_>) {
        let mut lacking = rooms.library.unread(rooms.orders.bulletin());
        let Some(rollout) = lacking.next().cloned() else {
            self.unread = None;
            return;
        };
        let count = 1 + lacking.count();
        let held = self.unread.as_ref().filter(|held| held.count == count);
        let since = held.map_or(rooms.now.boot, |held| held.since);
        self.unread = Some(Box::new(Unread {
            rollout,
            count,
            since,
        }));
    }

    /// The rollout whose documents are waited for at this boot time.
    pub(crate) fn unread(&self, boot: Time) -> Option<RolloutId> {
        let held = self.unread.as_ref();
        let held = held.filter(|held| boot < held.since + DOCUMENTS_PATIENCE);
        held.map(|held| held.rollout.clone())
    }

    /// The rollouts that are in force here; none where no release says anything of another.
    pub(crate) fn others(
        &self,
        orders: &Orders,
        reports: &Reports,
        leases: &Leases,
        now: Now,
    ) -> Vec<Other> {
        let speaks = |r: &Rollout| !r.task.release.relations.is_empty();
        if self.rollouts.len() < 2 || !self.all().any(speaks) {
            return Vec::new();
        }
        let other = |r: &Rollout| {
            let (task, state) = (&r.task, reports.own(r.task.rollout()).map(|s| s.state));
            let here = task.alive(orders) && orders.recalled(&task.plan).is_none();
            let here = here && task.artifact.is_some() && in_force(state);
            here.then(|| Other {
                rollout: task.rollout().clone(),
                plan: task.plan.clone(),
                release: task.release.clone(),
                state,
                open: task.release.relations.infrastructure && r.is_open(orders, leases, now),
            })
        };
        self.all().filter_map(other).collect()
    }

    /// Whether another rollout holds up this one: by an installation under way, or by a slot of the
    /// same product.
    fn holds_up(&self, id: &RolloutId) -> bool {
        let product = self.rollouts.get(id).map(|r| &r.task.release.product);
        self.rollouts
            .iter()
            .filter(|(other, _)| *other != id)
            .any(|(_, r)| r.is_busy() || r.stands() && Some(&r.task.release.product) == product)
    }

    /// Whether another installation of the same product is under way.
    fn has_rival(&self, id: &RolloutId) -> bool {
        let product = self.rollouts.get(id).map(|r| &r.task.release.product);
        let others = self.rollouts.iter().filter(|(other, _)| *other != id);
        let mut rivals = others.filter(|(_, r)| Some(&r.task.release.product) == product);
        rivals.any(|(_, r)| r.is_busy())
    }

    /// An installation without leave, halted for instance, gives way to a newer release of its
    /// product: that is how a bad one is mended.
    fn make_way(&mut self, rooms: &mut Rooms<'_>) {
        if !self.all().any(Rollout::stands) {
            return;
        }
        let ready = self.all().filter(|r| r.could_begin(rooms));
        let ready = ready.map(|r| {
            (
                r.task.release.product.clone(),
                r.task.release.release_counter,
            )
        });
        let ready: Vec<_> = ready.collect();
        for rollout in self.rollouts.values_mut().filter(|r| r.stands()) {
            let release = &rollout.task.release;
            let newer = |(product, counter): &(SiteId, u64)| {
                *product == release.product && *counter > release.release_counter
            };
            if ready.iter().any(newer) {
                rollout.give_way(rooms);
            }
        }
    }

    /// The restart slots that rollouts need to begin, or hold while they are at it.
    pub(crate) fn wanted_slots(&self, rooms: &Rooms<'_>) -> BTreeMap<Hash, Ask> {
        let mut wanted: BTreeMap<Hash, Ask> = BTreeMap::new();
        for rollout in self.all() {
            let task = &rollout.task;
            let Some(rules) = &task.plan.constraints.slots else {
                continue;
            };
            let busy = rollout.is_busy();
            if !busy && !rollout.lacks_but_a_slot(rooms) {
                continue;
            }
            let ask = Ask {
                max: rules.max_unavailable,
                lease: rules.lease,
                busy,
            };
            let held = wanted.entry(task.slots_group(rules, rooms)).or_insert(ask);
            // Where rollouts disagree the stricter one counts.
            held.max = held.max.min(ask.max);
            held.lease = held.lease.max(ask.lease);
            held.busy |= ask.busy;
        }
        wanted
    }

    /// Does what the machine's user wishes, and says what came of it.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) fn wished(
        &self,
        rollout: Option<&RolloutId>,
        wish: Wish,
        rooms: &mut Rooms<'_>,
    ) -> Result<String, String> {
        let open: Vec<&Rollout> = self.all().filter(|r| r.may_be_wished()).collect();
        let meant = match rollout {
            Some(id) => open.into_iter().find(|r| r.task.rollout() == id),
            None if open.len() > 1 => {
                let names: Vec<_> = open.iter().map(|r| r.task.rollout().as_str()).collect();
                return Err(format!("which of {} is meant?", names.join(", ")));
            }
            None => open.into_iter().next(),
        };
        let Some(meant) = meant else {
            return Err("no rollout waits for a word of this machine's user".into());
        };
        let (task, now) = (&meant.task, rooms.now);
        let line = format!("{}: the user wishes to {}", task.rollout(), wished(wish));
        rooms.out.note("wish", line);
        let constraints = &task.plan.constraints;
        rooms
            .offers
            .grant(task.rollout(), wish, constraints, now, rooms.out)
    }

    /// When time alone may move something on.
    pub(crate) fn timeout(&self) -> Option<Time> {
        let wakes = self.all().filter_map(Rollout::wake);
        let mut open = self.all();
        let open = open.any(|r| r.is_waiting() || r.awaits_leave());
        wakes.chain(open.then_some(self.looked + LOOK_AGAIN)).min()
    }

    /// Releases that more than one rollout brings.
    pub(crate) fn shared(&self) -> BTreeSet<Hash> {
        let mut seen = BTreeSet::new();
        self.all()
            .map(|r| r.task.release.digest())
            .filter(|d| !seen.insert(*d))
            .collect()
    }

    /// One line for each rollout.
    pub(crate) fn standings(
        &self,
        orders: &Orders,
        library: &Library,
        reports: &Reports,
        swarm: &Swarm,
    ) -> Vec<Standing> {
        let known = self.all().map(|r| r.standing(reports, swarm));
        let heads = orders.bulletin().map_or(&[][..], |b| &b.rollouts[..]);
        let coming = heads
            .iter()
            .filter(|head| !self.rollouts.contains_key(&head.rollout));
        let coming = coming.filter_map(|head| {
            let why = match (library.plan(&head.plan), library.release(&head.release)) {
                (None, _) => "its plan has not come yet",
                (_, None) => "its release has not come yet",
                _ => return None,
            };
            Some(Standing {
                rollout: head.rollout.clone(),
                release: head.release.short(),
                wave: None,
                state: State::NotReceived,
                why: why.to_owned(),
                missing_bytes: None,
                bytes: BTreeMap::new(),
            })
        });
        known.chain(coming).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Rollout> {
        self.rollouts.values().map(Box::as_ref)
    }

    fn of_release(&mut self, release: Hash) -> impl Iterator<Item = &mut Rollout> {
        self.rollouts
            .values_mut()
            .map(Box::as_mut)
            .filter(move |r| r.task.release.digest() == release)
    }

    fn take_up(&mut self, site: Option<&SiteId>, rooms: &mut Rooms<'_>) {
        let heads = rooms.orders.bulletin().map_or(&[][..], |b| &b.rollouts[..]);
        let named = heads.iter().map(|h| (h.rollout.clone(), h.plan, h.release));
        // What was begun goes on, whatever the bulletin says.
        let begun = self.journals.values().filter_map(|journal| {
            let own = rooms.reports.own(&journal.rollout)?;
            Some((journal.rollout.clone(), own.plan, journal.release))
        });
        let named: Vec<_> = named.chain(begun).collect();
        for (id, plan, release) in named {
            let (Some(plan), Some(release)) =
                (rooms.library.plan(&plan), rooms.library.release(&release))
            else {
                continue;
            };
            if plan.rollout != id || plan.release != release.digest() {
                continue;
            }
            let meant = plan.targets.meets(&rooms.inventory.subject(site));
            let wave = plan.wave_of(&rooms.config.node, site).filter(|_| meant);
            match self.rollouts.get_mut(&id) {
                Some(held) if held.is_waiting() => {
                    if let Some(wave) =
                        wave.filter(|_| held.task.release.digest() == release.digest())
                    {
                        held.task.plan = plan.clone();
                        held.task.wave = wave;
                        held.task.site = site.cloned();
                    } else {
                        held.let_go(rooms);
                        self.rollouts.remove(&id);
                    }
                }
                Some(held) => {
                    if held.task.release.digest() == release.digest() {
                        held.task.plan = plan.clone();
                    }
                }
                None => {
                    let journal = self
                        .journals
                        .get(&id)
                        .filter(|j| j.release == release.digest());
                    let own = rooms.reports.own(&id).filter(|_| journal.is_some());
                    let Some(wave) = wave.or(own.map(|status| status.wave)) else {
                        continue;
                    };
                    let mut task =
                        Task::new(plan.clone(), release.clone(), wave, site, rooms.config);
                    task.staged = self.staged.contains(&release.digest());
                    let journal = journal.cloned();
                    self.journals.remove(&id);
                    let rollout = Rollout::new(task, journal, rooms);
                    self.rollouts.insert(id, Box::new(rollout));
                }
            }
        }
    }

    /// A rollout that the newest bulletin does not name is forgotten once the coordinator has what
    /// there was to say about it. Orders newer than the bulletin may be about one that comes next.
    fn forget_what_is_over(&mut self, rooms: &mut Rooms<'_>) {
        let bulletin = rooms.orders.bulletin_seq();
        let ids = self
            .rollouts
            .keys()
            .chain(rooms.orders.rollouts())
            .chain(rooms.reports.rollouts());
        let over: BTreeSet<RolloutId> = ids
            .filter(|id| rooms.orders.head_of(id).is_none() && rooms.orders.seen(id) < bulletin)
            .filter(|id| !self.journals.contains_key(*id))
            .filter(|id| rooms.reports.own(id).is_none() || rooms.reports.acknowledged(id))
            .filter(|id| self.rollouts.get(*id).is_none_or(|r| r.is_over()))
            .cloned()
            .collect();
        for id in over {
            if let Some(mut rollout) = self.rollouts.remove(&id) {
                rollout.let_go(rooms);
                if rollout.has_journal() {
                    rooms.out.forget(RecordKey::Journal(id.clone()));
                }
            }
            rooms.reports.forget(&id, rooms.out);
            rooms.over.push(id);
        }
        let releases: BTreeSet<Hash> = self.all().map(|r| r.task.release.digest()).collect();
        self.staged.retain(|release| releases.contains(release));
    }

    /// Plans and releases that must be kept: alive, begun, installed or to go back to.
    pub(crate) fn kept(&self, rooms: &Rooms<'_>) -> (BTreeSet<Hash>, BTreeSet<Hash>) {
        let heads = rooms.orders.bulletin().map_or(&[][..], |b| &b.rollouts[..]);
        let own = rooms
            .reports
            .rollouts()
            .filter_map(|id| rooms.reports.own(id))
            .map(|s| s.plan);
        let plans = heads.iter().map(|h| h.plan).chain(own);
        let plans = plans
            .chain(self.all().map(|r| r.task.plan.digest()))
            .collect();
        let journals = self
            .journals
            .values()
            .flat_map(|j| [Some(j.release), j.before])
            .flatten();
        let releases = heads.iter().map(|h| h.release).chain(journals);
        let releases = releases.chain(self.all().flat_map(Rollout::releases));
        let assessed = rooms.orders.bulletin().map_or(&[][..], |b| &b.assess[..]);
        let releases = releases.chain(assessed.iter().map(|a| a.release));
        (plans, releases.chain(rooms.installed.all()).collect())
    }

    /// Whether a rollout waits for the bytes of a release.
    #[cfg(test)]
    pub(crate) fn wants(&self, release: &Hash) -> bool {
        self.all()
            .any(|r| r.task.release.digest() == *release && !r.task.staged && !r.is_over())
    }
}
