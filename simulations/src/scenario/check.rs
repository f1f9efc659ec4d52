//! What cannot be is refused, with the field and what it may be.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use protocol::zones::Clock;

use super::{Cut, CutSpec, How, Length, Region, ReleaseSpec, Scenario, SiteSpec, WaveSpec};

/// Waves of one release; the plan has the same limit.
const WAVES_MAX: usize = protocol::limits::WAVES_MAX;
/// Sites of a scenario: each has a range of addresses of its own.
const SITES_MAX: usize = 4096;
/// Nodes of a site.
const NODES_OF_SITE_MAX: u32 = 4000;
/// Kinds of anything else that a scenario lists.
const LIST_MAX: usize = 64;
/// Seconds that a world lasts at most: a year.
const DURATION_MAX_S: u64 = 366 * 86_400;

/// Refuses a scenario that cannot be.
pub(super) fn check(s: &Scenario) -> Result<()> {
    let grouped: u64 = s.site_groups.iter().map(|g| u64::from(g.count)).sum();
    ensure!(
        (1..=SITES_MAX as u64).contains(&(s.sites.len() as u64 + grouped)),
        "a scenario has 1 to {SITES_MAX} sites"
    );
    ensure!(
        !s.releases.is_empty() && !s.rollout.waves.is_empty(),
        "a scenario has releases and waves"
    );
    ensure!(
        (1..=DURATION_MAX_S).contains(&s.duration_s),
        "duration_s lies between 1 and {DURATION_MAX_S}"
    );
    let lists = [
        ("releases", s.releases.len()),
        ("regions", s.regions.len()),
        ("attributes", s.attributes.len()),
        ("liars", s.liars.len()),
        ("operators", s.operators.len()),
        ("faults.cuts", s.faults.cuts.len()),
    ];
    if let Some((list, many)) = lists.iter().find(|(_, many)| *many > LIST_MAX) {
        bail!("{list} has {many} entries; it may have {LIST_MAX}");
    }
    let regions = unique("region", s.regions.iter().map(|r| r.name.as_str()))?;
    s.regions.iter().try_for_each(region)?;
    for (name, region) in s
        .sites
        .iter()
        .map(|s| (&s.name, &s.region))
        .chain(s.site_groups.iter().map(|g| (&g.name, &g.region)))
    {
        let named = region.as_ref();
        named
            .map_or(Ok(()), |region| known("region", region, &regions))
            .with_context(|| format!("site {name}"))?;
    }
    let all = s.all_sites();
    let sites = unique("site", all.iter().map(|s| s.name.as_str()))?;
    all.iter().try_for_each(site)?;
    machines(s, &sites)?;
    waves("rollout.waves", &s.rollout.waves, s, &sites)?;
    ensure!(
        s.rollout.lease_ttl_s > 0,
        "rollout.lease_ttl_s is at least 1"
    );
    s.rollout.constraints.check()?;
    test(s)?;
    for one in &s.releases {
        let name = one.full_name();
        release(one, s, &sites).with_context(|| format!("release {name}"))?;
    }
    unique_owned("release", s.releases.iter().map(ReleaseSpec::full_name))?;
    operators(s)?;
    faults(s, &sites)
}

fn region(region: &Region) -> Result<()> {
    zone(&region.name, region.zone_h)
}

fn zone(place: &str, zone_h: i32) -> Result<()> {
    ensure!(
        (-12..=14).contains(&zone_h),
        "{place}: zone_h lies between -12 and 14"
    );
    Ok(())
}

fn site(site: &SiteSpec) -> Result<()> {
    let name = &site.name;
    ensure!(
        site.wan_mbit > 0 && site.lan_mbit > 0 && site.up_mbit() > 0,
        "site {name} has a link without rate"
    );
    ensure!(
        site.nodes <= NODES_OF_SITE_MAX,
        "site {name} has over {NODES_OF_SITE_MAX} nodes"
    );
    name.parse::<protocol::SiteId>()
        .with_context(|| format!("site name {name:?}"))?;
    zone(name, site.zone_h.unwrap_or(0))?;
    if let Some(clock) = &site.clock {
        ensure!(
            Clock::of(clock).is_some(),
            "site {name}: clock {clock:?} is no zone of the IANA database"
        );
    }
    for hours in &site.schedule {
        ensure!(
            hours.from_h <= 24 && hours.to_h <= 24 && hours.from_h != hours.to_h,
            "site {name}: schedule: from_h and to_h differ and lie between 0 and 24"
        );
        percent(&format!("site {name}: schedule: percent"), hours.percent)?;
    }
    Ok(())
}

