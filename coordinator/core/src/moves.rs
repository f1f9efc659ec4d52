//! What a rollout does next, by its outcomes and the time: the wave engine's turn after each event.
//!
//! First silence is counted, then cohorts are judged, then the gates of waves, then the test across them;
//! then a wave passes or the next one opens; last come leases.

use protocol::limits::LEDGERED_NODES_MAX;
use protocol::{NodeId, Now, Span, Time};

use crate::contract::{RolloutState, Verdict};
use crate::evidence::{Evidence, Ruling};
use crate::gate;
use crate::rollout::Rollout;
use crate::tally::Tally;

/// A window moves on when so much of it is free, as a divisor.
const LEASE_STEPS: u32 = 4;

/// Leave of a wave whose starts are spread is given in so many steps at least, and a step is no shorter
/// than [`SPREAD_STEP_MIN`].
const SPREAD_STEPS: u64 = 200;
/// See [`SPREAD_STEPS`].
const SPREAD_STEP_MIN: Span = Span::from_secs(1);

/// The time from one step of a spread to the next.
pub(crate) fn spread_step(spread: Span) -> Span {
    Span(spread.0 / SPREAD_STEPS).max(SPREAD_STEP_MIN)
}

/// What a rollout wants to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Move {
    /// A day begins, and its starts are counted.
    Dawn(u64),
    /// These said nothing for too long after a reported start.
    Silence(Vec<NodeId>),
    /// A gate failed; the rollout is held.
    Fail {
        wave: u32,
        counts: (u32, u32),
        why: String,
    },
    /// A gate passed.
    Pass {
        wave: u32,
        counts: (u32, u32),
        why: String,
    },
    /// The next wave may start.
    Open(u32),
    /// Give a lease to the waves up to this, and of this to positions below the bound.
    Lease { wave: u32, below: Option<u64> },
    /// The sequential test speaks for the release, or for a cohort.
    Clear {
        cohort: Option<u32>,
        counts: (u32, u32),
    },
    /// A cohort fails alone; it is held and the rest goes on.
    HoldCohort {
        cohort: u32,
        counts: (u32, u32),
        why: String,
    },
    /// Every wave passed.
    Finish,
    /// Every target is back.
    TakenBack,
    /// The plan's time is over.
    Expire,
}

impl Rollout {
    /// What it wants to do now. Folding the events of a move takes the wish away.
    pub fn next_move(&mut self, now: Now) -> Option<Move> {
        use RolloutState as S;
        if !self.is_alive() {
            return None;
        }
        let over = now.wall >= self.plan.not_after;
        if over && matches!(self.state, S::Running | S::Paused | S::Preempted | S::Held) {
            return Some(Move::Expire);
        }
        if let Some(day) = self.dawned(now) {
            return Some(Move::Dawn(day));
        }
        let silent: Vec<NodeId> = self
            .awaited
            .iter()
            .take_while(|(at, _)| *at <= now.boot)
            .take(LEDGERED_NODES_MAX)
            .map(|(_, id)| *id)
            .collect();
        if !silent.is_empty() {
            return Some(Move::Silence(silent));
        }
        let tally = self.tally();
        let settled = match self.state {
            S::Finished => tally.ended == tally.targets,
            S::Recalled => tally.taken_back == tally.targets,
            S::Aborted => tally.in_flight == 0,
            _ => false,
        };
        match settled {
            true => self.settled_since = self.settled_since.or(Some(now.boot)),
            false => self.settled_since = None,
        }
        match self.state {
            S::Running | S::Finished => self.judge(now).or_else(|| {
                let wanted = self.state == S::Running || tally.ended < tally.targets;
                self.lease(now, &tally).filter(|_| wanted && !over)
            }),
            // what had begun comes to its end
            S::Preempted => self.judge(now),
            S::Recalling if tally.taken_back == tally.targets => Some(Move::TakenBack),
            _ => None,
        }
    }

    /// A lease, if one is due or more nodes may start.
    fn lease(&mut self, now: Now, tally: &Tally) -> Option<Move> {
        let wave = self.newest_open()?;
        let due = self.lease_due <= now.boot;
        let Some(evidence) = &self.evidence else {
            return due.then_some(Move::Lease { wave, below: None });
        };
        self.window.give_up(now.boot);
        let busy = tally.in_flight + self.window.expected();
        let most = evidence.in_flight_max();
        let free = most.saturating_sub(busy);
        // every lease goes to every site, so room is given by the quarter
        let enough = free >= (most / LEASE_STEPS).max(1) || (busy == 0 && free > 0);
        let (free, enough) = match self.spread(wave) {
            None => (free, enough),
            Some(spread) => {
                let opened = self.waves[wave as usize].opened_at.unwrap_or(now.wall);
                // up to the middle of the next step: as often too many as too few have leave
                let open = now.wall.since(opened).0 + spread_step(spread).0 / 2;
                let due = free.min(self.window.paced(Span(open), spread));
                (due, due > 0 && self.spread_due <= now.boot)
            }
        };
        let today = self.left_today().unwrap_or(u32::MAX);
        let (free, enough) = (free.min(today), enough && today > 0);
        let more = !self.window.is_open() && enough;
        let below = self.window.bound(free);
        (due || more).then_some(Move::Lease { wave, below })
    }

