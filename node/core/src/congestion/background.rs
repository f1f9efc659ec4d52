//! The background controller: a congestion window that keeps the queue at the bottleneck short.
//!
//! After LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus) and RFC 6817, with these differences:
//! - the queue aimed at takes [`TARGET`], 15 ms and not 60: a call beside a transfer does not notice it;
//! - a loss while the queue is short is taken for the line's own as long as losses are few, since a flow
//!   that halves its window at every thousandth packet is slow for ever on a long line. A bottleneck
//!   whose queue is too short to show shows itself in the first seconds by many losses; there every loss
//!   halves the window, as in the draft;
//! - the first pause comes right after the start and not two round trips later: it also drains what the
//!   start sent too much, which a window that follows the queue would answer twice on a long path;
//! - after a pause the window begins at half of what it was, since QUIC spreads it over a round trip;
//! - a pause to measure the path again is left out if the queue was empty since the last one anyway.

use super::Micros;
use super::delay::{BaseDelay, PresentDelay};
use super::losses::Losses;

/// The queue that is aimed at.
const TARGET: Micros = Micros::from_millis(15);
/// The start is over when the queue takes longer than this: three quarters of the target.
const STARTED: Micros = Micros(TARGET.0 / 4 * 3);
/// With a longer queue than this a loss is the queue's.
const FULL: Micros = Micros(TARGET.0 * 2);
/// With a shorter one the path has been measured.
const EMPTY: Micros = Micros(TARGET.0 / 8);
/// The window's growth is divided by at most so much on short paths.
const SLOWER_MAX: u64 = 16;
/// The window never gets smaller than so many packets. QUIC sends while less than the window is on its
/// way, so one of them is room only; with two on their way no acknowledgement is put off.
const FLOOR_PACKETS: u64 = 3;
/// The window at the beginning.
const FIRST_PACKETS: u64 = 4;
/// No datagram is larger.
const PACKET_MAX_BYTES: u64 = 65_535;
/// The window never gets larger than this.
const WINDOW_MAX_BYTES: u64 = 64 << 20;
/// A pause lasts so many round trips.
const PAUSE_ROUNDS: u64 = 2;
/// Between two pauses lies so many times what the last one took.
const PAUSE_TIMES: u64 = 9;
/// And at least this.
const PAUSE_APART: Micros = Micros::from_millis(5_000);
/// Parts of a byte in which the window is kept, so that slow growth is not lost in rounding.
const PARTS: u64 = 1024;

/// The congestion window of a sender that yields to everybody else.
///
/// Inputs: [`Background::acked`] for each packet that arrived, then [`Background::acks_end`] once for
/// all that one acknowledgement named; [`Background::lost`]; [`Background::packet_is`]. Output:
/// [`Background::window`]. Times may be odd: what cannot be is not counted.
#[derive(Clone, Debug)]
pub struct Background {
    packet: u64,
    window_parts: u64,
    base: BaseDelay,
    present: PresentDelay,
    round: Micros,
    batch: Batch,
    losses: Losses,
    /// The queue never showed before packets were lost.
    shallow: bool,
    /// The queue was empty since the last pause.
    measured: bool,
    /// Losses of packets sent until then have been acted upon.
    acted: Option<Micros>,
    phase: Phase,
}

/// What one acknowledgement named.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    least: Option<Micros>,
    bytes: u64,
    /// Of these, those sent while the window was what held the sender back.
    held_back: u64,
}

/// What the window waits for.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Grows until a queue shows.
    Start,
    /// Follows the queue until it is time to pause.
    Follow { pause_at: Micros },
    /// As small as may be, so that the path shows.
    Pause {
        began: Micros,
        until: Micros,
        back_to: u64,
    },
    /// Grows to where it was, from half of that.
    Return { began: Micros, back_to: u64 },
}

impl Background {
    /// For packets of so many bytes.
    pub fn new(packet_bytes: u64) -> Background {
        let packet = packet_bytes.clamp(1, PACKET_MAX_BYTES);
        Background {
            packet,
            window_parts: FIRST_PACKETS * packet * PARTS,
            base: BaseDelay::new(),
            present: PresentDelay::new(),
            round: Micros(0),
            batch: Batch::default(),
            losses: Losses::default(),
            shallow: false,
            measured: false,
            acted: None,
            phase: Phase::Start,
        }
    }

    /// Bytes that may be on their way.
    pub fn window(&self) -> u64 {
        self.window_parts / PARTS
    }

    /// How long a packet waits at the bottleneck now.
    pub fn queueing(&self) -> Micros {
        let known = self.present.get().zip(self.base.get());
        known
            .and_then(|(present, base)| present.since(base))
            .unwrap_or_default()
    }

    /// Packets are of so many bytes from now on.
    pub fn packet_is(&mut self, bytes: u64) {
        self.packet = bytes.clamp(1, PACKET_MAX_BYTES);
        self.set_window(self.window_parts);
    }

    /// A packet arrived. `idle`: something other than the window held the sender back.
    pub fn acked(&mut self, now: Micros, sent: Micros, bytes: u64, idle: bool) {
        if let Some(took) = now.since(sent) {
            let took = took.max(Micros(1));
            self.batch.least = Some(self.batch.least.map_or(took, |least| least.min(took)));
        }
        self.batch.bytes = self.batch.bytes.saturating_add(bytes);
        if !idle {
            self.batch.held_back = self.batch.held_back.saturating_add(bytes);
        }
        self.losses.arrived(bytes, self.packet);
    }

