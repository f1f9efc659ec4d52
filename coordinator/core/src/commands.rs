//! Operators' commands: check, record, answer. What follows from them is decided in the round after.

use protocol::envelope::Envelope;
use protocol::limits::ROLLOUTS_MAX;
use protocol::manifest::ReleaseManifest;
use protocol::orders::OrderBody;
use protocol::plan::{Proposal, Recall, RolloutPlan};
use protocol::revocation::MassRevocation;
use protocol::topology::Topology;
use protocol::{Hash, NodeId, PublicKey, RolloutId, Verified};

use crate::closure::Shelf;
use crate::conductor::{Conductor, cut};
use crate::contract::{Action, Answer, Command, CommandError, LedgerEvent, RolloutState, Ticket};
use crate::fold::enlisted;
use crate::resolve::resolve;
use crate::rollout::Rollout;

pub(crate) type Outcome = Result<Answer, CommandError>;

impl Conductor {
    /// Carries a command out and answers it.
    pub(crate) fn command(&mut self, ticket: Ticket, command: Command) {
        if let Some(seconds) = self.listens_for() {
            let refused = Answer::Refused(CommandError::Listening(seconds));
            return self.act(Action::Answer(ticket, refused));
        }
        let outcome = match command {
            Command::SetTopology(topology) => self.set_topology(&topology),
            Command::Publish(release) => self.publish(&release),
            Command::Propose {
                proposal,
                envelope,
                salt,
            } => self.propose(&proposal, envelope, salt),
            Command::Approve {
                rollout,
                by,
                envelope,
                progress,
                complete,
            } => self.approve(rollout, by, envelope, progress, complete.as_ref()),
            Command::Start(rollout) => self.start(&rollout),
            Command::Pause(rollout, why) => self.pause(&rollout, &why),
            Command::Resume(rollout) => self.resume_rollout(&rollout),
            Command::Halt(rollout, why) => self.halt(&rollout, &why),
            Command::HaltAll(why) => self.halt_all(&why),
            Command::Lift(lift) => self.lift(&lift),
            Command::ReleaseCohort(rollout, cohort) => self.release_cohort(&rollout, &cohort),
            Command::Recall(recall) => self.recall(&recall),
            Command::ReportProblem {
                rollout,
                node,
                what,
            } => self.report_problem(rollout, node, &what),
            Command::Assess(release) => self.begin_assessment(release),
            Command::EndAssessment(release) => self.end_assessment(release),
            Command::RecordInstall(note) => self.record_install(note),
            Command::Revoke { node, reason } => self.revoke(node, reason),
            Command::RevokeMany(statement) => self.revoke_many(&statement),
        };
        let answer = outcome.unwrap_or_else(Answer::Refused);
        self.act(Action::Answer(ticket, answer));
    }

    fn set_topology(&mut self, topology: &Verified<Topology>) -> Outcome {
        if let Some(held) = &self.fleet.topology {
            if held.digest == topology.digest() {
                return Ok(Answer::Done);
            }
            rises("topology version", topology.version, held.value.version)?;
        }
        self.record(LedgerEvent::Topology {
            envelope: topology.envelope().clone(),
        });
        Ok(Answer::Done)
    }

    fn publish(&mut self, release: &Verified<ReleaseManifest>) -> Outcome {
        if self.releases.contains_key(&release.digest()) {
            return Ok(Answer::Done);
        }
        let same = self
            .releases
            .values()
            .filter(|r| r.value.product == release.product);
        if let Some(newest) = same.map(|r| r.value.release_counter).max() {
            rises("release counter", release.release_counter, newest)?;
        }
        self.record(LedgerEvent::Released {
            envelope: release.envelope().clone(),
        });
        Ok(Answer::Done)
    }

    /// The plan that a proposal resolves to now, and the release that it brings.
    pub(crate) fn resolved(
        &self,
        proposal: &Proposal,
        salt: Hash,
    ) -> Result<(RolloutPlan, &ReleaseManifest), CommandError> {
        let release = self
            .releases
            .get(&proposal.release)
            .ok_or(CommandError::NoRelease(proposal.release))?;
        let back =
            |r: &&Rollout| matches!(r.state, RolloutState::Recalling | RolloutState::Recalled);
        let recalled = self.rollouts.values().filter(back);
        let shelf = Shelf {
            releases: &self.releases,
            recalled: recalled.map(|r| r.plan.release).collect(),
            wall: self.now.wall,
        };
        let plan = shelf
            .closure(proposal.release, &release.value)
            .and_then(|closure| {
                let brings = (&release.value, closure);
                resolve(proposal, brings, salt, &self.fleet, self.now)
            })
            .map_err(CommandError::Unresolvable)?;
        Ok((plan, &release.value))
    }

