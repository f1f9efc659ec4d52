//! What the topology's rules say of a machine that is no node, by what it claims of itself.
//!
//! A verdict is worked out from claims, rules and releases, and nothing follows from it here: no event, no
//! order, no count. A product's current release is the newest that a rollout brought to its end and that was
//! not taken back, so that nobody is asked for what is still being tried.

use core::net::IpAddr;

use protocol::SiteId;
use protocol::filter::version_order;
use protocol::foreign::{Demand, Finding, ForeignInventory, ForeignRule, Judged};
use protocol::inventory::Subject;
use protocol::manifest::ReleaseManifest;

use crate::conductor::Conductor;
use crate::contract::RolloutState;

impl Conductor {
    /// The site of a foreign machine that reported from `address`: the topology's word, else the one that
    /// its token was made for.
    pub fn foreign_site(&self, address: IpAddr, meant: Option<&SiteId>) -> Option<SiteId> {
        let found = self.topology().and_then(|t| t.site_of(address));
        found.map(|site| &site.id).or(meant).cloned()
    }

    /// What each rule in force says of such a machine, in the order of the topology.
    pub fn judge_foreign(&self, site: Option<&SiteId>, said: &ForeignInventory) -> Vec<Judged> {
        let rules = self.topology().map_or(&[][..], |t| &t.foreign);
        judge(rules, |product| self.current_release(product), site, said)
    }

    fn current_release(&self, product: &SiteId) -> Option<&ReleaseManifest> {
        use RolloutState as S;
        let of = |states: &'static [S]| {
            let those = self.rollouts.values();
            those
                .filter(move |r| states.contains(&r.state))
                .map(|r| r.plan.release)
        };
        let back: Vec<_> = of(&[S::Recalling, S::Recalled]).collect();
        let through = of(&[S::Finished]).filter(|release| !back.contains(release));
        let held = through.filter_map(|release| self.releases.get(&release));
        let of_product = held
            .map(|held| &held.value)
            .filter(|r| r.product == *product);
        of_product.max_by_key(|r| r.release_counter)
    }
}

/// What each rule says of a machine. `current` is the release of a product that machines should have.
fn judge<'r>(
    rules: &[ForeignRule],
    current: impl Fn(&SiteId) -> Option<&'r ReleaseManifest>,
    site: Option<&SiteId>,
    said: &ForeignInventory,
) -> Vec<Judged> {
    let subject = Subject {
        site,
        labels: &said.labels,
        attributes: &said.attributes,
    };
    let word = |rule: &ForeignRule| {
        let (finding, why) = match &rule.demand {
            Demand::Require(filter) if filter.matches(&subject) => (Finding::Met, String::new()),
            Demand::Require(filter) => (Finding::Unmet, format!("it does not fit {filter}")),
            Demand::Product(product) => has(product, current(product), &subject, said),
        };
        Judged {
            rule: rule.name.clone(),
            finding,
            why,
        }
    };
    rules.iter().map(word).collect()
}

