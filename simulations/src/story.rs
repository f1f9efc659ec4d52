//! What the operators do: publish, propose, approve by two, start, look, and go on to the next.

use anyhow::{Context, Result, bail};
use coordinator_core::contract::{Answer, Command, RolloutState, RolloutView};
use protocol::plan::{Priority, Proposal, Recall, RolloutPlan, Targets};
use protocol::trust::{Role, Statement};
use protocol::{Hash, RolloutId, Span, Time};

use crate::checks::findings::Rule;
use crate::fleet::{EXPIRES, public};
use crate::hub::{Happening, Hub};
use crate::mail::Mail;
use crate::measures::Milestones;

/// The operators look this often.
const LOOK: Span = Span::from_millis(500);
/// Notes that are kept.
const NOTES_MAX: usize = 500;

/// How far the operators are.
#[derive(Default)]
pub struct Story {
    /// The rollouts so far.
    pub rollouts: Vec<RolloutId>,
    /// Digests of their plans.
    pub plans: Vec<Hash>,
    /// Typed events, with the time in milliseconds.
    pub notes: Vec<(u64, &'static str, String)>,
    /// What was noted of each rollout.
    pub milestones: Vec<Milestones>,
    last: Option<RolloutView>,
    quiet_since: Time,
}

impl Story {
    pub(crate) fn note(&mut self, at: Time, event: &'static str, line: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push((at.0, event, line));
        }
    }
}

impl Hub {
    pub(crate) fn operator(&mut self) {
        self.after(LOOK, Happening::Operator);
        if !self.desk.up || self.time() < Time::from_secs(self.shared.scenario.start_s) {
            return;
        }
        if self.is_quiet() {
            let next = self.story.rollouts.len();
            if self.is_to_be_recalled() {
                if let Err(e) = self.take_back() {
                    self.audit
                        .violated(self.time(), Rule::Story, format!("recall: {e:#}"));
                    self.over = true;
                }
            } else if next == self.shared.contents.len() {
                self.over = true;
            } else if let Err(e) = self.roll_out(next) {
                self.audit
                    .violated(self.time(), Rule::Story, format!("release {next}: {e:#}"));
                self.over = true;
            }
        }
    }

    /// Whether the newest rollout ended, or stands still and only an operator could move it.
    fn is_quiet(&mut self) -> bool {
        use RolloutState as S;
        let Some(id) = self.story.rollouts.last() else {
            return true;
        };
        let Some(view) = self.desk.conductor.rollout(id) else {
            return true;
        };
        let open = view.counts.open + view.counts.not_received;
        let ended = match view.state {
            S::Finished => open == 0,
            S::Held | S::Aborted | S::Recalled => true,
            _ => false,
        };
        if !ended || self.story.last.as_ref() != Some(&view) {
            self.story.quiet_since = self.time();
            self.story.last = Some(view);
        }
        self.time().since(self.story.quiet_since) >= Span::from_secs(self.shared.scenario.idle_s)
    }

    /// Whether the newest release is everywhere and the scenario wants it back.
    fn is_to_be_recalled(&self) -> bool {
        let Some(id) = self.story.rollouts.last() else {
            return false;
        };
        let state = self.desk.conductor.rollout(id).map(|view| view.state);
        self.shared.scenario.releases[self.story.rollouts.len() - 1].recall
            && state == Some(RolloutState::Finished)
    }

    fn take_back(&mut self) -> Result<()> {
        let id = self
            .story
            .rollouts
            .last()
            .context("nothing was rolled out")?
            .clone();
        let view = self
            .desk
            .conductor
            .rollout(&id)
            .context("the rollout is gone")?;
        let proposer = self
            .shared
            .fleet
            .keys(Role::Plans)
            .next()
            .map(public)
            .context("no operator")?;
        let envelope = self.shared.fleet.sign(&Recall {
            spec_version: 1,
            fleet: self.shared.fleet.id(),
            rollout: id,
            plan: view.plan,
            proposer,
            reason: "the scenario wants it back".into(),
            created: self.clock().wall,
        });
        let recall = self
            .shared
            .fleet
            .believe(&envelope)
            .context("the recall is not believed")?;
        self.order(Command::Recall(recall))?;
        self.story.quiet_since = self.time();
        Ok(())
    }

    fn roll_out(&mut self, number: usize) -> Result<()> {
        let shared = self.shared.clone();
        let content = &shared.contents[number];
        self.send(shared.centre(), Mail::Lay { release: number });
        let envelope = self.shared.fleet.sign(&content.manifest);
        let release = self
            .shared
            .fleet
            .believe(&envelope)
            .context("the release is not believed")?;
        let id: RolloutId = format!("rollout-{}", number + 1).parse()?;
        self.order(Command::Publish(release))?;
        let operators: Vec<_> = self.shared.fleet.keys(Role::Plans).cloned().collect();
        let proposal = Proposal {
            spec_version: 1,
            fleet: self.shared.fleet.id(),
            rollout: id.clone(),
            release: envelope.digest(),
            proposer: public(&operators[0]),
            priority: Priority::Medium,
            targets: Targets {
                sites: Vec::new(),
                exclusions: Vec::new(),
            },
            waves: self
                .shared
                .scenario
                .drafts(&self.shared.scenario.releases[number], self.clock().wall)?,
            lease_ttl: Span::from_secs(self.shared.scenario.rollout.lease_ttl_s),
            not_after: EXPIRES,
        };
        let envelope = self.shared.fleet.sign(&proposal);
        let salt = Hash::of(format!("salt {} {number}", self.shared.scenario.seed).as_bytes());
        let Answer::Plan(plan) = self.order(Command::Propose {
            proposal,
            envelope,
            salt,
        })?
        else {
            bail!("no plan came of the proposal");
        };
        let mut envelope = plan.to_envelope();
        for (n, key) in operators[1..].iter().enumerate() {
            envelope.sign(key);
            let complete = self.shared.fleet.believe::<RolloutPlan>(&envelope);
            self.order(Command::Approve {
                rollout: id.clone(),
                by: public(key),
                envelope: envelope.clone(),
                progress: (n as u32 + 1, 2),
                complete,
            })?;
        }
        self.order(Command::Start(id.clone()))?;
        self.story.plans.push(envelope.digest());
        self.story.rollouts.push(id);
        self.story.milestones.push(Milestones {
            started: self.time(),
            ..Milestones::default()
        });
        self.story.quiet_since = self.time();
        Ok(())
    }

    fn order(&mut self, command: Command) -> Result<Answer> {
        match self
            .command(command)
            .context("the coordinator did not answer")?
        {
            Answer::Refused(e) => Err(e.into()),
            answer => Ok(answer),
        }
    }
}
