//! The figures of all seeds, and how they are printed.

use std::fmt::Write;

use serde::Serialize;

use super::trial::{Kind, Outcome};

/// A cohort that fails alone shall keep the release from at most the rest of this many of a hundred others.
pub const OTHERS_PERCENT: f64 = 97.0;

/// Of all seeds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Figures {
    /// The middle.
    pub median: f64,
    /// All but one in a hundred are no higher.
    pub p99: f64,
    /// The highest.
    pub max: f64,
}

/// What comes of one set of rules.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Table {
    /// Nodes harmed by a release that fails everywhere.
    pub fully_bad: Figures,
    /// Nodes harmed by one that fails on 5 % more than any.
    pub regression_5: Figures,
    /// Nodes harmed by one that fails on 2 % more.
    pub regression_2: Figures,
    /// Nodes harmed by one after whose start nodes go quiet.
    pub silent: Figures,
    /// Nodes harmed by one that fails on a declared cohort of 2 %.
    pub cohort: Figures,
    /// Of the others in that case, percent where the release is and works: the lowest of all seeds.
    pub cohort_others_percent_min: f64,
    /// Seeds in which that is less than [`OTHERS_PERCENT`].
    pub cohort_seeds_short: usize,
    /// 1 for a seed in which a good release was stopped, else 0.
    pub false_halts: Figures,
    /// Good releases that were stopped, in percent of all seeds.
    pub false_halts_percent: f64,
    /// Virtual hours until a good release is everywhere.
    pub good_hours: Figures,
}

/// Our rules, and those they are compared with.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Tables {
    /// Seeds of our rules.
    pub seeds: u64,
    /// Nodes of the fleet.
    pub nodes: u32,
    /// The preset `normal` with one declared cohort.
    #[serde(flatten)]
    pub ours: Table,
    /// Seeds of the two others.
    pub compared_seeds: u64,
    /// Waves by time alone.
    pub by_time: Table,
    /// A threshold of 10 % of each wave.
    pub threshold_10: Table,
}

impl Figures {
    fn of(values: impl Iterator<Item = f64>) -> Figures {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        // nearest rank
        let rank = |share: f64| {
            let at = (share * values.len() as f64).ceil() as usize;
            values.get(at.max(1) - 1).copied().unwrap_or_default()
        };
        Figures {
            median: rank(0.5),
            p99: rank(0.99),
            max: rank(1.0),
        }
    }
}

impl Table {
    /// The table of these outcomes.
    pub fn of(outcomes: impl Iterator<Item = (Kind, Outcome)>) -> Table {
        let all: Vec<(Kind, Outcome)> = outcomes.collect();
        let of = |kind| all.iter().filter(move |(k, _)| *k == kind).map(|(_, o)| o);
        let harmed = |kind| Figures::of(of(kind).map(|o| f64::from(o.harmed)));
        let served = |o: &Outcome| f64::from(o.others.1) * 100.0 / f64::from(o.others.0.max(1));
        let stops = || of(Kind::Good).map(|o| f64::from(u8::from(o.stopped)));
        let hours = |o: &Outcome| (o.end.0 as f64 / 360_000.0).round() / 10.0;
        Table {
            fully_bad: harmed(Kind::FullyBad),
            regression_5: harmed(Kind::Regression5),
            regression_2: harmed(Kind::Regression2),
            silent: harmed(Kind::Silent),
            cohort: harmed(Kind::Cohort),
            cohort_others_percent_min: of(Kind::Cohort).map(served).fold(100.0, f64::min),
            cohort_seeds_short: of(Kind::Cohort)
                .filter(|o| served(o) < OTHERS_PERCENT)
                .count(),
            false_halts: Figures::of(stops()),
            false_halts_percent: stops().sum::<f64>() * 100.0 / stops().count().max(1) as f64,
            good_hours: Figures::of(of(Kind::Good).filter(|o| !o.stopped).map(hours)),
        }
    }
}

impl Tables {
    /// The table for people.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} nodes, {} seeds (compared: {}); nodes harmed, median / p99 / max\n",
            self.nodes, self.seeds, self.compared_seeds
        );
        let columns = [&self.ours, &self.by_time, &self.threshold_10];
        let mut row = |name: &str, of: &dyn Fn(&Table) -> String| {
            let cells = columns.map(of);
            let _ = writeln!(
                text,
                "{name:<34} {:>18} {:>24} {:>24}",
                cells[0], cells[1], cells[2]
            );
        };
        row("", &|_| String::new());
        let three = |f: Figures| format!("{} / {} / {}", f.median, f.p99, f.max);
        row("fails on every node", &|t| three(t.fully_bad));
        row("fails on 5 % more than any", &|t| three(t.regression_5));
        row("fails on 2 % more than any", &|t| three(t.regression_2));
        row("nodes go quiet after the start", &|t| three(t.silent));
        row("fails on a cohort of 2 %", &|t| three(t.cohort));
        row("  others that had it, at least", &|t| {
            format!("{:.2} %", t.cohort_others_percent_min)
        });
        row("  seeds in which fewer than 97 % had it", &|t| {
            t.cohort_seeds_short.to_string()
        });
        row("good releases stopped", &|t| {
            format!("{:.2} %", t.false_halts_percent)
        });
        row("hours for a good one", &|t| three(t.good_hours));
        let names = format!(
            "{:<34} {:>18} {:>24} {:>24}",
            "", "preset normal", "by time alone", "10 % of the wave"
        );
        let blank = text.lines().nth(1).unwrap_or_default().to_owned();
        text.replacen(&blank, &names, 1)
    }
}
