//! The feed between a site and its coordinator: how statuses travel upward, what receipts say, who is
//! in the site, and what its nodes are at.
//!
//! A status is signed over its whole encoding, most of which is the same for all nodes of a rollout.
//! A [`Batch`] says that part once and keeps of each status only what is its own; unpacking gives
//! back exactly the bytes that were signed. What cannot be packed so travels as it is. A receipt is
//! signed over the registers that an exchange brought; the delegate knows them, so only the
//! [`Seal`] travels down.

use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, KeySignature, verify};
use crate::ids::{FleetId, Hash, NodeId, RolloutId, Seq, SiteId};
use crate::limits::{MEMBERS_MAX, ROLLOUTS_MAX, TEXT_MAX_BYTES};
use crate::orders::{Mark, Receipt};
use crate::status::{NodeStatus, SignedStatus, State, StatusError, install_id};
use crate::time::Time;
use crate::trust::{Statement, Verified};
use crate::versioned::Versioned;

/// Signed statuses as they travel upward.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Batch {
    runs: Vec<Run>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Run {
    /// Statuses about one rollout, in order.
    Packed {
        rollout: RolloutId,
        plan: Hash,
        release: Hash,
        /// Each reason once.
        reasons: Vec<String>,
        /// `entered_at` of the first; the others count from here.
        since: Time,
        registers: Vec<Register>,
    },
    /// One that is not encoded as this program would.
    Whole(SignedStatus),
}

/// What is a status' own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Register {
    node: NodeId,
    wave: u32,
    seq: Seq,
    state: State,
    reason: u16,
    entered: i64,
    attempt: u32,
    /// None: as [`install_id`] derives it.
    install: Option<Hash>,
    lan_bytes: u64,
    wan_bytes: u64,
    exit_code: Option<i32>,
    output_tail: String,
    sig: ([u8; 32], [u8; 32]),
}

impl Batch {
    /// Packs statuses of a fleet; they keep their order.
    pub fn of(fleet: FleetId, statuses: impl IntoIterator<Item = SignedStatus>) -> Batch {
        let mut batch = Batch::default();
        statuses.into_iter().for_each(|s| batch.push(fleet, s));
        batch
    }

    /// Adds a status at the end.
    pub fn push(&mut self, fleet: FleetId, signed: SignedStatus) {
        let packable = || {
            let status = NodeStatus::from_bytes(&signed.body).ok()?;
            let sig: [u8; 64] = signed.sig.as_slice().try_into().ok()?;
            let same = status.fleet == fleet && status.to_bytes() == signed.body;
            same.then_some((status, sig))
        };
        match packable() {
            Some((status, sig)) => self.pack(status, sig),
            None => self.runs.push(Run::Whole(signed)),
        }
    }