    /// Over how long the starts of a wave are spread, if they are.
    fn spread(&self, wave: u32) -> Option<Span> {
        let spread = self.plan.constraints.spread;
        (!spread.is_zero() && !self.plan.is_handful(wave)).then_some(spread)
    }

    fn judge(&mut self, now: Now) -> Option<Move> {
        let ruling = self.evidence.as_ref().and_then(Evidence::judge);
        if let Some(Ruling::Hold { cohort, counts }) = ruling {
            let why = self.ruling_sentence(Some(cohort), counts);
            return Some(Move::HoldCohort {
                cohort,
                counts,
                why,
            });
        }
        let (newest, opens) = (self.newest_open(), self.window.is_open());
        let mut passed = None;
        let last = self.plan.waves.len() - 1;
        for (number, stand) in self.waves.iter_mut().enumerate() {
            if stand.opened_at.is_none() {
                continue;
            }
            let wave = number as u32;
            let gate = &self.plan.waves[number].gate;
            let mut votes = stand.tally.votes;
            // Nothing opens behind the last wave, so late joiners alone need not hold it.
            if number == last {
                votes.late = 0;
            }
            let opened = *stand.opened_boot.get_or_insert(now.boot);
            if now.boot.since(opened) >= self.absent_after {
                votes.present = Some(votes.good + votes.bad + stand.tally.in_flight);
            }
            stand.holds_since = match gate::holds(gate, votes) {
                true => stand.holds_since.or(Some(now.boot)),
                false => None,
            };
            let held = stand.holds_since.map(|since| now.boot.since(since));
            let counts = (votes.good, votes.bad);
            let why = || gate::sentence(gate, votes, held);
            match (gate::judge(gate, votes, held), stand.verdict) {
                (Verdict::Fail, before) if before != Some(Verdict::Fail) => {
                    let why = why();
                    return Some(Move::Fail { wave, counts, why });
                }
                // all of a wave have leave before the next one opens
                (Verdict::Pass, None) if passed.is_none() && (opens || newest != Some(wave)) => {
                    let why = why();
                    passed = Some(Move::Pass { wave, counts, why });
                }
                _ => {}
            }
        }
        match (ruling, newest) {
            (Some(Ruling::Stop { counts }), Some(wave)) => {
                let why = self.ruling_sentence(None, counts);
                return Some(Move::Fail { wave, counts, why });
            }
            (Some(Ruling::Clear { cohort, counts }), _) => {
                return Some(Move::Clear { cohort, counts });
            }
            _ => {}
        }
        if passed.is_some() || self.state != RolloutState::Running {
            return passed;
        }
        let next = match newest {
            None => 0,
            Some(open) if self.waves[open as usize].verdict == Some(Verdict::Pass) => open + 1,
            Some(_) => return None,
        };
        match self.plan.waves.get(next as usize) {
            None => Some(Move::Finish),
            Some(wave) => (now.wall >= wave.not_before).then_some(Move::Open(next)),
        }
    }

    fn ruling_sentence(&self, cohort: Option<u32>, (good, bad): (u32, u32)) -> String {
        let all = good + bad;
        let test = self.plan.test.as_ref();
        let expected = test.map_or(0, |t| t.expected_ppm);
        let expected = format!("{}.{} %", expected / 10_000, expected / 1_000 % 10);
        let cohort = cohort.and_then(|c| test?.cohorts.get(c as usize));
        match cohort {
            Some(cohort) => format!(
                "nodes with {cohort} fail and others do not: {bad} of {all} outcomes are failures"
            ),
            None => format!("{bad} of {all} outcomes are failures, where {expected} are expected"),
        }
    }

    /// Boot time at which it may want something without being told anything.
    pub fn wakes_at(&self, now: Now) -> Option<Time> {
        use RolloutState as S;
        if !self.is_alive() {
            return None;
        }
        let by_wall = |wall: Time| now.boot + wall.since(now.wall);
        let ends = by_wall(self.plan.not_after);
        let silence = self.awaited.first().map(|(at, _)| *at);
        let runs = matches!(self.state, S::Running | S::Finished);
        let judged = runs || self.state == S::Preempted;
        let waves = self.waves.iter().zip(&self.plan.waves).filter(|_| judged);
        let waves = waves.filter_map(|(stand, wave)| {
            match (stand.opened_at, stand.verdict, stand.holds_since) {
                (None, ..) => Some(by_wall(wave.not_before)),
                (_, None, Some(since)) => Some(since + wave.gate.soak),
                (_, None, None) => stand.opened_boot.map(|at| at + self.absent_after),
                _ => None,
            }
        });
        let lease = runs.then_some(self.lease_due);
        let room = self.window.wakes_at().filter(|_| runs);
        let spread = self.newest_open().and_then(|wave| self.spread(wave));
        let dawn = self.capped_until().filter(|_| runs).map(by_wall);
        let step = (runs && spread.is_some() && !self.window.is_open()).then_some(self.spread_due);
        let wakes = [
            Some(ends),
            silence,
            self.spent_at(),
            lease,
            room,
            step,
            dawn,
        ]
        .into_iter()
        .flatten();
        // what is past waits for something else than time
        wakes.chain(waves).filter(|at| *at > now.boot).min()
    }
}
