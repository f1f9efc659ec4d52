//! What a plan lays down about when a node may start: windows, freezes, deadlines, its user, its machine.
//!
//! All constraints are one function of a moment: [`Constraints::admits`]. Each says of a moment whether it
//! holds the node back and until when that surely stays so; the first in the order of precedence that does
//! is what the node waits for:
//! 1. a change freeze, unless the rollout's priority is exempt from it;
//! 2. a blackout;
//! 3. the maintenance windows; past the deadline no more, if the plan says so;
//! 4. quiet hours; past the deadline no more;
//! 5. the user: an optional release that nobody asked for, a notice, a deferral; past the deadline no more,
//!    and `install-now` puts an end to 4 and 5;
//! 6. the machine: space, power, link.
//!
//! Freezes and blackouts hold whatever the deadline says: somebody meant them as a no.

use serde::{Deserialize, Serialize};

use crate::hours::{Hours, Phase, any_at};
use crate::limits::{FREEZES_MAX, HOURS_MAX, TEXT_MAX_BYTES};
use crate::plan::Priority;
use crate::slots::SlotRules;
use crate::status::WaitingFor;
use crate::time::{Span, Time};
use crate::zones::{Civil, Clock, Reading, Zone};

/// A deferral lasts so long if nobody says how long.
pub const DEFERRAL: Span = Span::from_secs(24 * 3600);
/// So many ends of hours are looked at for the moment at which all constraints let go.
const STEPS_MAX: usize = 512;

/// When nodes may start. The default holds nobody back.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Constraints {
    /// Whose clock windows, blackouts and quiet hours mean.
    pub zone: Zone,
    /// Starts only in these; none: always.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Hours>,
    /// No starts in these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<Hours>,
    /// No starts while one of these holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<Freeze>,
    /// By then every node should have started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// What the windows are worth after the deadline.
    pub past_deadline: PastDeadline,
    /// No starts in these, and no notices to users.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quiet: Vec<Hours>,
    /// What the user of a node may say about it; none: nobody is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserRules>,
    /// What the machine must have.
    pub needs: Needs,
    /// How many nodes may be unavailable at a time; none: as many as there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<SlotRules>,
    /// The starts of each wave that is not named node by node are spread evenly over so long. The
    /// coordinator's leases see to it.
    #[serde(skip_serializing_if = "Span::is_zero")]
    pub spread: Span,
    /// On so many nodes it starts in a UTC day at most; none: no cap. The coordinator's leases see to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_per_day: Option<u32>,
}

/// Days or weeks in which nothing is changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Freeze {
    /// For people.
    pub name: String,
    /// It holds while the clock shows this or later …
    pub from: Civil,
    /// … and less than this.
    pub to: Civil,
    /// Whose clock.
    #[serde(default)]
    pub zone: Zone,
    /// Rollouts of this priority and above go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exempt: Option<Priority>,
}

/// What windows are worth after the deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PastDeadline {
    /// A node goes on waiting for its window.
    #[default]
    Wait,
    /// It starts outside of its windows.
    OverrideWindows,
}

/// What the user of a node may say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UserRules {
    /// Nothing starts before the user asks for it or the deadline passes.
    #[serde(default)]
    pub optional: bool,
    /// From the notice until the start, so long at least.
    #[serde(default)]
    pub notice: Span,
    /// So often it may be put off.
    #[serde(default)]
    pub max_deferrals: u32,
    /// Never for longer than this after the notice.
    #[serde(default)]
    pub grace: Span,
}

/// What the machine must have when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    /// Bytes free on the disk that holds the node's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_disk_bytes: Option<u64>,
    /// Mains power.
    pub mains: bool,
    /// A link that is not paid by the byte.
    pub unmetered: bool,
}

/// What a node knows of its machine; none: not known.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Its IANA zone.
    pub zone: Option<String>,
    /// Bytes free on the disk that holds the node's directory.
    pub free_disk_bytes: Option<u64>,
    /// Whether it is on mains power; a machine that cannot tell is.
    pub mains: Option<bool>,
    /// Whether its link is paid by the byte; one that cannot be told is not.
    pub metered: Option<bool>,
}

impl Machine {
    /// The machine's clock on the wall; UTC if its zone is not known.
    pub fn clock(&self) -> Clock {
        let own = self.zone.as_deref().and_then(Clock::of);
        own.unwrap_or_else(Clock::utc)
    }
}