    fn pack(&mut self, status: NodeStatus, sig: [u8; 64]) {
        let follows = matches!(self.runs.last(), Some(Run::Packed { rollout, plan, release, .. })
            if (rollout, plan, release) == (&status.rollout, &status.plan, &status.release));
        if !follows {
            self.runs.push(Run::Packed {
                rollout: status.rollout.clone(),
                plan: status.plan,
                release: status.release,
                reasons: Vec::new(),
                since: status.entered_at,
                registers: Vec::new(),
            });
        }
        let Some(Run::Packed {
            reasons,
            since,
            registers,
            ..
        }) = self.runs.last_mut()
        else {
            return;
        };
        let known = reasons.iter().position(|r| *r == status.reason);
        let reason = known.unwrap_or_else(|| {
            reasons.push(status.reason.clone());
            reasons.len() - 1
        });
        let derived = install_id(&status.node, &status.release, &status.rollout);
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&sig[..32]);
        s.copy_from_slice(&sig[32..]);
        registers.push(Register {
            node: status.node,
            wave: status.wave,
            seq: status.seq,
            state: status.state,
            reason: u16::try_from(reason).unwrap_or(u16::MAX),
            entered: status.entered_at.0.wrapping_sub(since.0).cast_signed(),
            attempt: status.attempt,
            install: (status.install_id != derived).then_some(status.install_id),
            lan_bytes: status.lan_bytes,
            wan_bytes: status.wan_bytes,
            exit_code: status.exit_code,
            output_tail: status.output_tail,
            sig: (r, s),
        });
    }

    /// How many statuses it has.
    pub fn len(&self) -> usize {
        let of = |run: &Run| match run {
            Run::Packed { registers, .. } => registers.len(),
            Run::Whole(_) => 1,
        };
        self.runs.iter().map(of).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `max` statuses as they were signed, in order; `None` stands for one that cannot be
    /// one. Nothing in them has been checked.
    pub fn unpack(&self, fleet: FleetId, max: usize) -> Vec<Option<SignedStatus>> {
        let mut statuses = Vec::new();
        for run in &self.runs {
            match run {
                Run::Whole(signed) => statuses.push(Some(signed.clone())),
                Run::Packed {
                    rollout,
                    plan,
                    release,
                    reasons,
                    since,
                    registers,
                } => {
                    let room = max.saturating_sub(statuses.len());
                    statuses.extend(registers.iter().take(room).map(|r| {
                        let reason = reasons.get(usize::from(r.reason))?;
                        let fits = reason.len() <= TEXT_MAX_BYTES;
                        let status = NodeStatus {
                            fleet,
                            node: r.node,
                            rollout: rollout.clone(),
                            plan: *plan,
                            release: *release,
                            wave: r.wave,
                            seq: r.seq,
                            state: r.state,
                            reason: fits.then(|| reason.clone())?,
                            entered_at: Time(since.0.wrapping_add(r.entered.cast_unsigned())),
                            attempt: r.attempt,
                            install_id: r
                                .install
                                .unwrap_or_else(|| install_id(&r.node, release, rollout)),
                            lan_bytes: r.lan_bytes,
                            wan_bytes: r.wan_bytes,
                            exit_code: r.exit_code,
                            output_tail: r.output_tail.clone(),
                        };
                        Some(SignedStatus {
                            body: status.to_bytes(),
                            sig: [r.sig.0, r.sig.1].concat(),
                        })
                    }));
                }
            }
            if statuses.len() >= max {
                break;
            }
        }
        statuses.truncate(max);
        statuses
    }

    /// The registers that it brings, in order; `None` stands for one that cannot be read.
    pub fn marks(&self) -> Vec<Option<Mark>> {
        let mut marks = Vec::new();
        for run in &self.runs {
            match run {
                Run::Packed {
                    rollout, registers, ..
                } => marks.extend(registers.iter().map(|r| {
                    Some(Mark {
                        node: r.node,
                        rollout: rollout.clone(),
                        seq: r.seq,
                    })
                })),
                Run::Whole(signed) => {
                    let status = NodeStatus::from_bytes(&signed.body).ok();
                    marks.push(status.map(|s| Mark::of(&s)));
                }
            }
        }
        marks
    }
}

/// The coordinator's signature under a [`Receipt`] for what an exchange brought.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seal {
    /// Places in the batch of those that are not acknowledged, rising.
    pub except: Vec<u16>,
    /// Over the receipt for all others, in order.
    pub signatures: Vec<KeySignature>,
}

impl Seal {
    /// Takes the signatures of a receipt.
    pub fn of(receipt: &Envelope, except: Vec<u16>) -> Seal {
        Seal {
            except,
            signatures: receipt.signatures.clone(),
        }
    }

    /// The receipt that it seals, for a batch with these registers. Nothing in it has been checked.
    pub fn receipt(&self, fleet: FleetId, marks: &[Option<Mark>]) -> Envelope {
        let told = |(place, mark): (usize, &Option<Mark>)| {
            let except = self.except.iter().any(|e| usize::from(*e) == place);
            mark.clone().filter(|_| !except)
        };
        let marks = marks.iter().enumerate().filter_map(told).collect();
        let mut envelope = Receipt {
            spec_version: Receipt::SPEC_VERSION,
            fleet,
            marks,
        }
        .to_envelope();
        envelope.signatures.clone_from(&self.signatures);
        envelope
    }
}

/// Who is in a site, said as a change to what the coordinator was told before.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Roster {
    /// Who came.
    pub joined: Vec<NodeId>,
    /// Who left.
    pub left: Vec<NodeId>,
    /// It says everyone, whatever was told before.
    pub whole: bool,
    /// [`Roster::digest`] of all members after the change.
    pub digest: u64,
}

impl Roster {
    /// Names a set of members.
    pub fn digest<'a>(members: impl IntoIterator<Item = &'a NodeId>) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for node in members {
            hasher.update(node.as_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// Whether it keeps to the limits.
    pub fn within_limits(&self) -> bool {
        self.joined.len() + self.left.len() <= MEMBERS_MAX
    }
}

/// What the nodes of a site are at that have received a rollout and not ended it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StageCounts {
    /// Plan and release are known, content is not on its way.
    pub received: u32,
    /// Content is on its way.
    pub downloading: u32,
    /// Staged, waiting for something or held.
    pub staged: u32,
    /// Changing themselves.
    pub installing: u32,
}

