//! What this node says of itself, and when it tells the coordinator.
//!
//! Filters are asked over what was signed last, here as at the coordinator, so that both come to the same
//! answer but for the time that a change is on its way. It is told at every start of the node, because the
//! coordinator may have lost it, and then when it changed, at most every [`INVENTORY_INTERVAL`].

use std::collections::BTreeMap;

use protocol::constraints::Machine;
use protocol::inventory::{NodeInventory, SignedInventory, Subject};
use protocol::limits::{ASSESSMENTS_MAX, ATTRIBUTES_MAX, INVENTORY_INTERVAL, INVENTORY_PATIENCE};
use protocol::wire::{Contact, ControlReply, ControlRequest};
use protocol::{NodeId, Now, SiteId, Span, Time};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::contract::{Action, Config, NodeRole, Ticket};
use crate::counters::Counters;
use crate::outbox::Outbox;

/// The first telling is spread over so long.
const SPREAD: Span = Span::from_secs(3);
/// A fleet whose coordinator was restored tells it again, spread over so long.
const SPREAD_AGAIN: Span = Span::from_secs(300);
/// That others of its site are out of reach is told within so long.
const SPREAD_ISOLATED: Span = Span::from_secs(60);
/// A stream of its own, so that a draw here changes nothing elsewhere.
const STREAM: u64 = 0x1417;

/// By name.
pub(crate) type Attributes = BTreeMap<String, String>;

/// What this node says of itself.
pub(crate) struct Inventory {
    /// What does not change while the node runs.
    fixed: Attributes,
    labels: Attributes,
    /// As the machine is now; none before the body told.
    found: Option<Attributes>,
    /// As it was signed last, or would be if nothing was.
    said: Attributes,
    /// Its network, if there is something to say.
    network: Attributes,
    /// What it answers about releases that are assessed.
    answers: Attributes,
    /// There is something to tell that does not wait for the interval's end.
    soon: Option<Time>,
    told: bool,
    asked: Option<(Ticket, NodeId)>,
    next: Time,
    failures: u32,
    rng: ChaCha8Rng,
}

impl Inventory {
    /// Of the node of `config`; an origin says nothing.
    pub(crate) fn new(config: &Config) -> Inventory {
        // four are the machine's, one the network's
        let room = ATTRIBUTES_MAX - 5 - ASSESSMENTS_MAX;
        let fixed = config.attributes.iter().take(room);
        Inventory {
            fixed: fixed.map(|(k, v)| (k.clone(), v.clone())).collect(),
            labels: config.labels.clone(),
            found: None,
            said: config.attributes.clone(),
            network: Attributes::new(),
            answers: Attributes::new(),
            soon: None,
            told: config.role == NodeRole::Origin,
            asked: None,
            next: Time(0),
            failures: 0,
            rng: ChaCha8Rng::seed_from_u64(config.seed ^ STREAM),
        }
    }

    /// The machine is like this now.
    pub(crate) fn set_machine(&mut self, machine: &Machine, now: Now) {
        let mut found = attributes(&self.fixed, machine);
        found.extend(self.network.clone());
        found.extend(self.answers.clone());
        if self.found.is_none() {
            self.said.clone_from(&found);
            self.next = now.boot + self.spread(SPREAD);
        }
        self.found = Some(found);
    }

    /// Whether the body told what the machine is like.
    pub(crate) fn is_known(&self) -> bool {
        self.found.is_some()
    }

    /// It answers this about releases that are assessed. What is new is told within so long.
    pub(crate) fn set_answers(&mut self, answers: Attributes, within: Span, now: Now) {
        if answers == self.answers {
            return;
        }
        let gone = std::mem::replace(&mut self.answers, answers);
        if let Some(found) = &mut self.found {
            found.retain(|name, _| !gone.contains_key(name));
            found.extend(self.answers.clone());
        }
        let new = |(name, value): (&String, &String)| gone.get(name) != Some(value);
        if !self.answers.iter().any(new) {
            // What ended is told with the rest.
            return;
        }
        self.hasten(within, now);
    }

    /// Whether others of its site are there and out of reach. That it is over is told with the rest, so that a
    /// network that comes and goes fills no ledger.
    pub(crate) fn set_isolated(&mut self, isolated: bool, now: Now) {
        if isolated != self.network.is_empty() {
            return;
        }
        let network = isolated.then(|| ("lan".to_owned(), "isolated".to_owned()));
        let gone = std::mem::replace(&mut self.network, network.into_iter().collect());
        if let Some(found) = &mut self.found {
            found.retain(|name, _| !gone.contains_key(name));
            found.extend(self.network.clone());
        }
        let is_new = |(name, value): (&String, &String)| self.said.get(name) != Some(value);
        if self.network.iter().any(is_new) {
            self.hasten(SPREAD_ISOLATED, now);
        }
    }

