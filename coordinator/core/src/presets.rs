//! Named rollout shapes: few knobs, four presets.
//!
//! A preset is a starting point that a proposal spells out wave by wave; nothing refers back to its
//! name later, so changing a preset changes no plan that was signed.
//!
//! Small numbers cannot tell one failure in a hundred from three, nor a node of a sick cohort from a sick
//! release. So a wave's own gate only stops what fails grossly, three of the first five or five of twenty,
//! and the finer question is left to the sequential test across the waves.

use protocol::plan::{Gate, Selector, SequentialTest, WaveDraft};
use protocol::{Span, Time};

/// Nodes of the first wave.
const HANDFUL: u32 = 5;
/// Of these so many must be good. Two that fail may be one of a sick cohort and one that would fail anyway:
/// at 80 % a cohort of 2 % stopped one rollout in a hundred whole, before it could be held alone.
const HANDFUL_PPM: u32 = 600_000;
/// The same of a later wave.
const SUCCESS_PPM: u32 = 800_000;
/// Outcomes that a wave is judged by at least, or all of it.
const SAMPLE: u32 = 20;

/// A named rollout shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preset {
    /// A handful, 5, 20, 50 %, rest; soaks of a day; stops what fails at 2 % where 1 % are expected.
    Careful,
    /// A handful, 10, 40 %, rest; soaks of an hour; stops at 3 %.
    Normal,
    /// A handful, half, rest; short soaks; stops at 5 %.
    Fast,
    /// A handful, then all; stops at 5 %, with four times as many at it from the start.
    Emergency,
}

impl Preset {
    /// Every preset with its name.
    pub const ALL: [(&'static str, Preset); 4] = [
        ("careful", Preset::Careful),
        ("normal", Preset::Normal),
        ("fast", Preset::Fast),
        ("emergency", Preset::Emergency),
    ];

    /// The waves of this preset, none of which starts before `not_before`.
    pub fn waves(self, not_before: Time) -> Vec<WaveDraft> {
        let (steps, soak): (&[Selector], u64) = match self {
            Preset::Careful => (
                &[
                    Selector::Count(HANDFUL),
                    Selector::Percent(5),
                    Selector::Percent(20),
                    Selector::Percent(50),
                    Selector::Rest,
                ],
                24 * 3600,
            ),
            Preset::Normal => (
                &[
                    Selector::Count(HANDFUL),
                    Selector::Percent(10),
                    Selector::Percent(40),
                    Selector::Rest,
                ],
                3600,
            ),
            Preset::Fast => (
                &[
                    Selector::Count(HANDFUL),
                    Selector::Percent(50),
                    Selector::Rest,
                ],
                300,
            ),
            Preset::Emergency => (&[Selector::Count(HANDFUL), Selector::Rest], 30),
        };
        steps
            .iter()
            .map(|select| WaveDraft {
                name: wave_name(select),
                select: select.clone(),
                not_before,
                gate: Gate {
                    min_success_ppm: match select {
                        Selector::Count(_) => HANDFUL_PPM,
                        _ => SUCCESS_PPM,
                    },
                    min_sample: SAMPLE,
                    soak: Span::from_secs(soak),
                    silence_after: Span::from_secs(1800),
                },
            })
            .collect()
    }

    /// The sequential test of this preset, without cohorts. A release fails on one node in a hundred
    /// whatever it is: full disks, broken machines, people who switch off.
    pub fn test(self) -> SequentialTest {
        let (unacceptable_ppm, in_flight_max) = match self {
            Preset::Careful => (20_000, 50),
            Preset::Normal => (30_000, 50),
            Preset::Fast => (50_000, 50),
            Preset::Emergency => (50_000, 200),
        };
        SequentialTest {
            expected_ppm: 10_000,
            unacceptable_ppm,
            false_halt_ppm: 100,
            missed_ppm: 1000,
            in_flight_max,
            cohorts: Vec::new(),
        }
    }
}

/// What a wave is called when nobody names it.
pub fn wave_name(select: &Selector) -> String {
    match select {
        Selector::Count(n) => format!("first {n}"),
        Selector::Percent(p) => format!("{p} %"),
        Selector::Site(site) => format!("site {site}"),
        Selector::Label { key, value } => format!("{key}={value}"),
        Selector::Rest => "rest".into(),
    }
}

/// No preset of this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no preset {0:?}; presets are careful, normal, fast and emergency")]
pub struct UnknownPreset(pub String);

impl core::str::FromStr for Preset {
    type Err = UnknownPreset;
    fn from_str(text: &str) -> Result<Preset, UnknownPreset> {
        Preset::ALL
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, preset)| *preset)
            .ok_or_else(|| UnknownPreset(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_ends_with_the_rest_and_names_itself() {
        for (name, preset) in Preset::ALL {
            assert_eq!(name.parse::<Preset>().unwrap(), preset);
            let waves = preset.waves(Time::from_secs(7));
            assert_eq!(waves.last().unwrap().select, Selector::Rest);
            assert!(
                matches!(waves[0].select, Selector::Count(n) if n <= 5),
                "a handful comes first"
            );
        }
    }

    #[test]
    fn an_unknown_preset_says_which_exist() {
        let error = "reckless".parse::<Preset>().unwrap_err().to_string();
        assert!(
            error.contains("reckless") && error.contains("careful, normal, fast and emergency")
        );
    }
}