    fn propose(&mut self, proposal: &Proposal, envelope: Envelope, salt: Hash) -> Outcome {
        use RolloutState as S;
        if self.rollouts.contains_key(&proposal.rollout) {
            return Err(CommandError::RolloutExists(proposal.rollout.clone()));
        }
        let waiting = self.rollouts.values().filter(|r| match r.state {
            S::WaitingForApproval | S::Ready => true,
            _ => r.is_alive(),
        });
        if waiting.count() >= ROLLOUTS_MAX {
            return Err(CommandError::Limit(format!(
                "{ROLLOUTS_MAX} rollouts are open already; finish or halt one"
            )));
        }
        if self.config.starts_per_day.is_some() && proposal.test.is_none() {
            let line = "the fleet has a cap on starts a day, which a plan keeps to by its sequential test, and this one has none";
            return Err(CommandError::Unresolvable(line.into()));
        }
        let (plan, _) = self.resolved(proposal, salt)?;
        let ledgered = Box::new(plan.clone());
        self.record(LedgerEvent::Proposed {
            proposal: envelope,
            plan: ledgered,
        });
        Ok(Answer::Plan(Box::new(plan)))
    }

    fn approve(
        &mut self,
        id: RolloutId,
        by: PublicKey,
        envelope: Envelope,
        progress: (u32, u32),
        complete: Option<&Verified<RolloutPlan>>,
    ) -> Outcome {
        let waits = [RolloutState::WaitingForApproval];
        let rollout = self.in_state(&id, &waits, "only one that waits for approval is approved")?;
        other_plan(rollout, envelope.digest())?;
        if let Some(plan) = complete {
            other_plan(rollout, plan.digest())?;
        }
        if by == rollout.plan.proposer || rollout.approved_by.contains(&by) {
            return Err(CommandError::SignedAlready(by));
        }
        let complete = complete.is_some();
        self.record(LedgerEvent::Approved {
            rollout: id,
            by,
            envelope,
            complete,
        });
        Ok(Answer::Approvals(progress.0, progress.1))
    }

    fn start(&mut self, id: &RolloutId) -> Outcome {
        let wall = self.now.wall;
        let rollout = self.in_state(id, &[RolloutState::Ready], "only an approved one starts")?;
        if rollout.plan.not_after <= wall {
            return Err(wrong_state(
                rollout,
                "its not_after has passed; propose it anew",
            ));
        }
        self.enlist(id);
        self.set_state(id, RolloutState::Running, "started");
        Ok(Answer::Done)
    }

    /// Everyone whom a rollout concerns becomes its target.
    pub(crate) fn enlist(&mut self, id: &RolloutId) {
        let Some(rollout) = self.rollouts.get(id) else {
            return;
        };
        let origins = self.fleet.origins.iter();
        let except: Vec<NodeId> = origins
            .filter(|id| self.fleet.nodes.contains_key(*id))
            .copied()
            .collect();
        let mut waves = vec![0; rollout.waves.len()];
        for (_, wave) in enlisted(rollout, &self.fleet, &except) {
            waves[wave as usize] += 1;
        }
        self.record(LedgerEvent::Enlisted {
            rollout: id.clone(),
            except,
            waves,
        });
    }

    fn pause(&mut self, id: &RolloutId, why: &str) -> Outcome {
        let from = [RolloutState::Running, RolloutState::Preempted];
        self.in_state(id, &from, "only a running one is paused")?;
        self.set_state(id, RolloutState::Paused, why);
        self.give_halt(id, why);
        Ok(Answer::Done)
    }

    fn resume_rollout(&mut self, id: &RolloutId) -> Outcome {
        let from = [RolloutState::Paused, RolloutState::Held];
        self.in_state(id, &from, "only a paused or held one is resumed")?;
        self.run_again(id, "resumed by an operator");
        Ok(Answer::Done)
    }

    fn halt(&mut self, id: &RolloutId, why: &str) -> Outcome {
        use RolloutState as S;
        let from = [
            S::WaitingForApproval,
            S::Ready,
            S::Running,
            S::Paused,
            S::Preempted,
            S::Held,
            S::Finished,
        ];
        let rollout = self.in_state(id, &from, "only one that has not ended is halted")?;
        let told = rollout.is_alive();
        self.set_state(id, S::Aborted, why);
        if told {
            self.give_halt(id, why);
        }
        Ok(Answer::Done)
    }