fn machines(s: &Scenario, sites: &BTreeSet<String>) -> Result<()> {
    for (attribute, shares) in &s.attributes {
        ensure!(
            attribute != "form",
            "attribute form is the laptops'; name it otherwise"
        );
        ensure!(
            shares.values().map(|n| u64::from(*n)).sum::<u64>() > 0,
            "attributes.{attribute} has no value with a share"
        );
    }
    length("machines.boot_s", &s.machines.boot_s)?;
    length("machines.restart_s", &s.machines.restart_s)?;
    length("machines.skew_s", &s.machines.skew_s)?;
    percent("machines.full_disk_percent", s.machines.full_disk_percent)?;
    percent("machines.skewed_percent", s.machines.skewed_percent)?;
    if let Some(laptops) = &s.laptops {
        percent("laptops.percent", laptops.percent)?;
        percent("laptops.abrupt_percent", laptops.abrupt_percent)?;
        ensure!(
            laptops.on_h < 24 && laptops.off_h < 24 && laptops.on_h != laptops.off_h,
            "laptops.on_h and laptops.off_h differ and lie between 0 and 23"
        );
        ensure!(
            laptops.spread_min <= 120,
            "laptops.spread_min lies between 0 and 120"
        );
    }
    if let Some(churn) = &s.churn {
        ensure!(
            churn.percent_per_hour <= 6_000,
            "churn.percent_per_hour lies between 0 and 6000"
        );
        length("churn.away_s", &churn.away_s)?;
    }
    for liars in &s.liars {
        percent("liars.percent", liars.percent)?;
        for site in &liars.sites {
            known("site", site, sites).context("liars.sites")?;
        }
    }
    Ok(())
}

fn waves(field: &str, waves: &[WaveSpec], s: &Scenario, sites: &BTreeSet<String>) -> Result<()> {
    ensure!(
        waves.len() <= WAVES_MAX,
        "{field} has at most {WAVES_MAX} entries"
    );
    for wave in waves {
        let name = &wave.name;
        wave.selector()?;
        percent(
            &format!("wave {name}: success_percent"),
            wave.success_percent,
        )?;
        percent(
            &format!("wave {name}: percent"),
            wave.percent.unwrap_or(100),
        )?;
        if let Some(site) = &wave.site {
            known("site", site, sites).with_context(|| format!("wave {name}"))?;
        }
        if let Some((key, value)) = wave.label.as_ref().and_then(|l| l.split_once('=')) {
            attribute(key, value, s).with_context(|| format!("wave {name}"))?;
        }
    }
    Ok(())
}

fn test(s: &Scenario) -> Result<()> {
    let Some(test) = &s.rollout.test else {
        return Ok(());
    };
    test.test().context("rollout.test")?;
    let mut pairs = test.pairs().flatten();
    pairs
        .try_for_each(|(key, value)| attribute(key, value, s))
        .context("rollout.test.cohorts")
}

fn release(release: &ReleaseSpec, s: &Scenario, sites: &BTreeSet<String>) -> Result<()> {
    ensure!(
        release.pack_mib > 0 && release.carrier_mib > 0,
        "a release has no bytes"
    );
    percent("sick_percent", release.sick_percent)?;
    let lengths = [
        ("install_s", release.install_s),
        ("restart_s", release.restart_s),
    ];
    for (field, one) in lengths {
        one.map_or(Ok(()), |l| length(field, &l))?;
    }
    for site in &release.sites {
        known("site", site, sites).context("sites")?;
    }
    waves("waves", &release.waves, s, sites)?;
    for failure in &release.failures {
        percent("failures.percent", failure.percent)?;
        for (key, value) in &failure.cohort {
            attribute(key, value, s).context("failures.cohort")?;
        }
        match (failure.how, &failure.after_s) {
            (How::Latent, Some(after)) => length("failures.after_s", after)?,
            (How::Latent, None) => bail!("failures: a latent failure says after_s"),
            (_, Some(_)) => bail!("failures: only a latent failure says after_s"),
            (_, None) => {}
        }
    }
    Ok(())
}