impl StageCounts {
    /// Counts one more; ends count nowhere.
    pub fn add(&mut self, state: State) {
        match state {
            State::Received => self.received += 1,
            State::Downloading => self.downloading += 1,
            State::Staged | State::Waiting(_) | State::Held => self.staged += 1,
            state if state.started() || state == State::RollingBack => self.installing += 1,
            _ => {}
        }
    }

    /// Both together.
    pub fn plus(&mut self, other: &StageCounts) {
        let sum = |a: &mut u32, b: u32| *a = a.saturating_add(b);
        sum(&mut self.received, other.received);
        sum(&mut self.downloading, other.downloading);
        sum(&mut self.staged, other.staged);
        sum(&mut self.installing, other.installing);
    }

    /// Without the other.
    pub fn minus(&mut self, other: &StageCounts) {
        let less = |a: &mut u32, b: u32| *a = a.saturating_sub(b);
        less(&mut self.received, other.received);
        less(&mut self.downloading, other.downloading);
        less(&mut self.staged, other.staged);
        less(&mut self.installing, other.installing);
    }
}

/// What a delegate counts in its site. Nothing is decided by it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stages {
    /// The site; none for a node without one.
    pub site: Option<SiteId>,
    /// The highest number wins.
    pub seq: Seq,
    /// By rollout.
    pub rollouts: Vec<(RolloutId, StageCounts)>,
}

impl Versioned for Stages {
    const MAGIC: [u8; 4] = *b"TGSC";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = 16 << 10;
}

/// Counts with their delegate's signature. Nothing in them has been checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedStages {
    /// The encoded [`Stages`].
    pub body: Vec<u8>,
    /// ed25519 signature by the delegate's key over [`STAGES_CONTEXT`], the fleet and the body; empty
    /// until the body of the node has signed.
    pub sig: Vec<u8>,
}

/// Stands before fleet and body when counts are signed.
pub const STAGES_CONTEXT: &[u8] = b"tidegate stages v1\0";

impl SignedStages {
    /// Counts that are still to be signed.
    pub fn unsigned(stages: &Stages) -> SignedStages {
        SignedStages {
            body: stages.to_bytes(),
            sig: Vec::new(),
        }
    }

    fn message(&self, fleet: FleetId) -> Vec<u8> {
        [STAGES_CONTEXT, fleet.as_bytes(), &self.body].concat()
    }

    /// Signs them with the delegate's key.
    pub fn sign(&mut self, fleet: FleetId, key: &SigningKey) {
        self.sig = key.sign(&self.message(fleet)).to_bytes().to_vec();
    }