/// A rollout as it was offered to the user of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Offer {
    /// When notice was given.
    pub made: Time,
    /// Before then nothing starts.
    pub not_before: Time,
    /// How often it was put off.
    pub deferrals: u32,
    /// The user asked for it now.
    pub now: bool,
}

impl Offer {
    /// Notice is given at `made`.
    pub fn new(rules: &UserRules, made: Time) -> Offer {
        Offer {
            made,
            not_before: made + rules.notice,
            ..Offer::default()
        }
    }

    /// Puts it off from `at`, for so long or a day, and says until when it is put off.
    ///
    /// # Errors
    /// Why it cannot be put off any more.
    pub fn defer(
        &mut self,
        constraints: &Constraints,
        at: Time,
        length: Option<Span>,
    ) -> Result<Time, String> {
        let Some(rules) = constraints.user.as_ref().filter(|r| r.max_deferrals > 0) else {
            return Err("the plan lets nobody put it off".into());
        };
        if rules.optional && !self.now {
            return Err("it is optional and waits until somebody asks for it".into());
        }
        if self.deferrals >= rules.max_deferrals {
            return Err(format!(
                "it was put off {} times, as often as the plan lets",
                self.deferrals
            ));
        }
        let grace = self.made + rules.grace;
        let latest = constraints
            .deadline
            .map_or(grace, |deadline| deadline.min(grace));
        if at >= latest {
            return Err("the time in which it could be put off is over".into());
        }
        let until = (at + length.unwrap_or(DEFERRAL)).min(latest);
        self.not_before = self.not_before.max(until);
        self.deferrals += 1;
        self.now = false;
        Ok(self.not_before)
    }
}

/// What is asked about: a node as it is at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The rollout's priority.
    pub priority: Priority,
    /// What the node knows of its machine.
    pub machine: &'a Machine,
    /// What its user was told and said.
    pub offer: Option<&'a Offer>,
}

/// Which constraint holds a node back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// A change freeze.
    Freeze,
    /// A blackout.
    Blackout,
    /// The maintenance windows.
    Window,
    /// Quiet hours.
    Quiet,
    /// The user: no notice yet, an optional release, a deferral.
    User,
    /// Space.
    Disk,
    /// Power.
    Power,
    /// The link.
    Link,
}

impl Cause {
    /// What a node says that it waits for.
    pub fn waiting_for(self) -> WaitingFor {
        match self {
            Cause::Freeze => WaitingFor::Freeze,
            Cause::Blackout | Cause::Window | Cause::Quiet => WaitingFor::Window,
            Cause::User => WaitingFor::Deferral,
            Cause::Disk => WaitingFor::Disk,
            Cause::Power => WaitingFor::Power,
            Cause::Link => WaitingFor::Link,
        }
    }
}

/// Why a node may not start at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// By what.
    pub by: Cause,
    /// One line: by what and until when.
    pub why: String,
    /// The first moment at which no constraint holds it any more, machine and new wishes aside; none: not
    /// within what can be foreseen.
    pub until: Option<Time>,
}

/// One constraint at one moment.
struct Answer {
    by: Cause,
    /// Which of the freezes.
    freeze: usize,
    held: bool,
    /// Until when that surely stays so; none: for ever.
    until: Option<Time>,
}

impl Constraints {
    /// Whether nothing is constrained.
    pub fn is_empty(&self) -> bool {
        *self == Constraints::default()
    }

    /// Whether the wall time is past the deadline.
    pub fn is_overdue(&self, at: Time) -> bool {
        self.deadline.is_some_and(|deadline| at >= deadline)
    }

    /// Whether notice may be given at `at`: no notices in quiet hours.
    pub fn may_give_notice(&self, at: Time, machine: &Machine) -> bool {
        let clock = self.clock_of(&self.zone, machine);
        let quiet = |clock: &Clock| any_at(&self.quiet, clock.shows(at)).holds;
        self.is_overdue(at) || !clock.is_ok_and(|clock| quiet(&clock))
    }

    /// Whether a node may start at `at`, and until when that surely stays so.
    ///
    /// # Errors
    /// What holds it back.
    pub fn admits(&self, at: Time, case: Case<'_>) -> Result<Option<Time>, Held> {
        if self.is_empty() {
            return Ok(None);
        }
        let clocks = match self.clocks(case.machine) {
            Ok(clocks) => clocks,
            Err(why) => {
                let (by, until) = (Cause::Window, None);
                return Err(Held { by, why, until });
            }
        };
        let answers = self.answers(at, case, &clocks);
        let Some(first) = answers.iter().find(|answer| answer.held) else {
            return Ok(answers.iter().filter_map(|answer| answer.until).min());
        };
        let mut why = self.words(first, case, &clocks);
        let until = self.lets_go(at, case, &clocks);
        if let Some(until) = until.filter(|until| first.until.is_some_and(|own| own < *until)) {
            why = format!("{why}; it may start {}", clocks.own.tells(until));
        }
        Err(Held {
            by: first.by,
            why,
            until,
        })
    }

