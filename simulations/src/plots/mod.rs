//! Pictures of a run, as SVG: the same bytes for the same figures, whatever fonts a machine has.
//!
//! [`Pictures`] are plain figures; each module below draws one of them and decides nothing else.

mod completion;
mod copies;
mod gate;
mod harmed;
mod style;
mod traffic;

use std::path::Path;

use anyhow::{Context, Result};

/// Rollouts that get a panel of their own in a picture; more are left out and the title says so.
const PANELS_MAX: usize = 4;

/// What is drawn. Times in seconds since the world began.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Pictures {
    /// The scenario, its size and seed; stands above each picture.
    pub title: String,
    /// The rollouts, in order.
    pub rollouts: Vec<RolloutCurves>,
    /// For each site, copies of what was rolled out that crossed its WAN: the most of any release.
    pub copies: Vec<(String, f64)>,
    /// Bytes a second that the coordinator received, from each time on.
    pub bytes_in: Vec<(f64, f64)>,
    /// The same, sent.
    pub bytes_out: Vec<(f64, f64)>,
}

/// A rollout over time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RolloutCurves {
    /// `product@version`.
    pub release: String,
    /// Its waves, in order.
    pub waves: Vec<WaveCurves>,
}

/// A wave over time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WaveCurves {
    /// Its name.
    pub name: String,
    /// Nodes in it.
    pub targets: u32,
    /// When it opened.
    pub opened: Option<f64>,
    /// When each of its nodes had the release, switched and healthy; rising.
    pub applied: Vec<f64>,
    /// Nodes that began their switch.
    pub started: u32,
    /// Of these, nodes on which the release failed.
    pub harmed: u32,
    /// The success ratio that its gate asks for, in per cent, and the outcomes that must be in.
    pub threshold: (f64, u32),
    /// Good and bad outcomes that the coordinator had counted, from each time on.
    pub outcomes: Vec<(f64, u32, u32)>,
}

impl Pictures {
    /// Every picture: its file's name, and the SVG.
    ///
    /// # Errors
    /// When a picture cannot be drawn.
    pub fn draw(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("completion.svg", completion::draw(self)?),
            ("wan-copies.svg", copies::draw(self)?),
            ("gate.svg", gate::draw(self)?),
            ("harmed.svg", harmed::draw(self)?),
            ("coordinator.svg", traffic::draw(self)?),
        ])
    }

    /// Writes every picture into a directory, which is made if need be.
    ///
    /// # Errors
    /// When a picture cannot be drawn or written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        for (name, svg) in self.draw()? {
            let path = dir.join(name);
            std::fs::write(&path, svg).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

impl RolloutCurves {
    /// From its first wave's opening to the last thing that a curve shows.
    fn span(&self) -> (f64, f64) {
        let opened = self.waves.iter().filter_map(|w| w.opened);
        let from = opened.reduce(f64::min).unwrap_or(0.0);
        let moments = self.waves.iter().flat_map(|w| {
            let outcomes = w.outcomes.last().map(|o| o.0);
            w.applied
                .last()
                .copied()
                .into_iter()
                .chain(outcomes)
                .chain(w.opened)
        });
        (from, moments.fold(from + 1.0, f64::max))
    }
}

/// A panel for each of the first rollouts, as `curves` draws it.
fn rollout_panels(
    pictures: &Pictures,
    heading: &str,
    curves: impl Fn(&style::Panel<'_>, &RolloutCurves) -> Result<()>,
) -> Result<String> {
    let shown = pictures.rollouts.iter().take(PANELS_MAX);
    style::picture(heading, &pictures.title, shown.len(), |panels| {
        for (panel, rollout) in panels.iter().zip(shown) {
            curves(panel, rollout)?;
        }
        match pictures.rollouts.is_empty() {
            true => style::nothing(&panels[0], "nothing was rolled out"),
            false => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(waves: usize) -> Pictures {
        let wave = |n: usize| WaveCurves {
            name: format!("wave {n}"),
            targets: 100,
            opened: Some(60.0 * n as f64),
            applied: (0..100)
                .map(|i| 60.0 * n as f64 + 20.0 + f64::from(i) * 0.3)
                .collect(),
            started: 100,
            harmed: n as u32,
            threshold: (95.0, 10),
            outcomes: (0..100)
                .map(|i| (60.0 * n as f64 + 22.0 + f64::from(i) * 0.3, i, i / 30))
                .collect(),
        };
        let rollout = |n| RolloutCurves {
            release: format!("app@1.{n}"),
            waves: (0..waves).map(wave).collect(),
        };
        Pictures {
            title: "sample <\"&>, 300 nodes, seed 1".into(),
            rollouts: (0..2).map(rollout).collect(),
            copies: (0..40)
                .map(|n| (format!("s{n}"), 1.0 + f64::from(n) * 0.001))
                .collect(),
            bytes_in: (0..100)
                .map(|n| (f64::from(n), 900.0 + f64::from(n % 7) * 100.0))
                .collect(),
            bytes_out: (0..100).map(|n| (f64::from(n), 300.0)).collect(),
        }
    }

    #[test]
    fn pictures_have_titles_units_and_legends() {
        let drawn = sample(3).draw().unwrap();
        let svg = |name| &drawn.iter().find(|(n, _)| *n == name).unwrap().1;
        let words = [
            (
                "completion.svg",
                vec![
                    "Completion",
                    "app@1.1",
                    "wave 2",
                    "% of the wave",
                    "began, s",
                ],
            ),
            ("wan-copies.svg", vec!["WAN copies", "aim 1.02", "sites"]),
            ("gate.svg", vec!["Gate", "threshold", "% good"]),
            ("harmed.svg", vec!["Harmed", "nodes", "wave 1"]),
            (
                "coordinator.svg",
                vec!["Coordinator", "received", "sent", "B/s"],
            ),
        ];
        for (name, words) in words {
            for word in words {
                assert!(svg(name).contains(word), "{name} says {word}");
            }
            assert!(
                svg(name).contains("sample &lt;"),
                "{name} names the run, escaped"
            );
            assert!(!svg(name).contains("NaN"), "{name}");
        }
        assert_eq!(drawn, sample(3).draw().unwrap(), "the same bytes");
    }

    #[test]
    fn a_run_in_which_nothing_happened_can_be_drawn() {
        let nothing = Pictures::default();
        assert_eq!(nothing.draw().unwrap().len(), 5);
        let mut unopened = sample(2);
        for wave in unopened.rollouts.iter_mut().flat_map(|r| &mut r.waves) {
            (wave.opened, wave.applied, wave.outcomes) = (None, Vec::new(), Vec::new());
        }
        assert!(
            unopened
                .draw()
                .unwrap()
                .iter()
                .all(|(_, svg)| !svg.contains("NaN"))
        );
    }

    #[test]
    fn a_large_run_makes_no_large_picture() {
        let mut large = sample(3);
        large.rollouts = vec![large.rollouts[0].clone(); 9];
        for wave in large.rollouts.iter_mut().flat_map(|r| &mut r.waves) {
            wave.applied = (0..100_000).map(|i| f64::from(i) * 0.01).collect();
        }
        large.copies = (0..20_000)
            .map(|n| (format!("s{n}"), 1.0 + f64::from(n) * 1e-6))
            .collect();
        for (name, svg) in large.draw().unwrap() {
            assert!(svg.len() < 200_000, "{name}: {} bytes", svg.len());
        }
    }
}