    /// All that an acknowledgement named has been told.
    pub fn acks_end(&mut self, now: Micros) {
        let batch = core::mem::take(&mut self.batch);
        let Some(took) = batch.least else { return };
        self.base.note(now, took);
        self.present.note(took);
        self.round = match self.round {
            Micros(0) => took,
            Micros(round) => Micros(round - round / 8 + took.0 / 8),
        };
        let queueing = self.queueing();
        self.measured |= queueing <= EMPTY;
        self.shallow &= queueing <= STARTED;
        match self.phase {
            Phase::Start if queueing > STARTED => self.pause(now, self.before_growth()),
            Phase::Start => self.grow(batch.held_back),
            Phase::Follow { pause_at } if now >= pause_at => self.pause_or_go_on(now),
            Phase::Follow { .. } => self.steer(batch, queueing),
            Phase::Pause {
                began,
                until,
                back_to,
            } if now >= until => {
                self.set_window(back_to / 2 * PARTS);
                self.phase = Phase::Return { began, back_to };
            }
            Phase::Pause { .. } => {}
            Phase::Return { began, back_to } => {
                self.grow(batch.held_back);
                if self.window() >= back_to || queueing > TARGET {
                    let took = now.since(began).unwrap_or_default();
                    self.follow(now + (took * PAUSE_TIMES).max(PAUSE_APART));
                }
            }
        }
    }

    /// Packets were lost, the last of them sent at `sent`; `bytes` zero: none was, but the network marked
    /// one instead (ECN). `nothing_arrived` for so long that the path may be another.
    pub fn lost(&mut self, now: Micros, sent: Micros, bytes: u64, nothing_arrived: bool) {
        self.losses.lost(bytes, self.packet);
        if nothing_arrived {
            self.acted = Some(now);
            let back_to = self.window() / 2;
            self.set_window(0);
            self.phase = Phase::Return {
                began: now,
                back_to,
            };
            return;
        }
        if self.acted.is_some_and(|acted| sent <= acted) {
            return;
        }
        let marked = bytes == 0;
        let many = self.losses.are_many(self.packet);
        if !(marked || many || self.shallow || self.queueing() > FULL) {
            return;
        }
        self.acted = Some(now);
        self.losses.forget();
        self.set_window(self.window_parts / 2);
        match self.phase {
            Phase::Start => {
                self.shallow = many;
                self.pause(now, self.window());
            }
            Phase::Pause {
                began,
                until,
                back_to,
            } => {
                self.phase = Phase::Pause {
                    began,
                    until,
                    back_to: back_to / 2,
                }
            }
            Phase::Return { .. } => self.follow(now + PAUSE_APART),
            Phase::Follow { .. } => {}
        }
    }

    fn follow(&mut self, pause_at: Micros) {
        self.measured = false;
        self.phase = Phase::Follow { pause_at };
    }

    /// All background flows pause from time to time, so that each learns what the path takes without
    /// their queue; who came late would else take the others' queue for the path.
    fn pause_or_go_on(&mut self, now: Micros) {
        if self.measured || self.window() <= self.floor() * 2 {
            self.follow(now + PAUSE_APART);
        } else {
            self.pause(now, self.window());
        }
    }

    fn pause(&mut self, now: Micros, back_to: u64) {
        self.phase = Phase::Pause {
            began: now,
            until: now + self.round * PAUSE_ROUNDS,
            back_to,
        };
        self.set_window(0);
    }

    /// The window of a round trip ago, which made the queue that shows now.
    fn before_growth(&self) -> u64 {
        self.window() * self.slower() / (self.slower() + 1)
    }

    /// By what arrived, slower on short paths, where a round trip is soon over and target and path are far
    /// apart: the draft's GAIN, `1 / min(16, ceil(2 · TARGET / base))`.
    fn grow(&mut self, arrived: u64) {
        let grown = u128::from(arrived) * u128::from(PARTS) / u128::from(self.slower());
        self.set_window(add(self.window_parts, grown));
    }

    fn slower(&self) -> u64 {
        let base = self.base.get().map_or(1, |base| base.0.max(1));
        (2 * TARGET.0).div_ceil(base).clamp(1, SLOWER_MAX)
    }

    /// In a round trip the window grows by the gain's part of a packet, and above the target it loses its
    /// `queueing / TARGET - 1`, at most half.
    fn steer(&mut self, batch: Batch, queueing: Micros) {
        let window = u128::from(self.window_parts.max(1));
        let parts = |bytes: u64| u128::from(bytes) * u128::from(PARTS);
        let growth = parts(batch.held_back) * parts(self.packet) / window;
        let grown = add(self.window_parts, growth / u128::from(self.slower()));
        let above = queueing.0.saturating_sub(TARGET.0).min(TARGET.0 / 2);
        let loss = parts(batch.bytes) * u128::from(above) / u128::from(TARGET.0);
        self.set_window(grown.saturating_sub(u64::try_from(loss).unwrap_or(u64::MAX)));
    }

    fn floor(&self) -> u64 {
        FLOOR_PACKETS * self.packet
    }

    fn set_window(&mut self, parts: u64) {
        let most = WINDOW_MAX_BYTES * PARTS;
        self.window_parts = parts.max(self.floor() * PARTS).min(most);
    }
}

fn add(parts: u64, more: u128) -> u64 {
    parts.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
}
