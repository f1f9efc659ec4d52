//! What a machine is like, from the beginning to the end.

use std::collections::BTreeMap;

use crate::scenario::{Lie, Scenario, Shares, below, stream};

/// What a machine is like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Traits {
    /// Attributes as they were drawn; where there are laptops, `form` too.
    pub labels: BTreeMap<String, String>,
    /// Whether it is carried home.
    pub laptop: bool,
    /// How it lies, if it does.
    pub lie: Option<Lie>,
    /// Whether it has no room for a release.
    pub full_disk: bool,
    /// So many milliseconds its clock on the wall is ahead.
    pub skew_ms: i64,
}

impl Traits {
    pub(super) fn draw(scenario: &Scenario, site_name: &str, site: usize, slot: usize) -> Traits {
        let of = |purpose: &str| stream(scenario.seed, &format!("{purpose} of {site}/{slot}"));
        let hits = |purpose: &str, percent: u32| {
            percent > 0 && below(&mut of(purpose), 100) < u64::from(percent)
        };
        let mut labels: BTreeMap<String, String> = scenario
            .attributes
            .iter()
            .map(|(name, shares)| {
                let value = share(shares, below(&mut of(name), total(shares)));
                (name.clone(), value)
            })
            .collect();
        let laptop = scenario
            .laptops
            .is_some_and(|laptops| hits("laptop", laptops.percent));
        if scenario.laptops.is_some() {
            let form = if laptop { "laptop" } else { "desktop" };
            labels.insert("form".into(), form.into());
        }
        let lie = scenario.liars.iter().enumerate().find(|(n, liars)| {
            let here = liars.sites.is_empty() || liars.sites.iter().any(|s| s == site_name);
            hits(&format!("lie {n}"), liars.percent) && here
        });
        let machines = &scenario.machines;
        let skew_ms = match hits("skewed", machines.skewed_percent) {
            true => {
                let mut rng = of("skew");
                let skew = machines.skew_s.draw(&mut rng).0 as i64;
                if below(&mut rng, 2) == 0 { skew } else { -skew }
            }
            false => 0,
        };
        Traits {
            labels,
            laptop,
            lie: lie.map(|(_, liars)| liars.how),
            full_disk: hits("full disk", machines.full_disk_percent),
            skew_ms,
        }
    }
}

fn total(shares: &Shares) -> u64 {
    shares.values().map(|n| u64::from(*n)).sum()
}

/// The value in whose share the draw lies.
fn share(shares: &Shares, mut draw: u64) -> String {
    for (value, share) in shares {
        match draw.checked_sub(u64::from(*share)) {
            Some(rest) => draw = rest,
            None => return value.clone(),
        }
    }
    String::new()
}