    /// It is told within so long, and not only when the interval ends.
    fn hasten(&mut self, within: Span, now: Now) {
        let soon = now.boot + self.spread(within);
        match self.asked {
            Some(_) => self.soon = Some(soon),
            None => self.next = self.next.min(soon),
        }
    }

    /// The coordinator may have lost it.
    pub(crate) fn say_again(&mut self, now: Now) {
        if self.told && self.found.is_some() {
            self.told = false;
            self.next = now.boot + self.spread(SPREAD_AGAIN);
        }
    }

    /// As filters see this node.
    pub(crate) fn subject<'a>(&'a self, site: Option<&'a SiteId>) -> Subject<'a> {
        Subject {
            site,
            labels: &self.labels,
            attributes: &self.said,
        }
    }

    /// When there is something to tell.
    pub(crate) fn timeout(&self) -> Option<Time> {
        let found = self.found.as_ref()?;
        let due = !self.told || *found != self.said;
        (due && self.asked.is_none()).then_some(self.next)
    }

    /// Tells it. Filters see it from here on.
    pub(crate) fn tell(
        &mut self,
        me: NodeId,
        coordinators: &[Contact],
        counters: &mut Counters,
        now: Now,
        out: &mut Outbox,
    ) {
        let turn = self.failures as usize % coordinators.len().max(1);
        let (Some(to), Some(found)) = (coordinators.get(turn), &self.found) else {
            self.next = now.boot + INVENTORY_PATIENCE;
            return;
        };
        self.said.clone_from(found);
        self.told = false;
        let inventory = NodeInventory {
            node: me,
            seq: counters.draw(out),
            labels: self.labels.clone(),
            attributes: self.said.clone(),
        };
        let ticket = out.ticket();
        self.asked = Some((ticket, to.node));
        let signed = SignedInventory::unsigned(&inventory);
        out.push(Action::Ask {
            ticket,
            to: to.clone(),
            request: Box::new(ControlRequest::Inventory(signed)),
            own_statuses: Vec::new(),
        });
    }

    /// An answer came, or will not come; the coordinator that was asked if it was this room's.
    pub(crate) fn answered(
        &mut self,
        ticket: Ticket,
        reply: Option<&ControlReply>,
        now: Now,
    ) -> Option<NodeId> {
        let (_, asked) = self.asked.take_if(|(asked, _)| *asked == ticket)?;
        self.told = matches!(reply, Some(ControlReply::Done));
        self.next = match self.told {
            true => {
                self.failures = 0;
                let next = now.boot + INVENTORY_INTERVAL;
                self.soon.take().map_or(next, |soon| soon.max(now.boot))
            }
            false => {
                self.failures += 1;
                let pause = INVENTORY_PATIENCE.0 << self.failures.min(4);
                now.boot + self.spread(Span(pause))
            }
        };
        Some(asked)
    }

    /// Anything up to so long, and a little.
    fn spread(&mut self, most: Span) -> Span {
        Span(most.0 / 16 + self.rng.next_u64() % most.0.max(1))
    }
}

