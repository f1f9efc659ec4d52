//! What the demo shows while it runs: bars on a terminal, lines elsewhere, nothing under `--json`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::IsTerminal;

use coordinator_core::contract::RolloutView;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use protocol::SiteId;

use super::fleet::Fleet;
use crate::cli::args::Demo;
use crate::cli::rollout::one_line;

/// Shows what happens.
pub struct Live {
    mode: Mode,
    bars: MultiProgress,
    shown: RefCell<Shown>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Bars,
    Lines,
    Silent,
}

#[derive(Default)]
struct Shown {
    line: String,
    present: Option<ProgressBar>,
    waves: Vec<ProgressBar>,
    sites: BTreeMap<SiteId, ProgressBar>,
}

impl Live {
    /// Picks how to show things.
    pub fn new(options: &Demo) -> Live {
        let mode = match (options.json, std::io::stderr().is_terminal()) {
            (true, _) => Mode::Silent,
            (false, true) => Mode::Bars,
            (false, false) => Mode::Lines,
        };
        Live {
            mode,
            bars: MultiProgress::new(),
            shown: RefCell::default(),
        }
    }

    /// Whether a person watches.
    pub fn terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// Says a line.
    pub fn say(&self, line: &str) {
        match self.mode {
            Mode::Bars => drop(self.bars.println(line)),
            Mode::Lines => eprintln!("{line}"),
            Mode::Silent => {}
        }
    }

    /// So many nodes of all have reported.
    pub fn present(&self, here: usize, all: usize) {
        let mut shown = self.shown.borrow_mut();
        match self.mode {
            Mode::Bars => {
                let bar = shown
                    .present
                    .get_or_insert_with(|| self.bar("nodes", all as u64, "{pos}/{len} reported"));
                bar.set_position(here as u64);
                if here == all {
                    bar.finish_and_clear();
                    shown.present = None;
                }
            }
            Mode::Lines => shown.say_once(format!("{here} of {all} nodes reported")),
            Mode::Silent => {}
        }
    }

    /// Where a rollout stands: a bar for each wave, and one for each site's transfer.
    pub async fn rollout(&self, view: &RolloutView, fleet: &Fleet, carrier_bytes: u64) {
        match self.mode {
            Mode::Silent => {}
            Mode::Lines => self.shown.borrow_mut().say_once(one_line(view)),
            Mode::Bars => {
                let held = held_by_site(view, fleet, carrier_bytes).await;
                let mut shown = self.shown.borrow_mut();
                for (site, (held, all)) in held {
                    let bar = shown.sites.entry(site.clone()).or_insert_with(|| {
                        self.bar(
                            site.as_str(),
                            all,
                            "{bytes}/{total_bytes} in the site's nodes",
                        )
                    });
                    bar.set_position(held);
                }
                for wave in &view.waves {
                    if shown.waves.len() <= wave.number as usize {
                        let bar = self.bar(
                            &format!("wave {}", wave.name),
                            u64::from(wave.targets),
                            "{pos}/{len} {msg}",
                        );
                        shown.waves.push(bar);
                    }
                    let bar = &shown.waves[wave.number as usize];
                    bar.set_position(u64::from(wave.counts.applied + wave.counts.failed));
                    let failed = if wave.counts.failed > 0 {
                        format!(", {} failed", wave.counts.failed)
                    } else {
                        String::new()
                    };
                    bar.set_message(format!("{}{failed}", wave.state));
                }
            }
        }
    }

    /// A rollout came to its end.
    pub fn rollout_ended(&self, view: &RolloutView) {
        self.finish();
        self.say(&one_line(view));
    }

    /// Takes the bars away.
    pub fn finish(&self) {
        let mut shown = self.shown.borrow_mut();
        let Shown {
            present,
            waves,
            sites,
            ..
        } = &mut *shown;
        for bar in present
            .take()
            .into_iter()
            .chain(waves.drain(..))
            .chain(std::mem::take(sites).into_values())
        {
            bar.finish_and_clear();
        }
    }

    fn bar(&self, name: &str, length: u64, tail: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(&format!("{{prefix:>12}} {{bar:30}} {tail}"))
            .expect("a template that was seen to work");
        self.bars.add(
            ProgressBar::new(length)
                .with_style(style)
                .with_prefix(name.to_owned()),
        )
    }
}

impl Shown {
    fn say_once(&mut self, line: String) {
        if self.line != line {
            eprintln!("{line}");
            self.line = line;
        }
    }
}

/// For each site: bytes that its nodes have, and all that they need.
async fn held_by_site(
    view: &RolloutView,
    fleet: &Fleet,
    carrier_bytes: u64,
) -> BTreeMap<SiteId, (u64, u64)> {
    let mut sites: BTreeMap<SiteId, (u64, u64)> = BTreeMap::new();
    for node in &fleet.nodes {
        let entry = sites.entry(node.site.clone()).or_default();
        entry.1 += carrier_bytes;
        let Ok(report) = node::driver::status::read(&node.dir).await else {
            continue;
        };
        let standings = report["snapshot"]["standings"].as_array();
        let mut standings = standings.into_iter().flatten();
        let Some(mine) = standings.find(|s| s["rollout"] == view.rollout.as_str()) else {
            continue;
        };
        let fetching = ["NotReceived", "Received", "Downloading"];
        entry.0 += match mine["state"].as_str() {
            Some(state) if fetching.contains(&state) => {
                let by_reason = mine["bytes"].as_object().into_iter().flatten();
                let fetched: u64 = by_reason.filter_map(|(_, bytes)| bytes.as_u64()).sum();
                fetched.min(carrier_bytes)
            }
            _ => carrier_bytes,
        };
    }
    sites
}