    fn recall(&mut self, recall: &Verified<Recall>) -> Outcome {
        use RolloutState as S;
        let from = [
            S::Running,
            S::Paused,
            S::Preempted,
            S::Held,
            S::Finished,
            S::Aborted,
        ];
        let id = &recall.rollout;
        let rollout = self.in_state(id, &from, "only one that was started is recalled")?;
        if rollout.newest_open().is_none() {
            return Err(wrong_state(
                rollout,
                "no wave of it was opened; halt it instead",
            ));
        }
        other_plan(rollout, recall.plan)?;
        let alive = self.rollouts.values().filter(|r| r.is_alive()).count();
        if !rollout.is_alive() && alive >= ROLLOUTS_MAX {
            let line = format!("{ROLLOUTS_MAX} rollouts are alive already; finish or halt one");
            return Err(CommandError::Limit(line));
        }
        let statement = recall.envelope().clone();
        self.record(LedgerEvent::Recalled {
            envelope: statement.clone(),
        });
        self.set_state(id, S::Recalling, &recall.reason);
        self.give(OrderBody::Recall {
            rollout: id.clone(),
            statement,
        });
        Ok(Answer::Done)
    }

    fn report_problem(&mut self, id: RolloutId, node: NodeId, what: &str) -> Outcome {
        use RolloutState as S;
        let from = [S::Running, S::Paused, S::Preempted, S::Held, S::Finished];
        let rollout = self.in_state(&id, &from, "problems count only while it is judged")?;
        let target = rollout.targets.get(&node).ok_or(CommandError::NoTarget {
            rollout: id.clone(),
            node,
        })?;
        if target.problem {
            return Ok(Answer::Done);
        }
        let what = cut(what);
        self.note("problem", format!("{id}: {node}: {what}"));
        self.record(LedgerEvent::Problem {
            rollout: id,
            node,
            what,
            at: self.now.wall,
        });
        Ok(Answer::Done)
    }

    pub(crate) fn revoke(&mut self, node: NodeId, reason: String) -> Outcome {
        let held = self
            .fleet
            .nodes
            .get(&node)
            .ok_or(CommandError::NoNode(node))?;
        if held.revoked {
            return Ok(Answer::Done);
        }
        let concerned: Vec<RolloutId> = self
            .rollouts
            .values()
            .filter(|r| r.is_alive() && r.targets.contains_key(&node))
            .map(|r| r.plan.rollout.clone())
            .collect();
        for rollout in concerned {
            let left = vec![(node, "its certificate was revoked".to_owned())];
            self.record(LedgerEvent::Targets {
                rollout,
                joined: Vec::new(),
                left,
            });
        }
        self.record(LedgerEvent::Revoked { node, reason });
        Ok(Answer::Done)
    }

    /// All or none of them.
    fn revoke_many(&mut self, statement: &Verified<MassRevocation>) -> Outcome {
        let nodes = &self.fleet.nodes;
        let mut unknown = statement.nodes.iter().filter(|n| !nodes.contains_key(n));
        if let Some(unknown) = unknown.next() {
            return Err(CommandError::NoNode(*unknown));
        }
        for node in &statement.nodes {
            self.revoke(*node, statement.reason.clone())?;
        }
        let envelope = statement.envelope().clone();
        self.record(LedgerEvent::Warranted { envelope });
        Ok(Answer::Done)
    }

    pub(crate) fn in_state(
        &self,
        id: &RolloutId,
        states: &[RolloutState],
        wanted: &'static str,
    ) -> Result<&Rollout, CommandError> {
        let rollout = self
            .rollouts
            .get(id)
            .ok_or_else(|| CommandError::NoRollout(id.clone()))?;
        match states.contains(&rollout.state) {
            true => Ok(rollout),
            false => Err(wrong_state(rollout, wanted)),
        }
    }
}

pub(crate) fn wrong_state(rollout: &Rollout, wanted: &'static str) -> CommandError {
    let state = match rollout.state {
        RolloutState::WaitingForApproval => "waiting for approval",
        RolloutState::Ready => "approved",
        RolloutState::Running => "running",
        RolloutState::Paused => "paused",
        RolloutState::Preempted => "set aside",
        RolloutState::Held => "held",
        RolloutState::Aborted => "halted",
        RolloutState::Recalling => "being recalled",
        RolloutState::Recalled => "recalled",
        RolloutState::Finished => "finished",
    };
    let rollout = rollout.plan.rollout.clone();
    CommandError::WrongState {
        rollout,
        state: state.into(),
        wanted,
    }
}

fn other_plan(rollout: &Rollout, offered: Hash) -> Result<(), CommandError> {
    if offered == rollout.digest {
        return Ok(());
    }
    let (id, held) = (rollout.plan.rollout.clone(), rollout.digest);
    Err(CommandError::OtherPlan {
        rollout: id,
        offered,
        held,
    })
}

fn rises(what: &'static str, offered: u64, trusted: u64) -> Result<(), CommandError> {
    if offered > trusted {
        return Ok(());
    }
    Err(CommandError::NotNewer {
        what,
        offered,
        trusted,
    })
}