    /// The first moment from `at` on at which none but the machine holds the node back.
    fn lets_go(&self, at: Time, case: Case<'_>, clocks: &Clocks) -> Option<Time> {
        let mut at = at;
        for _ in 0..STEPS_MAX {
            let answers = self.answers(at, case, clocks);
            let timed = |a: &&Answer| !matches!(a.by, Cause::Disk | Cause::Power | Cause::Link);
            let mut held = answers.iter().filter(timed).filter(|a| a.held);
            match held.next() {
                None => return Some(at),
                Some(answer) => at = answer.until?,
            }
        }
        None
    }

    /// What each constraint says, in the order of precedence.
    fn answers(&self, at: Time, case: Case<'_>, clocks: &Clocks) -> Vec<Answer> {
        let answer = |by, held, until| Answer {
            by,
            freeze: 0,
            held,
            until,
        };
        let mut answers = Vec::with_capacity(8 + self.freezes.len());
        for (number, (freeze, clock)) in self.freezes.iter().zip(&clocks.freezes).enumerate() {
            if freeze.exempt.is_none_or(|exempt| case.priority < exempt) {
                let (held, until) = clock.timed(at, |shown| freeze.at(shown));
                answers.push(Answer {
                    freeze: number,
                    ..answer(Cause::Freeze, held, until)
                });
            }
        }
        let of = |hours: &[Hours]| clocks.own.timed(at, |shown| any_at(hours, shown));
        let overdue = self.is_overdue(at);
        let (held, until) = of(&self.blackouts);
        answers.push(answer(Cause::Blackout, held, until));
        if !self.windows.is_empty() {
            let ends = self.past_deadline == PastDeadline::OverrideWindows;
            let (open, until) = of(&self.windows);
            let shut = answer(Cause::Window, !(open || overdue && ends), until);
            answers.push(self.until_deadline(at, ends, shut));
        }
        if !case.offer.is_some_and(|offer| offer.now) {
            let (quiet, until) = of(&self.quiet);
            let quiet = answer(Cause::Quiet, quiet && !overdue, until);
            answers.push(self.until_deadline(at, true, quiet));
            if let Some(rules) = &self.user {
                let until = rules.until(case.offer);
                let waits = until.is_none_or(|until| at < until);
                let user = answer(Cause::User, waits && !overdue, until.filter(|_| waits));
                answers.push(self.until_deadline(at, true, user));
            }
        }
        let (needs, machine) = (&self.needs, case.machine);
        let space = |need| machine.free_disk_bytes.is_none_or(|free| free < need);
        let disk = needs.free_disk_bytes.is_some_and(space);
        answers.push(answer(Cause::Disk, disk, None));
        let battery = needs.mains && machine.mains == Some(false);
        answers.push(answer(Cause::Power, battery, None));
        let paid = needs.unmetered && machine.metered == Some(true);
        answers.push(answer(Cause::Link, paid, None));
        answers
    }

