//! Sites, and the rules for foreign machines, as people write them: `sites.toml`.
//!
//! A rate is an absolute one (`20mbit`), a part of the declared link (`30%` of `link_down`), or `none`.
//! Parts are worked out here, so that the signed topology says bytes a second and nothing else.

use std::path::Path;

use anyhow::{Context, bail};
use protocol::SiteId;
use protocol::filter::Filter;
use protocol::foreign::{Demand, ForeignRule};
use protocol::hours::Hours;
use protocol::limits::SITES_MAX;
use protocol::schedule::{RateHours, Schedule};
use protocol::topology::{NodeRates, Site, Subnet};
use protocol::zones::Zone;
use serde::Deserialize;

use super::units;

/// Sites as people write them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SitesFile {
    #[serde(default)]
    site: Vec<SiteFile>,
    #[serde(default)]
    foreign: Vec<ForeignFile>,
}

/// A rule for machines that report and are no nodes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForeignFile {
    name: String,
    require: Option<Filter>,
    product: Option<SiteId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteFile {
    id: SiteId,
    subnets: Vec<Subnet>,
    parent: Option<SiteId>,
    /// What the line carries, for parts of it.
    link_down: Option<String>,
    link_up: Option<String>,
    wan_down: Option<String>,
    wan_up: Option<String>,
    /// Caps on each of its nodes.
    node_lan_down: Option<String>,
    node_lan_up: Option<String>,
    node_wan_down: Option<String>,
    node_wan_up: Option<String>,
    #[serde(default)]
    relay: bool,
    #[serde(default = "yes")]
    peers: bool,
    zone: Option<String>,
    #[serde(default)]
    hours: Vec<HoursFile>,
}

/// Rates of certain hours; what is not said is as at other times.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoursFile {
    at: String,
    wan_down: Option<String>,
    wan_up: Option<String>,
}

fn yes() -> bool {
    true
}

/// The sites of a file, and the rules for foreign machines.
///
/// # Errors
/// What is wrong with it, with the site's name.
pub fn read_sites(path: &Path) -> anyhow::Result<(Vec<Site>, Vec<ForeignRule>)> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let file: SitesFile = toml::from_str(&text).with_context(|| path.display().to_string())?;
    if file.site.len() > SITES_MAX {
        bail!("{} has more than {SITES_MAX} sites", path.display());
    }
    let of = |site: SiteFile| {
        let id = site.id.clone();
        site.meant()
            .map_err(|why| anyhow::anyhow!("site {id}: {why}"))
    };
    let sites = file.site.into_iter().map(of).collect::<Result<_, _>>()?;
    let rules = file.foreign.into_iter().map(ForeignFile::meant);
    Ok((sites, rules.collect::<Result<_, _>>()?))
}

impl ForeignFile {
    fn meant(self) -> anyhow::Result<ForeignRule> {
        let demand = match (self.require, self.product) {
            (Some(filter), None) => Demand::Require(filter),
            (None, Some(product)) => Demand::Product(product),
            _ => bail!(
                "rule {:?} for foreign machines: say either require or product",
                self.name
            ),
        };
        Ok(ForeignRule {
            name: self.name,
            demand,
        })
    }
}

