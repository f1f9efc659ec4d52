//! What the process that talks to the network and the one that installs with privilege say to each other.
//!
//! A connection carries one step. The installer begins with the version of the root that it trusts, the
//! other side sends the roots behind that, one in a frame, and then the step with every document that it
//! needs, as the envelopes in which they came: the installer believes none of it before it has verified it.
//! No path, no argv and no hash of content is said: those stand in the signed manifest. A frame is its
//! length in four bytes, little end first, and a versioned message.

use protocol::SiteId;
use protocol::limits::ENVELOPE_MAX_BYTES;
use protocol::versioned::Versioned;
use serde::{Deserialize, Serialize};

use crate::contract::{Failure, FailureClass, Step, StepOutcome};

/// The longest frame: five documents, and what stands beside them.
pub const FRAME_MAX_BYTES: usize = 5 * ENVELOPE_MAX_BYTES + (16 << 10);
/// Roots that are handed over in one connection.
pub const ROOTS_MAX: usize = 64;
/// Connections that are served at the same time; more wait in the socket's own row.
pub const CONNECTIONS_MAX: usize = 4;

/// What the network's side says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// The root behind the newest that the installer trusts, as envelope JSON.
    Root(Vec<u8>),
    /// Take a step.
    Step(Box<Errand>),
}

/// A step and its documents, as envelope JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Errand {
    /// The step.
    pub step: Step,
    /// The release.
    pub release: Vec<u8>,
    /// The plan that is followed; only the detect rule of a release can do without one.
    pub plan: Option<Vec<u8>>,
    /// The newest lease of its rollout.
    pub lease: Option<Vec<u8>>,
    /// Its recall.
    pub recall: Option<Vec<u8>>,
    /// What was installed before.
    pub before: Option<Vec<u8>>,
    /// The node's site.
    pub site: Option<SiteId>,
}

/// What the installer says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Said {
    /// The version of the newest root that it trusts.
    Root(u64),
    /// The step ended so.
    Ended(StepOutcome),
    /// It is not taken, for this reason.
    Refused(Failure),
}

impl Versioned for Ask {
    const MAGIC: [u8; 4] = *b"TGHA";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = FRAME_MAX_BYTES;
}

impl Versioned for Said {
    const MAGIC: [u8; 4] = *b"TGHS";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = 256 << 10;
}

/// What is done about a step when the installer went away before it said how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resume {
    /// It is asked for again: it finds what it did.
    Again,
    /// The detect rule says whether it was taken.
    Detect,
    /// It may have been taken, and runs no second time in this attempt.
    Over(Failure),
}

/// See [`Resume`].
pub fn resume(step: &Step) -> Resume {
    let over = |what: &str| {
        let reason = format!("{what} was interrupted when the installer ended");
        Resume::Over(failure(FailureClass::Interrupted, reason))
    };
    match step {
        Step::Switch => Resume::Detect,
        Step::PreHook(_) => over("the pre hook"),
        Step::PostHook(_) => over("the post hook"),
        _ => Resume::Again,
    }
}

/// How a switch ended that was interrupted, by what the detect rule says.
pub fn found(detected: StepOutcome) -> StepOutcome {
    match detected {
        StepOutcome::Absent => StepOutcome::Failed(failure(
            FailureClass::InstallerBusy,
            "the installer ended before the switch".into(),
        )),
        other => other,
    }
}

/// A failure that no program's output tells of.
pub fn failure(class: FailureClass, reason: String) -> Failure {
    Failure {
        reason,
        exit_code: None,
        output_tail: String::new(),
        class,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_that_may_have_run_a_program_is_run_again_blindly() {
        assert_eq!(resume(&Step::Switch), Resume::Detect);
        for step in [Step::PreHook(1), Step::PostHook(2)] {
            assert!(
                matches!(resume(&step), Resume::Over(f) if f.class == FailureClass::Interrupted)
            );
        }
        for step in [Step::WriteSlot, Step::Detect, Step::CleanUp, Step::Discard] {
            assert_eq!(resume(&step), Resume::Again);
        }
        assert_eq!(found(StepOutcome::Done), StepOutcome::Done);
        assert!(matches!(found(StepOutcome::Absent),
            StepOutcome::Failed(f) if f.class == FailureClass::InstallerBusy));
    }

    #[test]
    fn the_longest_errand_fits_a_frame() {
        let document = vec![b' '; ENVELOPE_MAX_BYTES];
        let more = || Some(document.clone());
        let ask = Ask::Step(Box::new(Errand {
            step: Step::PostHook(u32::MAX),
            release: document.clone(),
            plan: more(),
            lease: more(),
            recall: more(),
            before: more(),
            site: Some("s".repeat(60).parse().unwrap()),
        }));
        assert_eq!(Ask::from_bytes(&ask.to_bytes()), Ok(ask));
    }
}
