//! How the operators do what they do: publish, propose, approve by two, start, pause, halt, take back.

use anyhow::{Context, Result, bail};
use coordinator_core::contract::{Answer, Command, CommandError};
use protocol::plan::{Proposal, Recall, RolloutPlan, Targets};
use protocol::trust::{Role, Statement};
use protocol::{Hash, RolloutId, Span};

use crate::fleet::{EXPIRES, public};
use crate::hub::Hub;
use crate::mail::Mail;
use crate::measures::Milestones;
use crate::rehearsal;
use crate::scenario::TestSpec;

impl Hub {
    /// Takes a release back, under the `plans` threshold.
    pub(crate) fn take_back(&mut self, number: usize) -> Result<()> {
        let id = self.story.rollouts[number].clone();
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

    /// Publishes a release, proposes its rollout, has it approved by two, and starts it. A wave that
    /// has nobody yet, because a site was not heard of, is proposed again at the next look.
    ///
    /// # Errors
    /// When the coordinator refuses anything else.
    pub(crate) fn roll_out(&mut self, number: usize) -> Result<()> {
        match self.try_roll_out(number) {
            Err(e) => match e.downcast_ref::<CommandError>() {
                Some(CommandError::Unresolvable(why)) => {
                    let (now, line) = (self.time(), format!("release {number}: {why}"));
                    self.story.note(now, "not_proposed", line);
                    Ok(())
                }
                _ => Err(e),
            },
            done => done,
        }
    }

    fn try_roll_out(&mut self, number: usize) -> Result<()> {
        let shared = self.shared.clone();
        let (content, spec) = (&shared.contents[number], &shared.scenario.releases[number]);
        self.send(shared.centre(), Mail::Lay { release: number });
        let envelope = self.shared.fleet.sign(&content.manifest);
        let release = self
            .shared
            .fleet
            .believe(&envelope)
            .context("the release is not believed")?;
        let id: RolloutId = format!("rollout-{}", number + 1).parse()?;
        let known = self.desk.conductor.releases();
        if !known.iter().any(|r| r.digest == envelope.digest()) {
            self.order(Command::Publish(release))?;
        }
        let operators: Vec<_> = self.shared.fleet.keys(Role::Plans).cloned().collect();
        let rules = &shared.scenario.rollout;
        let test = rules.test.as_ref().map(TestSpec::test).transpose()?;
        let constraints = rules.constraints.constraints(self.clock().wall);
        let proposal = Proposal {
            spec_version: 1,
            fleet: self.shared.fleet.id(),
            rollout: id.clone(),
            release: envelope.digest(),
            proposer: public(&operators[0]),
            priority: spec.priority,
            targets: Targets {
                sites: spec
                    .sites
                    .iter()
                    .map(|s| Ok(s.parse()?))
                    .collect::<Result<_>>()?,
                ..Targets::default()
            },
            waves: shared.scenario.drafts(spec, self.clock().wall)?,
            test,
            constraints,
            lease_ttl: Span::from_secs(self.shared.scenario.rollout.lease_ttl_s),
            not_after: EXPIRES,
        };
        let envelope = self.shared.fleet.sign(&proposal);
        let salt = Hash::of(format!("salt {} {number}", self.shared.scenario.seed).as_bytes());
        let Answer::Plan(plan) = self.order(Command::Propose {
            proposal: Box::new(proposal),
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
        if let Some(forecasts) = &mut self.story.forecasts {
            let question = rehearsal::question(&self.shared, number);
            forecasts.push(self.desk.conductor.forecast(&id, &question)?);
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

    pub(crate) fn pause(&mut self, id: RolloutId, why: String) -> Result<()> {
        self.order(Command::Pause(id, why)).map(drop)
    }

    pub(crate) fn resume(&mut self, id: RolloutId) -> Result<()> {
        self.order(Command::Resume(id)).map(drop)
    }

    pub(crate) fn halt(&mut self, id: RolloutId, why: String) -> Result<()> {
        self.order(Command::Halt(id, why)).map(drop)
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
