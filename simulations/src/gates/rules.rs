//! The plans that are compared: the preset `normal`, waves by time alone, and a threshold of a tenth.

use coordinator_core::presets::Preset;
use protocol::plan::{Cohort, Gate, SequentialTest, WaveDraft};
use protocol::{Span, Time};

/// By what a rollout is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules {
    /// The preset `normal` with one declared cohort.
    Ours,
    /// The same waves, each an hour after the first word of the one before, whatever the outcomes.
    ByTime,
    /// The same waves; a wave stops the rollout once a tenth of it has failed.
    Threshold,
}

/// The label that the declared cohort carries, and its value.
pub const COHORT: (&str, &str) = ("driver", "e1000");

impl Rules {
    /// The waves.
    pub fn waves(self, not_before: Time) -> Vec<WaveDraft> {
        let mut waves = Preset::Normal.waves(not_before);
        let gate = |min_success_ppm, min_sample| Gate {
            min_success_ppm,
            min_sample,
            soak: Span::from_secs(3600),
            silence_after: waves[0].gate.silence_after,
        };
        let gate = match self {
            Rules::Ours => return waves,
            Rules::ByTime => gate(0, 1),
            Rules::Threshold => gate(900_000, u32::MAX),
        };
        waves.iter_mut().for_each(|w| w.gate = gate.clone());
        waves
    }

    /// The sequential test.
    pub fn test(self) -> Option<SequentialTest> {
        let (key, value) = (COHORT.0.into(), COHORT.1.into());
        (self == Rules::Ours).then(|| SequentialTest {
            cohorts: vec![Cohort { key, value }],
            ..Preset::Normal.test()
        })
    }
}