fn operators(s: &Scenario) -> Result<()> {
    for one in &s.operators {
        let name = &one.release;
        let meant = s
            .releases
            .iter()
            .filter(|r| one.means(&r.product, &r.version));
        ensure!(
            meant.count() == 1,
            "operators: release {name:?} is not one of {}",
            listed(s.releases.iter().map(ReleaseSpec::full_name))
        );
        let conditions = [
            one.at_s.is_some(),
            one.when_applied.is_some(),
            one.when_failed.is_some(),
            one.when_wave.is_some(),
        ];
        ensure!(
            conditions.iter().filter(|c| **c).count() == 1,
            "operators: release {name:?} wants one of at_s, when_applied, when_failed and when_wave"
        );
    }
    Ok(())
}

fn faults(s: &Scenario, sites: &BTreeSet<String>) -> Result<()> {
    let parts = [
        ("gossip_loss_ppm", s.faults.gossip_loss_ppm),
        ("gossip_duplicate_ppm", s.faults.gossip_duplicate_ppm),
        ("request_loss_ppm", s.faults.request_loss_ppm),
    ];
    if let Some((field, _)) = parts.iter().find(|(_, ppm)| *ppm > 1_000_000) {
        bail!("faults.{field} lies between 0 and 1000000");
    }
    s.faults.cuts.iter().try_for_each(|one| cut(one, sites))
}

fn cut(cut: &CutSpec, sites: &BTreeSet<String>) -> Result<()> {
    ensure!(
        cut.from_s < cut.to_s,
        "faults.cuts: to_s comes after from_s"
    );
    match (cut.what, &cut.site, cut.percent) {
        (Cut::Wan | Cut::Lan, Some(site), None) => {
            known("site", site, sites).context("faults.cuts")
        }
        (Cut::Wan | Cut::Lan, None, Some(share)) => percent("faults.cuts: percent", share),
        (Cut::Wan | Cut::Lan, ..) => {
            bail!("faults.cuts: a cut wan or lan says either site or percent")
        }
        (_, None, None) => Ok(()),
        _ => bail!("faults.cuts: a cut coordinator or origin says neither site nor percent"),
    }
}

// ---- words ---------------------------------------------------------------------------------------

fn percent(field: &str, value: u32) -> Result<()> {
    ensure!(value <= 100, "{field} lies between 0 and 100");
    Ok(())
}

fn length(field: &str, length: &Length) -> Result<()> {
    length
        .fault()
        .map_or(Ok(()), |fault| bail!("{field}: {fault}"))
}

fn attribute(key: &str, value: &str, s: &Scenario) -> Result<()> {
    if key == "form" && s.laptops.is_some() {
        let forms = ["desktop".to_owned(), "laptop".to_owned()].into();
        return known("form", value, &forms);
    }
    let keys = s.attributes.keys().cloned().collect();
    known("attribute", key, &keys)?;
    known(key, value, &s.attributes[key].keys().cloned().collect())
}

