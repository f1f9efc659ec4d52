//! Three nodes of ten lie, in each way that touches the bytes: what that may cost the site's WAN and the time
//! until the others have everything, against the same seed without liars.

use simulations::{Report, Scenario, play};

const HOSTILE: &str = include_str!("../scenarios/hostile.toml");
const LIARS: &str = "[[liars]]\nhow = \"wrong_bytes\"\npercent = 30\n";

fn played(liars: &str, nodes: u32, seed: u64) -> Report {
    let text = HOSTILE.replace(LIARS, liars);
    assert!(text != HOSTILE || liars == LIARS, "the scenario has liars");
    let mut scenario = Scenario::parse(&text).expect("a scenario");
    scenario.seed = seed;
    scenario.sites[0].nodes = nodes;
    let report = play(scenario, 1).expect("it can be played");
    assert_eq!(report.violations, [""; 0], "seed {seed}");
    assert_eq!(report.makespan_unfinished, 0, "seed {seed}");
    report
}

/// For each seed the copies over the WAN, those of the liars included, and how much longer half of the nodes
/// and the last one took.
fn costs(how: &str, nodes: u32, seeds: impl Iterator<Item = u64>) -> Vec<(f64, f64, f64)> {
    let spans = |report: &Report| {
        let spans = report.makespan_ratio.expect("nodes that have everything");
        (spans.p50, spans.p999)
    };
    let cost = |seed| {
        let clean = spans(&played("", nodes, seed));
        let report = played(&LIARS.replace("wrong_bytes", how), nodes, seed);
        let harmed = spans(&report);
        let copies = report.wan_copies.worst;
        (copies, harmed.0 / clean.0, harmed.1 / clean.1)
    };
    seeds.map(cost).collect()
}

/// So often longer than without liars it may take at the most.
fn check(how: &str, longer: f64) {
    for (nodes, seeds) in [(20, vec![1, 5, 7]), (50, vec![5])] {
        let costs = costs(how, nodes, seeds.iter().copied());
        for (seed, cost) in seeds.iter().zip(costs) {
            let at = format!("{how}, {nodes} nodes, seed {seed}: {cost:?}");
            assert!(cost.0 <= 1.10, "copies of {at}");
            assert!(cost.1 <= longer && cost.2 <= longer, "times of {at}");
        }
    }
}

/// The story: nodes whose disk was damaged, and which therefore were left by all others, went on fetching
/// their share, and the site's WAN carried 1.25 copies (median of twenty seeds; 1.96 in the worst).
#[test]
fn wrong_bytes_cost_few_copies_and_little_time() {
    check("wrong_bytes", 1.3);
}

/// The story: who accepted fetches and sent nothing was believed for ten seconds by each node anew, and went
/// on bringing what nobody got: 1.40 copies, and 2.60 and four times the time in the worst seed.
///
/// Who stalls costs time before he is found out, and how much is chance: of sixteen seeds three are over 1.3
/// (1.33, 1.50, 1.52) and one over 1.10 copies (1.11). So the aim is asked of the usual seed, and less of the
/// worst.
#[test]
fn stalls_cost_few_copies_and_little_time() {
    let mut costs = costs("stall", 20, 1..=7);
    for (seed, cost) in (1..).zip(&costs) {
        let at = format!("seed {seed}: {cost:?}");
        assert!(cost.0 <= 1.13 && cost.1 <= 1.6 && cost.2 <= 1.6, "{at}");
    }
    let mut middle = |of: fn(&(f64, f64, f64)) -> f64| {
        costs.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&costs[3])
    };
    let middle = [middle(|c| c.0), middle(|c| c.1), middle(|c| c.2)];
    assert!(
        middle[0] <= 1.05 && middle[1] <= 1.2 && middle[2] <= 1.3,
        "{middle:?}"
    );
}

/// The story: who said that it held everything, and handed out the little that it had fetched, was believed
/// until it failed three times in a row, and each success began that anew: 1.15 copies, and up to 2.6 times
/// the time.
#[test]
fn false_haves_cost_few_copies_and_little_time() {
    check("false_haves", 1.3);
}
