//! Named rollout shapes: few knobs, four presets.
//!
//! A preset is a starting point that a proposal spells out wave by wave; nothing refers back to its
//! name later, so changing a preset changes no plan that was signed.

use protocol::plan::{Gate, Selector, WaveDraft};
use protocol::{Span, Time};

/// A named rollout shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preset {
    /// 1, 5, 20, 50 %, rest; long soaks, 99 % must succeed.
    Careful,
    /// A handful, 10, 40 %, rest; 95 % must succeed.
    Normal,
    /// A handful, half, rest; short soaks, 90 % must succeed.
    Fast,
    /// One node, then all.
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
        let (steps, success_ppm, soak): (&[Selector], u32, Span) = match self {
            Preset::Careful => (
                &[
                    Selector::Count(5),
                    Selector::Percent(5),
                    Selector::Percent(20),
                    Selector::Percent(50),
                    Selector::Rest,
                ],
                990_000,
                Span::from_secs(24 * 3600),
            ),
            Preset::Normal => (
                &[
                    Selector::Count(5),
                    Selector::Percent(10),
                    Selector::Percent(40),
                    Selector::Rest,
                ],
                950_000,
                Span::from_secs(3600),
            ),
            Preset::Fast => (
                &[Selector::Count(3), Selector::Percent(50), Selector::Rest],
                900_000,
                Span::from_secs(300),
            ),
            Preset::Emergency => (
                &[Selector::Count(1), Selector::Rest],
                900_000,
                Span::from_secs(30),
            ),
        };
        steps
            .iter()
            .map(|select| WaveDraft {
                name: wave_name(select),
                select: select.clone(),
                not_before,
                gate: Gate {
                    min_success_ppm: success_ppm,
                    min_sample: 3,
                    soak,
                    silence_after: Span::from_secs(1800),
                },
            })
            .collect()
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