fn known(what: &str, name: &str, all: &BTreeSet<String>) -> Result<()> {
    ensure!(
        all.contains(name),
        "{what} {name:?} is not one of {}",
        listed(all.iter().cloned())
    );
    Ok(())
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    match names.len() {
        0 => "none at all".into(),
        1..=12 => names.join(", "),
        n => format!("{}, … ({n} of them)", names[..12].join(", ")),
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<BTreeSet<String>> {
    unique_owned(what, names.map(str::to_owned))
}

fn unique_owned(what: &str, names: impl Iterator<Item = String>) -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    for name in names {
        ensure!(seen.insert(name.clone()), "{what} {name} stands twice");
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = r#"
name = "checked"
seed = 1
duration_s = 900
regions = [{ name = "asia", delay_ms = 100, zone_h = 9 }]
sites = [{ name = "a", nodes = 4, wan_mbit = 20, lan_mbit = 1000, wan_delay_ms = 10, region = "asia" }]
attributes = { model = { x1 = 1, x2 = 3 } }
laptops = { percent = 20, on_h = 8, off_h = 18 }
churn = { percent_per_hour = 10, away_s = 60, until_s = 600 }
liars = [{ how = "stall", percent = 10, sites = ["a"] }]
operators = [{ do = "pause", release = "1.0", at_s = 60 }]
machines = { full_disk_percent = 1, skewed_percent = 1, skew_s = 60 }
rollout = { lease_ttl_s = 60, waves = [{ name = "all", label = "model=x1", success_percent = 95, sample = 1, soak_s = 1 }] }
faults = { crashes = 1, cuts = [{ what = "wan", site = "a", from_s = 1, to_s = 2 }] }

[[releases]]
version = "1.0"
pack_mib = 2
carrier_mib = 1
failures = [{ how = "latent", percent = 10, cohort = { model = "x1" }, after_s = 60 }]
"#;

    fn refused(from: &str, to: &str) -> String {
        assert!(WORLD.contains(from), "{from}");
        let error = Scenario::parse(&WORLD.replace(from, to)).expect_err(to);
        format!("{error:#}")
    }

    #[test]
    fn the_whole_language_is_understood() {
        Scenario::parse(WORLD).expect("a scenario");
    }

    #[test]
    fn what_cannot_be_is_refused_by_field_and_with_what_it_may_be() {
        let cases = [
            (
                "duration_s = 900",
                "duration_s = 0",
                "duration_s lies between 1 and",
            ),
            (
                "region = \"asia\"",
                "region = \"asla\"",
                "site a: region \"asla\" is not one of asia",
            ),
            (
                "zone_h = 9",
                "zone_h = 99",
                "asia: zone_h lies between -12 and 14",
            ),
            (
                "x1 = 1, x2 = 3",
                "x1 = 0",
                "attributes.model has no value with a share",
            ),
            (
                "on_h = 8",
                "on_h = 18",
                "laptops.on_h and laptops.off_h differ",
            ),
            (
                "percent_per_hour = 10",
                "percent_per_hour = 6001",
                "churn.percent_per_hour lies",
            ),
            (
                "how = \"stall\"",
                "how = \"stal\"",
                "expected one of `wrong_bytes`, `stall`",
            ),
            (
                "sites = [\"a\"]",
                "sites = [\"b\"]",
                "liars.sites: site \"b\" is not one of a",
            ),
            (
                "do = \"pause\"",
                "do = \"stop\"",
                "expected one of `pause`, `resume`, `halt`, `recall`",
            ),
            (
                "release = \"1.0\"",
                "release = \"2.0\"",
                "release \"2.0\" is not one of app@1.0",
            ),
            (
                "at_s = 60",
                "at_s = 60, when_failed = 1",
                "wants one of at_s, when_applied",
            ),
            (
                "full_disk_percent = 1,",
                "full_disk_percent = 101,",
                "full_disk_percent lies between 0 and 100",
            ),
            (
                "skew_s = 60",
                "skew_s = -1",
                "machines.skew_s: seconds lie between",
            ),
            (
                "away_s = 60",
                "away_s = { median_s = 1 }",
                "{ median_s, p99_s }",
            ),
            (
                "label = \"model=x1\"",
                "label = \"model=x3\"",
                "wave all: model \"x3\" is not one of x1, x2",
            ),
            (
                "label = \"model=x1\"",
                "label = \"x1\"",
                "label \"x1\" is not written name=value",
            ),
            (
                "label = \"model=x1\"",
                "label = \"model=x1\", count = 1",
                "more than one of count, percent",
            ),
            (
                "site = \"a\", from_s",
                "from_s",
                "a cut wan or lan says either site or percent",
            ),
            ("to_s = 2", "to_s = 1", "to_s comes after from_s"),
            (
                "what = \"wan\"",
                "what = \"origin\"",
                "says neither site nor percent",
            ),
            (
                ", after_s = 60",
                "",
                "release app@1.0: failures: a latent failure says after_s",
            ),
            (
                "how = \"latent\"",
                "how = \"silent\"",
                "only a latent failure says after_s",
            ),
            (
                "cohort = { model",
                "cohort = { modell",
                "attribute \"modell\" is not one of model",
            ),
            ("crashes = 1", "crash = 1", "unknown field `crash`"),
        ];
        for (from, to, expected) in cases {
            let error = refused(from, to);
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