    /// Believes the counts if `delegate` signed them.
    ///
    /// # Errors
    /// Why they are not believed.
    pub fn verify(
        &self,
        fleet: FleetId,
        delegate: NodeId,
    ) -> Result<Verified<Stages>, StatusError> {
        let stages = Stages::from_bytes(&self.body)?;
        if stages.rollouts.len() > ROLLOUTS_MAX {
            return Err(StatusError::TooLong(delegate));
        }
        if !verify(delegate.into(), &self.message(fleet), &self.sig) {
            return Err(StatusError::Signature(delegate));
        }
        let mut envelope = Envelope::unsigned("application/vnd.tidegate.stages", self.body.clone());
        envelope.signatures.push(KeySignature {
            keyid: delegate.into(),
            sig: self.sig.clone(),
        });
        Ok(Verified::new(stages, envelope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fleet, node, node_key, rollout, seq};

    fn status(fleet: &Fleet, number: u64, name: &str) -> NodeStatus {
        let (rollout, release) = (rollout(name), Hash::of(b"release"));
        NodeStatus {
            fleet: fleet.id(),
            node: node(number),
            plan: Hash::of(b"plan"),
            release,
            wave: 3,
            seq: seq(300),
            state: State::Succeeded,
            reason: "installed".into(),
            entered_at: Time(1_800_000_000_000 - number * 7),
            attempt: 1,
            install_id: install_id(&node(number), &release, &rollout),
            rollout,
            lan_bytes: 1 << 30,
            wan_bytes: 0,
            exit_code: None,
            output_tail: String::new(),
        }
    }

    #[test]
    fn a_packed_status_verifies_and_takes_at_most_130_bytes() {
        let fleet = Fleet::new(1);
        let mut signed: Vec<SignedStatus> = (1..=50)
            .map(|n| status(&fleet, n, "patch-2026-11").sign(&node_key(n)))
            .collect();
        let mut failed = status(&fleet, 51, "patch-2026-11");
        (failed.state, failed.exit_code) = (State::RolledBack, Some(-9));
        (failed.reason, failed.output_tail) = ("sick".into(), "ü\n".into());
        failed.install_id = Hash::of(b"another");
        signed.push(failed.sign(&node_key(51)));
        signed.push(status(&fleet, 52, "other").sign(&node_key(52)));
        // trailing bytes: no node writes so, and nothing may change on the way
        let mut odd = status(&fleet, 53, "other").sign(&node_key(53));
        odd.body.push(0);
        signed.push(odd);
        let batch = Batch::of(fleet.id(), signed.clone());
        assert_eq!(batch.len(), 53);
        let back: Vec<SignedStatus> = batch
            .unpack(fleet.id(), 512)
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(back, signed);
        for (number, signed) in back.iter().take(52).enumerate() {
            let status = signed.verify(fleet.id()).expect("signed by its node");
            assert_eq!(batch.marks()[number], Some(Mark::of(&status)));
        }
        assert_eq!(batch.marks()[52], None);
        let fifty = Batch::of(fleet.id(), signed[..50].to_vec());
        let bytes = postcard::to_stdvec(&fifty).expect("plain data").len();
        assert!(bytes <= 50 * 130, "{bytes} bytes for 50 statuses");
        assert_eq!(batch.unpack(fleet.id(), 7).len(), 7);
        let foreign = Fleet::new(2);
        let other = batch.unpack(foreign.id(), 1).remove(0).expect("one");
        assert!(other.verify(foreign.id()).is_err(), "the fleet is signed");
    }

    #[test]
    fn a_register_that_names_no_reason_or_too_long_a_one_is_none() {
        let fleet = Fleet::new(1);
        let mut batch = Batch::of(fleet.id(), [status(&fleet, 1, "r").sign(&node_key(1))]);
        let Run::Packed { registers, .. } = &mut batch.runs[0] else {
            panic!("packed")
        };
        registers[0].reason = 7;
        assert_eq!(batch.unpack(fleet.id(), 512), [None]);
        let Run::Packed {
            registers, reasons, ..
        } = &mut batch.runs[0]
        else {
            panic!("packed")
        };
        registers[0].reason = 0;
        reasons[0] = "é".repeat(TEXT_MAX_BYTES);
        assert_eq!(batch.unpack(fleet.id(), 512), [None]);
    }

    #[test]
    fn a_seal_is_good_for_what_it_names_only() {
        let fleet = Fleet::new(1);
        let marks: Vec<Option<Mark>> = (1..=3)
            .map(|n| Some(Mark::of(&status(&fleet, n, "r"))))
            .collect();
        let kept = vec![marks[0].clone().unwrap(), marks[2].clone().unwrap()];
        let receipt = fleet.receipt(kept.clone());
        let seal = Seal::of(receipt.envelope(), vec![1]);
        let rebuilt = seal.receipt(fleet.id(), &marks);
        let believed = fleet.trust().verify::<Receipt>(&rebuilt).expect("sealed");
        assert_eq!(believed.marks, kept);
        let all = Seal {
            except: Vec::new(),
            ..seal
        };
        let all = all.receipt(fleet.id(), &marks);
        assert!(fleet.trust().verify::<Receipt>(&all).is_err());
    }

    #[test]
    fn counts_are_believed_of_their_delegate_only() {
        let fleet = Fleet::new(1);
        let mut counts = StageCounts::default();
        [
            State::Received,
            State::Staged,
            State::Verifying,
            State::Succeeded,
        ]
        .into_iter()
        .for_each(|state| counts.add(state));
        assert_eq!(
            (counts.received, counts.staged, counts.installing),
            (1, 1, 1)
        );
        let stages = Stages {
            site: None,
            seq: seq(4),
            rollouts: vec![(rollout("r"), counts)],
        };
        let mut signed = SignedStages::unsigned(&stages);
        assert!(signed.verify(fleet.id(), node(1)).is_err());
        signed.sign(fleet.id(), &node_key(1));
        assert_eq!(*signed.verify(fleet.id(), node(1)).expect("signed"), stages);
        assert!(signed.verify(fleet.id(), node(2)).is_err());
        assert!(signed.verify(Fleet::new(2).id(), node(1)).is_err());
    }
}