fn attributes(fixed: &Attributes, machine: &Machine) -> Attributes {
    let either =
        |is: Option<bool>, yes: &str, no: &str| is.map(|is| if is { yes } else { no }.to_owned());
    let free = machine
        .free_disk_bytes
        .map(|bytes| (bytes >> 30).to_string());
    let found = [
        ("disk.free_gib", free),
        ("power", either(machine.mains, "mains", "battery")),
        ("link", either(machine.metered, "metered", "unmetered")),
        ("zone", machine.zone.clone()),
    ];
    let found = found
        .into_iter()
        .filter_map(|(k, v)| Some((k.to_owned(), v?)));
    fixed.clone().into_iter().chain(found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{contact, node};
    use protocol::versioned::Versioned;

    struct Bench {
        inventory: Inventory,
        counters: Counters,
        out: Outbox,
        now: Now,
    }

    impl Bench {
        fn new() -> Bench {
            let mut config = crate::tests::World::new().config;
            config.attributes = (0..ATTRIBUTES_MAX)
                .map(|n| (format!("driver.d{n}"), "1".into()))
                .collect();
            Bench {
                inventory: Inventory::new(&config),
                counters: Counters::new(None, None, 1),
                out: Outbox::default(),
                now: Now::default(),
            }
        }

        fn machine(&mut self, gib: u64) {
            let machine = Machine {
                free_disk_bytes: Some(gib << 30),
                mains: Some(false),
                ..Machine::default()
            };
            self.inventory.set_machine(&machine, self.now);
        }

        /// Waits until there is something to tell, and tells it.
        fn tell(&mut self) -> (Ticket, NodeInventory) {
            self.now.boot = self.inventory.timeout().expect("something to tell");
            let (coordinators, out) = ([contact(9)], &mut self.out);
            self.inventory
                .tell(node(1), &coordinators, &mut self.counters, self.now, out);
            loop {
                let action = self.out.pop().expect("a question");
                if let Action::Ask {
                    ticket, request, ..
                } = action
                {
                    let ControlRequest::Inventory(signed) = *request else {
                        panic!("{request:?}")
                    };
                    return (ticket, NodeInventory::from_bytes(&signed.body).unwrap());
                }
            }
        }

        fn answer(&mut self, ticket: Ticket, reply: Option<ControlReply>) {
            let asked = self.inventory.answered(ticket, reply.as_ref(), self.now);
            assert_eq!(asked, Some(contact(9).node));
        }

        fn sees(&self, filter: &str) -> bool {
            let filter: protocol::filter::Filter = filter.parse().unwrap();
            filter.matches(&self.inventory.subject(None))
        }
    }

    #[test]
    fn a_network_that_keeps_machines_apart_is_told_soon_and_once_where_it_comes_and_goes() {
        let mut bench = Bench::new();
        bench.machine(7);
        let (ticket, _) = bench.tell();
        bench.answer(ticket, Some(ControlReply::Done));
        bench.inventory.set_isolated(false, bench.now);
        assert_eq!(bench.inventory.timeout(), None);
        let before = bench.now.boot;
        bench.inventory.set_isolated(true, bench.now);
        let (ticket, told) = bench.tell();
        assert_eq!(told.attributes["lan"], "isolated");
        assert!(bench.now.boot.since(before) <= Span(2 * SPREAD_ISOLATED.0));
        bench.answer(ticket, Some(ControlReply::Done));
        assert!(bench.sees("lan=isolated"));
        for isolated in [false, true, false, true] {
            bench.inventory.set_isolated(isolated, bench.now);
            bench.machine(7);
        }
        assert_eq!(bench.inventory.timeout(), None, "it says so already");
        bench.inventory.set_isolated(false, bench.now);
        let since = bench.now.boot;
        let (_, told) = bench.tell();
        assert!(!told.attributes.contains_key("lan"));
        assert!(bench.now.boot.since(since) > Span(2 * SPREAD_ISOLATED.0));
    }

    #[test]
    fn it_is_told_at_the_start_and_when_it_changed_but_not_all_the_time() {
        let mut bench = Bench::new();
        assert_eq!(
            bench.inventory.timeout(),
            None,
            "the machine is not known yet"
        );
        bench.machine(7);
        let (ticket, told) = bench.tell();
        assert_eq!(
            told.attributes.len(),
            ATTRIBUTES_MAX - 3 - ASSESSMENTS_MAX,
            "within the limit, with room for three more and for what is asked in assessments"
        );
        assert_eq!(told.attributes["power"], "battery");
        assert_eq!(bench.inventory.timeout(), None, "one question at a time");
        bench.answer(ticket, Some(ControlReply::Done));
        assert_eq!(bench.inventory.timeout(), None);
        let told_at = bench.now.boot;
        bench.machine(8);
        assert!(bench.sees("disk.free_gib=7"), "what was signed counts");
        let (_, again) = bench.tell();
        assert!(bench.now.boot >= told_at + INVENTORY_INTERVAL);
        assert!(bench.sees("disk.free_gib=8"));
        assert!(again.seq > told.seq);
    }

    #[test]
    fn what_was_not_taken_is_told_again_after_growing_pauses() {
        let mut bench = Bench::new();
        bench.machine(7);
        let mut pauses = Vec::new();
        for reply in [
            None,
            Some(ControlReply::Refused("later".into())),
            None,
            None,
            None,
            None,
        ] {
            let (ticket, _) = bench.tell();
            bench.answer(ticket, reply);
            let next = bench.inventory.timeout().expect("it is told again");
            pauses.push(next.since(bench.now.boot));
        }
        let most = Span(INVENTORY_PATIENCE.0 * 17);
        assert!(
            pauses.iter().all(|p| Span::ZERO < *p && *p <= most),
            "{pauses:?}"
        );
        assert!(pauses[5] >= INVENTORY_PATIENCE, "{pauses:?}");
    }
}
