//! What the user of this machine was told and said, and what the machine is like: the parts of a plan's
//! constraints that only this node knows.

use std::collections::BTreeMap;

use protocol::constraints::{Constraints, Machine, Offer};
use protocol::{Now, RolloutId, Span};

use crate::contract::{Action, OfferRecord, Record, RecordKey, Wish};
use crate::outbox::Outbox;

/// Offers to the user, by rollout, and the machine.
#[derive(Default)]
pub(crate) struct Offers {
    machine: Machine,
    offers: BTreeMap<RolloutId, Offer>,
}

impl Offers {
    /// An offer that was remembered.
    pub(crate) fn restore(&mut self, record: OfferRecord) {
        self.offers.insert(record.rollout, record.offer);
    }

    /// The machine is like this now; true if that is new.
    pub(crate) fn set_machine(&mut self, machine: Machine) -> bool {
        let new = self.machine != machine;
        self.machine = machine;
        new
    }

    /// What is known of the machine.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What the user was told and said about a rollout.
    pub(crate) fn of(&self, rollout: &RolloutId) -> Option<&Offer> {
        self.offers.get(rollout)
    }

    /// Gives notice of `release` to the user, if the plan asks for it and nobody gave it before. The notice
    /// is remembered before it is given: one that is given twice would begin its time anew.
    pub(crate) fn give_notice(
        &mut self,
        rollout: &RolloutId,
        release: &str,
        constraints: &Constraints,
        now: Now,
        out: &mut Outbox,
    ) {
        let Some(rules) = &constraints.user else {
            return;
        };
        if self.offers.contains_key(rollout)
            || !constraints.may_give_notice(now.wall, &self.machine)
        {
            return;
        }
        let offer = Offer::new(rules, now.wall);
        self.keep(rollout, offer, out);
        let clock = self.machine.clock();
        let mut line = match (rules.optional, constraints.deadline) {
            (true, None) => format!("{release} is available"),
            (true, Some(end)) => {
                format!(
                    "{release} is available; it is installed at {}",
                    clock.tells(end)
                )
            }
            (false, _) => format!(
                "{release} is installed after {}",
                clock.tells(offer.not_before)
            ),
        };
        if rules.max_deferrals > 0 && !rules.optional {
            let grace = offer.made + rules.grace;
            let latest = constraints.deadline.map_or(grace, |end| end.min(grace));
            line += &format!(
                "; it can be put off {} times, until {} at most",
                rules.max_deferrals,
                clock.tells(latest)
            );
        }
        out.push(Action::GiveNotice {
            rollout: rollout.clone(),
            line,
        });
    }

    /// Does what the user wishes, and says what came of it.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) fn grant(
        &mut self,
        rollout: &RolloutId,
        wish: Wish,
        constraints: &Constraints,
        now: Now,
        out: &mut Outbox,
    ) -> Result<String, String> {
        let Some(mut offer) = self.offers.get(rollout).copied() else {
            return Err(format!(
                "{rollout} was not offered yet; its turn has not come"
            ));
        };
        let line = match wish {
            Wish::InstallNow => {
                offer.now = true;
                format!("{rollout} starts as soon as windows and orders let it")
            }
            Wish::Defer(length) => {
                let until = offer.defer(constraints, now.wall, length);
                let until = until.map_err(|why| format!("{rollout}: {why}"))?;
                let left = constraints.user.as_ref().map_or(0, |r| r.max_deferrals);
                let left = left.saturating_sub(offer.deferrals);
                let until = self.machine.clock().tells(until);
                format!("{rollout} is put off until {until}; {left} more times are left")
            }
        };
        self.keep(rollout, offer, out);
        Ok(line)
    }

    /// A rollout is over.
    pub(crate) fn forget(&mut self, rollout: &RolloutId, out: &mut Outbox) {
        if self.offers.remove(rollout).is_some() {
            out.forget(RecordKey::Offer(rollout.clone()));
        }
    }

    fn keep(&mut self, rollout: &RolloutId, offer: Offer, out: &mut Outbox) {
        self.offers.insert(rollout.clone(), offer);
        out.remember(Record::Offer(OfferRecord {
            rollout: rollout.clone(),
            offer,
        }));
    }
}

/// A wish as it is put into words for the log.
pub(crate) fn wished(wish: Wish) -> String {
    match wish {
        Wish::InstallNow => "install now".into(),
        Wish::Defer(None) => "put it off".into(),
        Wish::Defer(Some(Span(ms))) => format!("put it off for {} minutes", ms / 60_000),
    }
}