impl SiteFile {
    fn meant(self) -> Result<Site, String> {
        let link = |text: Option<&String>| match text {
            None => Ok(None),
            Some(text) => units::rate(text).map(|rate| rate.0),
        };
        let (down, up) = (link(self.link_down.as_ref())?, link(self.link_up.as_ref())?);
        let own = [
            rate(self.wan_down.as_deref(), down, "link_down", None)?,
            rate(self.wan_up.as_deref(), up, "link_up", None)?,
        ];
        let lan = |text: &Option<String>| match text.as_deref() {
            Some(text) if text.ends_with('%') => Err(format!(
                "{text:?} of a LAN is not known; say a rate, such as 100mbit"
            )),
            text => rate(text, None, "", None),
        };
        let node = NodeRates {
            lan_down_bytes_per_s: lan(&self.node_lan_down)?,
            lan_up_bytes_per_s: lan(&self.node_lan_up)?,
            wan_down_bytes_per_s: rate(self.node_wan_down.as_deref(), down, "link_down", None)?,
            wan_up_bytes_per_s: rate(self.node_wan_up.as_deref(), up, "link_up", None)?,
        };
        let hours = self.hours.iter().map(|hours| {
            Ok(RateHours {
                hours: hours.at.parse::<Hours>()?,
                wan_down_bytes_per_s: rate(hours.wan_down.as_deref(), down, "link_down", own[0])?,
                wan_up_bytes_per_s: rate(hours.wan_up.as_deref(), up, "link_up", own[1])?,
            })
        });
        let hours: Vec<RateHours> = hours.collect::<Result<_, String>>()?;
        let schedule = match (hours.is_empty(), self.zone) {
            (true, _) => None,
            (false, None) => return Err("its hours need a zone, such as Europe/Berlin".into()),
            (false, Some(zone)) => Some(Schedule {
                zone: zone.parse::<Zone>()?,
                hours,
            }),
        };
        if let Some(schedule) = &schedule {
            schedule.check()?;
            if schedule.clock().is_none() {
                let zone = &schedule.zone;
                return Err(format!("{zone} is no zone of the IANA database"));
            }
        }
        Ok(Site {
            id: self.id,
            subnets: self.subnets,
            parent: self.parent,
            wan_down_bytes_per_s: own[0],
            wan_up_bytes_per_s: own[1],
            relay: self.relay,
            no_peers: !self.peers,
            node,
            schedule,
        })
    }
}

