//! A pretend line: one bottleneck with a queue that drops what would wait too long, a path that takes
//! its time, losses of its own, and flows that always have something to send.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::congestion::{Background, Micros};

/// Bytes of a packet.
pub const PACKET: u64 = 1_400;
/// What a second has.
pub const SECOND: u64 = 1_000_000;
/// Deliveries and queues are noted this often.
const NOTED: u64 = 10_000;

/// QUIC spreads a window over four fifths of a round trip, but so many packets may leave at once.
const BURST: u64 = 10;

/// The bottleneck and the path.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Bytes a second.
    pub rate: u64,
    /// There and back without a queue, in microseconds.
    pub path: u64,
    /// A packet that would wait longer is dropped, in microseconds.
    pub buffer: u64,
    /// Of a million packets so many are lost anywhere.
    pub loss_ppm: u64,
}

/// A sender.
pub enum Sender {
    Polite(Box<Background>),
    /// Slow start, then a packet more in each round trip, and half after a loss (RFC 5681).
    Greedy(Reno),
}

pub struct Reno {
    window: f64,
    threshold: f64,
    acted: u64,
}

struct Flow {
    sender: Sender,
    from: u64,
    on_its_way: u64,
    /// The last round trip, and until when packets that left are spread.
    round: u64,
    spread_to: u64,
    waits_for_its_turn: bool,
    /// Bytes that arrived, by [`NOTED`].
    arrived: Vec<u64>,
}

enum Event {
    Begin(usize),
    Turn(usize),
    Arrived { flow: usize, sent: u64 },
    Lost { flow: usize, sent: u64 },
    Note,
}

/// A line with its flows.
pub struct World {
    pub line: Line,
    now: u64,
    free_at: u64,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    flows: Vec<Flow>,
    waits: Vec<u64>,
    draws: ChaCha8Rng,
}

impl World {
    pub fn of(line: Line) -> World {
        let mut world = World {
            line,
            now: 0,
            free_at: 0,
            events: BTreeMap::new(),
            count: 0,
            flows: Vec::new(),
            waits: Vec::new(),
            draws: ChaCha8Rng::seed_from_u64(5),
        };
        world.at(0, Event::Note);
        world
    }

    /// A background flow that begins then; its number.
    pub fn polite(&mut self, from: u64) -> usize {
        self.flow(Sender::Polite(Box::new(Background::new(PACKET))), from)
    }

    /// A loss-based flow that begins then; its number.
    pub fn greedy(&mut self, from: u64) -> usize {
        let reno = Reno {
            window: (10 * PACKET) as f64,
            threshold: f64::MAX,
            acted: 0,
        };
        self.flow(Sender::Greedy(reno), from)
    }

    fn flow(&mut self, sender: Sender, from: u64) -> usize {
        self.flows.push(Flow {
            sender,
            from,
            on_its_way: 0,
            round: 0,
            spread_to: 0,
            waits_for_its_turn: false,
            arrived: Vec::new(),
        });
        self.at(from, Event::Begin(self.flows.len() - 1));
        self.flows.len() - 1
    }

    fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.events.insert((time, self.count), event);
    }

    pub fn run_until(&mut self, end: u64) {
        while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= end) {
            let ((time, _), event) = entry.remove_entry();
            self.now = time;
            match event {
                Event::Begin(flow) => self.send(flow),
                Event::Turn(flow) => {
                    self.flows[flow].waits_for_its_turn = false;
                    self.send(flow);
                }
                Event::Note => {
                    self.waits.push(self.free_at.saturating_sub(time));
                    self.at(time + NOTED, Event::Note);
                }
                Event::Arrived { flow, sent } => self.arrived(flow, sent),
                Event::Lost { flow, sent } => self.lost(flow, sent),
            }
        }
        self.now = end;
    }

    fn arrived(&mut self, number: usize, sent: u64) {
        let (now, flow) = (self.now, &mut self.flows[number]);
        flow.on_its_way -= PACKET;
        flow.round = now - sent;
        let slot = (now / NOTED) as usize;
        flow.arrived.resize(flow.arrived.len().max(slot + 1), 0);
        flow.arrived[slot] += PACKET;
        match &mut flow.sender {
            Sender::Polite(controller) => {
                controller.acked(Micros(now), Micros(sent), PACKET, false);
                controller.acks_end(Micros(now));
            }
            Sender::Greedy(reno) if reno.window < reno.threshold => reno.window += PACKET as f64,
            Sender::Greedy(reno) => reno.window += (PACKET * PACKET) as f64 / reno.window,
        }
        self.send(number);
    }

    fn lost(&mut self, number: usize, sent: u64) {
        let (now, flow) = (self.now, &mut self.flows[number]);
        flow.on_its_way -= PACKET;
        match &mut flow.sender {
            Sender::Polite(controller) => {
                controller.lost(Micros(now), Micros(sent), PACKET, false);
            }
            Sender::Greedy(reno) if sent > reno.acted => {
                reno.acted = now;
                reno.threshold = (reno.window / 2.0).max((2 * PACKET) as f64);
                reno.window = reno.threshold;
            }
            Sender::Greedy(_) => {}
        }
        self.send(number);
    }

    fn send(&mut self, number: usize) {
        loop {
            let flow = &mut self.flows[number];
            let window = match &flow.sender {
                Sender::Polite(controller) => controller.window(),
                Sender::Greedy(reno) => reno.window as u64,
            };
            if flow.on_its_way + PACKET >= window || flow.waits_for_its_turn {
                return;
            }
            let each = PACKET * flow.round * 4 / 5 / window;
            if matches!(flow.sender, Sender::Polite(_)) && flow.spread_to > self.now + BURST * each
            {
                flow.waits_for_its_turn = true;
                let turn = flow.spread_to - BURST * each;
                self.at(turn, Event::Turn(number));
                return;
            }
            flow.spread_to = flow.spread_to.max(self.now) + each;
            flow.on_its_way += PACKET;
            let (sent, wait) = (self.now, self.free_at.saturating_sub(self.now));
            let unlucky = self.draws.next_u64() % 1_000_000 < self.line.loss_ppm;
            if wait > self.line.buffer {
                let seen = sent + wait + self.line.path;
                self.at(seen, Event::Lost { flow: number, sent });
                continue;
            }
            self.free_at = self.now + wait + PACKET * SECOND / self.line.rate;
            let seen = self.free_at + self.line.path;
            let event = match unlucky {
                true => Event::Lost { flow: number, sent },
                false => Event::Arrived { flow: number, sent },
            };
            self.at(seen, event);
        }
    }

    /// Of what the line could carry in this time, the share that arrived of a flow.
    pub fn share(&self, flow: usize, from: u64, to: u64) -> f64 {
        let slots = (from / NOTED) as usize..(to / NOTED) as usize;
        let arrived = self.flows[flow].arrived.iter();
        let bytes: u64 = arrived.skip(slots.start).take(slots.len()).sum();
        bytes as f64 / (self.line.rate as f64 * (to - from) as f64 / SECOND as f64)
    }

    /// What 95 of a hundred looks at the queue found it to be at most, in microseconds.
    pub fn wait_p95(&self, from: u64, to: u64) -> u64 {
        let mut waits = self.waits[(from / NOTED) as usize..(to / NOTED) as usize].to_vec();
        waits.sort_unstable();
        waits[waits.len() * 95 / 100]
    }

    /// When a flow began.
    pub fn began(&self, flow: usize) -> u64 {
        self.flows[flow].from
    }
}
