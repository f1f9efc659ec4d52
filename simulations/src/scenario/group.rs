//! Sites by the hundred, with what the seed draws.

use serde::Deserialize;

use super::{Hours, Scenario, SiteSpec, below, stream};

/// Many sites of a kind; a range `[from, to]` is drawn from for each of them, evenly.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteGroup {
    /// Begins their names: `name-1`, `name-2`, …
    pub name: String,
    /// How many.
    pub count: u32,
    /// Nodes of each.
    pub nodes: u32,
    /// See [`SiteSpec::wan_mbit`].
    pub wan_mbit: [u64; 2],
    /// Of the WAN inward, so many of a hundred are there outward.
    #[serde(default = "all")]
    pub wan_up_percent: u64,
    /// See [`SiteSpec::relay`].
    #[serde(default)]
    pub relay: bool,
    /// See [`SiteSpec::lan_mbit`].
    pub lan_mbit: u64,
    /// See [`SiteSpec::wan_delay_ms`].
    pub wan_delay_ms: [u64; 2],
    /// See [`SiteSpec::region`].
    #[serde(default)]
    pub region: Option<String>,
    /// See [`SiteSpec::schedule`].
    #[serde(default)]
    pub schedule: Vec<Hours>,
}

/// The node that has every blob from the start.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginSpec {
    /// Its uplink in Mbit/s; without a limit if it is left out.
    pub uplink_mbit: Option<u64>,
}

fn all() -> u64 {
    100
}

impl Scenario {
    /// All sites, those of groups as the seed draws them, with what their regions add.
    pub fn all_sites(&self) -> Vec<SiteSpec> {
        let mut sites = self.sites.clone();
        for group in &self.site_groups {
            let mut draws = stream(self.seed, &format!("sites of group {}", group.name));
            let mut draw = |[from, to]: [u64; 2]| {
                from + below(&mut draws, to.saturating_sub(from).saturating_add(1))
            };
            for number in 1..=group.count {
                let wan_mbit = draw(group.wan_mbit);
                sites.push(SiteSpec {
                    name: format!("{}-{number}", group.name),
                    nodes: group.nodes,
                    wan_mbit,
                    wan_up_mbit: Some((wan_mbit * group.wan_up_percent / 100).max(1)),
                    relay: group.relay,
                    lan_mbit: group.lan_mbit,
                    wan_delay_ms: draw(group.wan_delay_ms),
                    region: group.region.clone(),
                    zone_h: None,
                    clock: None,
                    schedule: group.schedule.clone(),
                });
            }
        }
        let resolved = sites.into_iter().map(|s| s.resolved(&self.regions));
        resolved.collect()
    }

    /// Has about `nodes` nodes, whatever the scenario said: spread evenly over its sites, or, where
    /// it has groups, in so many fewer or more sites of the same size.
    pub fn spread(&mut self, nodes: u32) {
        if !self.site_groups.is_empty() {
            let before = self.nodes().max(1);
            for group in &mut self.site_groups {
                let scaled = u64::from(group.count) * u64::from(nodes) / u64::from(before);
                group.count = (scaled as u32).max(1);
            }
            return;
        }
        let sites = self.sites.len() as u32;
        for (i, site) in self.sites.iter_mut().enumerate() {
            site.nodes = nodes / sites + u32::from((i as u32) < nodes % sites);
        }
    }

    /// All nodes.
    pub fn nodes(&self) -> u32 {
        let grouped = self.site_groups.iter().map(|g| g.count * g.nodes);
        self.sites.iter().map(|s| s.nodes).chain(grouped).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str = r#"
        name = "groups"
        seed = 1
        duration_s = 10
        [[regions]]
        name = "europe"
        delay_ms = 100
        zone_h = 1
        [[site_groups]]
        name = "eu"
        count = 40
        nodes = 5
        wan_mbit = [10, 50]
        wan_up_percent = 20
        lan_mbit = 1000
        wan_delay_ms = [10, 30]
        region = "europe"
        [[releases]]
        version = "1.0"
        pack_mib = 1
        carrier_mib = 1
        [rollout]
        lease_ttl_s = 60
        waves = [{ name = "all", success_percent = 95, sample = 1, soak_s = 1 }]
    "#;

    #[test]
    fn a_group_draws_its_sites_from_the_seed() {
        let mut scenario = Scenario::parse(GROUPS).expect("a scenario");
        let sites = scenario.all_sites();
        assert_eq!((sites.len(), scenario.nodes()), (40, 200));
        let rates: Vec<u64> = sites.iter().map(|s| s.wan_mbit).collect();
        assert!(rates.iter().all(|r| (10..=50).contains(r)), "{rates:?}");
        assert!(rates.iter().any(|r| *r != rates[0]), "{rates:?}");
        assert!(sites.iter().all(|s| s.up_mbit() == s.wan_mbit / 5));
        let far = |s: &SiteSpec| (110..=130).contains(&s.wan_delay_ms) && s.zone_h == Some(1);
        assert!(sites.iter().all(far));
        assert_eq!(sites[39].name, "eu-40");
        scenario.seed = 2;
        let other: Vec<u64> = scenario.all_sites().iter().map(|s| s.wan_mbit).collect();
        assert_ne!(rates, other);
        scenario.spread(50);
        assert_eq!((scenario.all_sites().len(), scenario.nodes()), (10, 50));
    }
}