/// A rate as it is written, bytes a second; `else_` if nothing is. None: no cap.
fn rate(
    text: Option<&str>,
    link: Option<u64>,
    link_name: &str,
    else_: Option<u64>,
) -> Result<Option<u64>, String> {
    match text {
        None => Ok(else_),
        Some("0") => Ok(Some(0)),
        Some(text) => match text.strip_suffix('%') {
            None => Ok(units::rate(text)?.0),
            Some(part) => {
                let wrong = || format!("{text:?} is not a part of a link, such as 30%");
                let part: u64 = part.parse().map_err(|_| wrong())?;
                let fine = (1..=100).contains(&part);
                let link = link.ok_or_else(|| format!("{text:?} of what? say {link_name}"))?;
                let rate = link / 100 * part;
                if rate < units::RATE_MIN_BYTES_PER_S {
                    return Err(format!(
                        "{text} of {link_name} is below 8kbit, the lowest rate that is kept"
                    ));
                }
                fine.then_some(Some(rate)).ok_or_else(wrong)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output;

    fn check(text: &str) -> Result<Vec<Site>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sites.toml");
        std::fs::write(&path, text).unwrap();
        let read = read_sites(&path).map_err(|e| output::one_line(&e));
        read.map(|(sites, _)| sites)
    }

    #[test]
    fn sites_are_read_as_people_write_them() {
        let sites = check(
            "[[site]]\nid = \"berlin\"\nsubnets = [\"10.1.0.0/16\", \"fd00:1::/48\"]\nwan_down = \"20mbit\"\n\
             [[site]]\nid = \"kiosk\"\nsubnets = [\"10.1.7.0/24\"]\nparent = \"berlin\"\npeers = false\n",
        )
        .unwrap();
        assert_eq!(sites[0].wan_down_bytes_per_s, Some(2_500_000));
        assert_eq!((sites[0].no_peers, &sites[0].schedule), (false, &None));
        assert_eq!(sites[1].parent.as_ref().unwrap().as_str(), "berlin");
        assert!(sites[1].no_peers);
    }

    #[test]
    fn hours_have_rates_of_their_own_and_parts_are_of_the_link() {
        let sites = check(
            "[[site]]\nid = \"berlin\"\nsubnets = []\nlink_down = \"40mbit\"\nwan_down = \"75%\"\nwan_up = \"1mbit\"\n\
             zone = \"europe/berlin\"\n\
             [[site.hours]]\nat = \"mon-fri 08:00-18:00\"\nwan_down = \"10%\"\nwan_up = \"0\"\n\
             [[site.hours]]\nat = \"daily 01:00-05:00\"\nwan_down = \"none\"\n",
        )
        .unwrap();
        let schedule = sites[0].schedule.as_ref().unwrap();
        let rates = |n: usize| {
            let hours = &schedule.hours[n];
            (hours.wan_down_bytes_per_s, hours.wan_up_bytes_per_s)
        };
        assert_eq!(sites[0].wan_down_bytes_per_s, Some(3_750_000));
        assert_eq!(rates(0), (Some(500_000), Some(0)));
        assert_eq!(rates(1), (None, Some(125_000)));
    }

    #[test]
    fn each_node_may_be_capped_on_lan_and_wan_both_ways() {
        let sites = check(
            "[[site]]\nid = \"berlin\"\nsubnets = []\nlink_up = \"8mbit\"\nnode_lan_down = \"100mbit\"\n\
             node_lan_up = \"50mbit\"\nnode_wan_up = \"10%\"\n[[site]]\nid = \"kiosk\"\nsubnets = []\n",
        )
        .unwrap();
        let rates = NodeRates {
            lan_down_bytes_per_s: Some(12_500_000),
            lan_up_bytes_per_s: Some(6_250_000),
            wan_down_bytes_per_s: None,
            wan_up_bytes_per_s: Some(100_000),
        };
        assert_eq!(sites[0].node, rates);
        assert!(sites[1].node.is_none());
    }

    #[test]
    fn what_is_wrong_with_a_sites_file_is_said() {
        for (lines, what) in [
            ("subnets = [\"10.1/16\"]", "10.1/16"),
            ("subnets = []\nwan_down = \"fast\"", "site x"),
            ("subnet = []", "subnet"),
            ("subnets = []\nwan_down = \"30%\"", "say link_down"),
            ("subnets = []\nnode_lan_up = \"30%\"", "say a rate"),
            (
                "subnets = []\nlink_down = \"1mbit\"\nwan_down = \"101%\"",
                "part of a link",
            ),
            (
                "subnets = []\nlink_down = \"64kbit\"\nwan_down = \"1%\"",
                "below 8kbit",
            ),
            (
                "subnets = []\n[[site.hours]]\nat = \"daily 01:00-02:00\"",
                "need a zone",
            ),
            (
                "subnets = []\nzone = \"Mars/Olympus\"\n[[site.hours]]\nat = \"daily 01:00-02:00\"",
                "Mars/Olympus",
            ),
            (
                "subnets = []\nzone = \"UTC\"\n[[site.hours]]\nat = \"01:00-02:00\"",
                "days, then times",
            ),
        ] {
            let error = check(&format!("[[site]]\nid = \"x\"\n{lines}\n")).unwrap_err();
            assert!(error.contains(what), "{lines}: {error}");
        }
    }

    #[test]
    fn rules_for_foreign_machines_ask_for_one_thing_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sites.toml");
        let rules = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let read = read_sites(&path).map_err(|e| output::one_line(&e));
            read.map(|(_, rules)| rules)
        };
        let found = rules(
            "[[foreign]]\nname = 'a'\nrequire = 'os=linux'\n[[foreign]]\nname = 'b'\nproduct = 'app'\n",
        );
        let found = found.unwrap();
        assert_eq!(
            found[0].demand,
            Demand::Require("os=linux".parse().unwrap())
        );
        assert_eq!(found[1].demand, Demand::Product("app".parse().unwrap()));
        for wrong in [
            "[[foreign]]\nname = 'a'\n",
            "[[foreign]]\nname = 'a'\nrequire = 'os=linux'\nproduct = 'app'\n",
        ] {
            assert!(
                rules(wrong)
                    .unwrap_err()
                    .contains("either require or product")
            );
        }
        let error = rules("[[foreign]]\nname = 'a'\nrequire = 'colour=red'\n").unwrap_err();
        assert!(error.contains("colour"), "{error}");
    }
}