    /// An answer that holds a node back, for people.
    fn words(&self, answer: &Answer, case: Case<'_>, clocks: &Clocks) -> String {
        let clock = &clocks.own;
        let tells = |before: &str, at: Option<Time>| {
            at.map_or_else(String::new, |at| format!("{before}{}", clock.tells(at)))
        };
        let end = || tells(" until ", answer.until);
        match answer.by {
            Cause::Freeze => {
                let (freeze, clock) =
                    (&self.freezes[answer.freeze], &clocks.freezes[answer.freeze]);
                let (name, to) = (&freeze.name, freeze.to);
                format!(
                    "the change freeze {name:?} holds until {to} {}",
                    clock.name()
                )
            }
            Cause::Blackout => format!("a blackout ({}) holds{}", list(&self.blackouts), end()),
            Cause::Window => {
                let next = tells("; the next opens ", answer.until);
                let windows = list(&self.windows);
                format!("outside its maintenance windows ({windows}){next}")
            }
            Cause::Quiet => format!("quiet hours ({}){}", list(&self.quiet), end()),
            Cause::User => match (&self.user, case.offer) {
                (Some(rules), Some(_)) if rules.optional => {
                    let why = "optional, and nobody asked for it with 'tidegate-node install-now'";
                    format!("{why}{}", tells("; it is required from ", self.deadline))
                }
                (Some(rules), Some(offer)) if offer.deferrals > 0 => {
                    let (n, of) = (offer.deferrals, rules.max_deferrals);
                    format!("put off by its user ({n} of {of}){}", end())
                }
                (_, Some(_)) => {
                    let start = tells("; it starts ", answer.until);
                    format!("its user was given notice{start}")
                }
                (_, None) => "its user has not been told yet".to_owned(),
            },
            Cause::Disk => {
                let need = self.needs.free_disk_bytes.unwrap_or_default();
                match case.machine.free_disk_bytes {
                    None => "its free space is not known yet".to_owned(),
                    Some(free) => {
                        format!("{free} bytes are free on its disk and the plan asks for {need}")
                    }
                }
            }
            Cause::Power => "it runs on battery and the plan asks for mains power".to_owned(),
            Cause::Link => "its link is metered and the plan asks for one that is not".to_owned(),
        }
    }

    /// The deadline puts an end to what an answer says, if `ends`.
    fn until_deadline(&self, at: Time, ends: bool, answer: Answer) -> Answer {
        let Some(deadline) = self.deadline.filter(|_| ends) else {
            return answer;
        };
        let until = match at < deadline {
            true => Some(answer.until.map_or(deadline, |until| until.min(deadline))),
            false => None,
        };
        Answer { until, ..answer }
    }

    fn clock_of(&self, zone: &Zone, machine: &Machine) -> Result<Clock, String> {
        match zone {
            Zone::Local => Ok(machine.clock()),
            Zone::Named(name) => Clock::of(name).ok_or_else(|| {
                format!("this program does not know the zone {name} of the plan; update it")
            }),
        }
    }

    fn clocks(&self, machine: &Machine) -> Result<Clocks, String> {
        let freezes = self.freezes.iter().map(|f| self.clock_of(&f.zone, machine));
        Ok(Clocks {
            own: self.clock_of(&self.zone, machine)?,
            freezes: freezes.collect::<Result<_, _>>()?,
        })
    }

    /// What whoever reads the plan must find true.
    ///
    /// # Errors
    /// What is out of range.
    pub fn check(&self) -> Result<(), String> {
        let hours = [&self.windows, &self.blackouts, &self.quiet];
        if hours.iter().any(|h| h.len() > HOURS_MAX) || self.freezes.len() > FREEZES_MAX {
            return Err(format!(
                "a plan has at most {HOURS_MAX} windows, blackouts or quiet hours each, and {FREEZES_MAX} freezes"
            ));
        }
        for freeze in &self.freezes {
            if freeze.name.len() > TEXT_MAX_BYTES {
                return Err("the name of a freeze is too long".into());
            }
            if freeze.to <= freeze.from {
                return Err(format!("the freeze {} ends before it begins", freeze.name));
            }
        }
        if self.starts_per_day == Some(0) {
            return Err("with no start a day no node would ever start".into());
        }
        self.slots.as_ref().map_or(Ok(()), SlotRules::check)
    }

    /// The zones that it names and this program does not know.
    pub fn unknown_zones(&self) -> Vec<&str> {
        let zones = self
            .freezes
            .iter()
            .map(|freeze| &freeze.zone)
            .chain([&self.zone]);
        let named = zones.filter_map(|zone| match zone {
            Zone::Named(name) => Some(name.as_str()),
            Zone::Local => None,
        });
        named.filter(|name| Clock::of(name).is_none()).collect()
    }
}

struct Clocks {
    own: Clock,
    /// One for each freeze.
    freezes: Vec<Clock>,
}

impl Freeze {
    fn at(&self, shown: Reading) -> Phase {
        let (from, to) = (self.from.reading(), self.to.reading());
        Phase {
            holds: from <= shown && shown < to,
            until: [from, to].into_iter().find(|end| shown < *end),
        }
    }
}

impl UserRules {
    /// Until when the user holds the node back; none: until further notice.
    fn until(&self, offer: Option<&Offer>) -> Option<Time> {
        offer
            .filter(|_| !self.optional)
            .map(|offer| offer.not_before)
    }
}

fn list(hours: &[Hours]) -> String {
    let texts: Vec<String> = hours.iter().map(ToString::to_string).collect();
    texts.join(" or ")
}