fn has(
    product: &SiteId,
    current: Option<&ReleaseManifest>,
    subject: &Subject<'_>,
    said: &ForeignInventory,
) -> (Finding, String) {
    let Some(release) = current else {
        let why = format!("no release of {product} is through a rollout");
        return (Finding::NotApplicable, why);
    };
    let version = release.version.as_str();
    let [os, arch] = ["os", "arch"].map(|name| subject.value(name).unwrap_or_default());
    let meant = release.applicability.as_ref();
    if release.artifact_for(os, arch).is_none() || !meant.is_none_or(|f| f.matches(subject)) {
        return (
            Finding::NotApplicable,
            format!("{product} {version} is not for it"),
        );
    }
    match said.software.get(product.as_str()) {
        Some(held) if version_order(held, version).is_ge() => (Finding::Met, String::new()),
        Some(held) => {
            let why = format!("{product} {version} or later is needed, it has {held}");
            (Finding::Unmet, why)
        }
        None => (
            Finding::Unmet,
            format!("{product} {version} or later is missing"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::fixtures::{Fleet, site};
    use protocol::foreign::complies;

    fn said(attributes: &[(&str, &str)], software: &[(&str, &str)]) -> ForeignInventory {
        let own = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
            pairs.collect()
        };
        ForeignInventory {
            attributes: own(attributes),
            software: own(software),
            ..ForeignInventory::default()
        }
    }

    fn rule(demand: Demand) -> ForeignRule {
        ForeignRule {
            name: "rule".into(),
            demand,
        }
    }

    /// What one rule says of a machine in site s1.
    fn check(
        demand: Demand,
        of: &ForeignInventory,
        current: Option<&ReleaseManifest>,
    ) -> (Finding, String) {
        let s1 = site("s1");
        let mut said = judge(&[rule(demand)], |_| current, Some(&s1), of);
        let one = said.pop().expect("a word for each rule");
        (one.finding, one.why)
    }

    const LINUX: [(&str, &str); 3] = [("os", "linux"), ("arch", "x86_64"), ("os.version", "12.9")];

    #[test]
    fn a_filter_asks_for_what_the_machine_says_and_where_it_is() {
        let machine = said(&LINUX, &[]);
        let ask = |filter: &str| check(Demand::Require(filter.parse().unwrap()), &machine, None);
        for met in [
            "os.version>=12.9",
            "site=s1",
            "not label.kiosk",
            "os.name!=debian",
        ] {
            assert_eq!(ask(met), (Finding::Met, String::new()), "{met}");
        }
        for unmet in [
            "os.version>=12.10",
            "site=s2",
            "label.kiosk",
            "os.name=debian",
        ] {
            let (finding, why) = ask(unmet);
            assert_eq!(finding, Finding::Unmet, "{unmet}");
            assert!(why.contains(unmet), "{why}");
        }
    }

    #[test]
    fn a_product_is_asked_for_where_its_current_release_is_for_the_machine() {
        let mut release = Fleet::new(1).release("app", "2.0", 7);
        release.applicability = Some("os.version>=12".parse().unwrap());
        let ask = |of: &ForeignInventory, current| check(Demand::Product(site("app")), of, current);
        let (finding, why) = ask(&said(&LINUX, &[]), None);
        assert_eq!(finding, Finding::NotApplicable);
        assert!(why.contains("no release of app"), "{why}");
        let rows = [
            (vec![], Finding::Unmet),
            (vec![("app", "1.9")], Finding::Unmet),
            (vec![("application", "2.0")], Finding::Unmet),
            (vec![("app", "2.0")], Finding::Met),
            (vec![("app", "2.0.1")], Finding::Met),
            (vec![("app", "10")], Finding::Met),
        ];
        for (software, finding) in rows {
            let (found, why) = ask(&said(&LINUX, &software), Some(&release));
            assert_eq!(found, finding, "{software:?}: {why}");
            assert_eq!(why.is_empty(), finding == Finding::Met);
        }
        let old = said(
            &[("os", "linux"), ("arch", "x86_64"), ("os.version", "11")],
            &[],
        );
        assert_eq!(ask(&old, Some(&release)).0, Finding::NotApplicable);
        let mut elsewhere = release.clone();
        elsewhere.artifacts[0].os = "windows".into();
        assert_eq!(
            ask(&said(&LINUX, &[]), Some(&elsewhere)).0,
            Finding::NotApplicable
        );
    }

    proptest! {
        /// Whatever a machine claims, each rule has its one word, and one that is not met is enough.
        #[test]
        fn every_rule_has_a_word_whatever_is_claimed(
            attributes in prop::collection::btree_map(".{0,12}", ".{0,12}", 0..8),
            software in prop::collection::btree_map("(app|.{0,6})", ".{0,12}", 0..8),
        ) {
            let release = Fleet::new(1).release("app", "2.0", 7);
            let rules = [
                rule(Demand::Require("os.version>=12 or label.x".parse().unwrap())),
                rule(Demand::Product(site("app"))),
            ];
            let inventory = ForeignInventory { attributes, software, ..Default::default() };
            let found = judge(&rules, |_| Some(&release), None, &inventory);
            prop_assert_eq!(found.len(), rules.len());
            let unmet = found.iter().any(|word| word.finding == Finding::Unmet);
            prop_assert_eq!(complies(&found), !unmet);
            for word in &found {
                prop_assert_eq!(word.why.is_empty(), word.finding == Finding::Met);
            }
        }
    }
}
