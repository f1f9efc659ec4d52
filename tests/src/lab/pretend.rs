//! A scenario of the lab in the pretend world: the same sites, links and bytes, and the same brains,
//! with everything below them simulated. How far the two are apart is how far the simulator can be
//! believed.

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::report::Report;
use super::scenario::{Play, Scenario};

/// Of a link's bits, so many of a hundred carry payload in QUIC's datagrams of 1,452 bytes: Ethernet,
/// IP, UDP, QUIC and TLS take the rest, and acknowledgements a little. The simulator moves payload only.
const PAYLOAD_PERCENT: u64 = 95;
/// One way between hosts of the lab that are not made far, in milliseconds: nothing but the kernel.
const NEAR_MS: u64 = 1;
/// A host's link in Mbit/s where the lab does not shape it.
const UNSHAPED_MBIT: u64 = 10_000;

/// A site in both worlds.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Its number.
    pub site: usize,
    /// Seconds until its last node had every byte, in the lab.
    pub lab_s: f64,
    /// The same in the simulator.
    pub simulated_s: f64,
    /// The simulator's over the lab's.
    pub time_ratio: f64,
    /// Copies over its WAN in the lab.
    pub lab_copies: f64,
    /// The same in the simulator.
    pub simulated_copies: f64,
    /// The simulator's over the lab's.
    pub copies_ratio: f64,
}

/// The scenario as the simulator reads it.
///
/// # Errors
/// When the simulator has no words for it.
pub fn scenario(scenario: &Scenario) -> Result<simulations::Scenario> {
    if scenario.owner_kills + scenario.goings + scenario.cuts > 0 {
        bail!(
            "{}: the simulator's faults come by the clock, the lab's by the bytes; compare another",
            scenario.name
        );
    }
    if scenario.play != Play::Distribution {
        bail!(
            "{}: nobody else is on the simulator's links; compare another",
            scenario.name
        );
    }
    let mib = scenario.payload_bytes >> 20;
    let mut text = format!(
        "name = \"{}\"\nseed = 1\nduration_s = {}\n",
        scenario.name,
        scenario.patience_s + 60
    );
    for (number, site) in scenario.sites.iter().enumerate() {
        if site.liars > 0 {
            bail!(
                "{}: those who lie are drawn otherwise in the simulator; compare another",
                scenario.name
            );
        }
        if site.loss_ppm > 0 {
            bail!(
                "{}: flows of the simulator lose no packets; compare another",
                scenario.name
            );
        }
        let (Some(down), Some(up), None) = (site.down, site.up, site.lan.or(scenario.origin_up))
        else {
            bail!(
                "{}: only sites whose WAN alone is narrow are compared; compare another",
                scenario.name
            );
        };
        let (wan, up) = (mbit(down)?, mbit(up)?);
        let delay = NEAR_MS + u64::from(site.delay_ms);
        text += &format!(
            "[[sites]]\nname = \"site-{}\"\nnodes = {}\nwan_mbit = {wan}\nwan_up_mbit = {up}\nlan_mbit = {UNSHAPED_MBIT}\nwan_delay_ms = {delay}\n\
             schedule = [{{ from_h = 0, to_h = 24, percent = {PAYLOAD_PERCENT} }}]\n",
            number + 1,
            site.nodes
        );
    }
    text += &format!(
        "[[releases]]\nversion = \"1\"\npack_mib = {mib}\ncarrier_mib = {mib}\n\
         [rollout]\nlease_ttl_s = 600\nwaves = [{{ name = \"rest\", success_percent = 90, sample = 1, soak_s = 1 }}]\n"
    );
    simulations::Scenario::parse(&text)
}

fn mbit(bits: u64) -> Result<u64> {
    if !bits.is_multiple_of(1_000_000) {
        bail!("{bits} bits a second: the simulator's links are of whole Mbit/s; compare another");
    }
    Ok(bits / 1_000_000)
}

/// Plays the scenario of a lab's run in the simulator and lays both side by side.
///
/// # Errors
/// When the simulator has no words for it, or its run did not end well.
pub fn compare(lab: &Scenario, report: &Report) -> Result<Vec<Compared>> {
    let simulated = simulations::play(scenario(lab)?, 1)?;
    if let Some(violation) = simulated.violations.first() {
        bail!("the simulator's run breaks a rule: {violation}");
    }
    let mut compared = Vec::new();
    for (real, pretend) in report.sites.iter().zip(&simulated.site_details) {
        let worst = pretend.makespan_worst;
        let worst =
            worst.with_context(|| format!("the simulator's {} was not completed", pretend.site))?;
        // its T_min is that of the payload's part of the link
        let seconds = worst * real.t_min * 100.0 / PAYLOAD_PERCENT as f64;
        let copies = pretend.wan_copies.first().copied().unwrap_or_default();
        compared.push(Compared {
            site: real.site,
            lab_s: real.last_s,
            simulated_s: round(seconds),
            time_ratio: round(seconds / real.last_s),
            lab_copies: real.wan_copies,
            simulated_copies: copies,
            copies_ratio: round(copies / real.wan_copies),
        });
    }
    Ok(compared)
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

/// For people.
pub fn to_text(compared: &[Compared]) -> String {
    let mut text = String::from("  the same in the simulator:\n");
    for c in compared {
        text += &format!(
            "  site {}: last {} s ({} of the lab's {} s), WAN copies {} ({} of the lab's {})\n",
            c.site,
            c.simulated_s,
            c.time_ratio,
            c.lab_s,
            c.simulated_copies,
            c.copies_ratio,
            c.lab_copies
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::scenario::named;

    #[test]
    fn the_branches_are_the_same_in_both_worlds() {
        for name in ["branch", "branches"] {
            let lab = named(name).expect("a scenario of the lab");
            let pretend = scenario(&lab).expect("the simulator has words for it");
            assert_eq!(pretend.sites.len(), lab.sites.len(), "{name}");
            for (p, l) in pretend.sites.iter().zip(&lab.sites) {
                assert_eq!(p.nodes, u32::from(l.nodes));
                assert_eq!(Some(p.wan_mbit * 1_000_000), l.down);
                assert_eq!(Some(p.up_mbit() * 1_000_000), l.up);
            }
            assert_eq!(pretend.releases[0].carrier_mib << 20, lab.payload_bytes);
        }
    }

    #[test]
    fn what_the_simulator_cannot_say_is_refused() {
        for name in [
            "pair",
            "lan",
            "branch-kills",
            "thin",
            "lossy",
            "crowd",
            "polite",
        ] {
            let lab = named(name).expect("a scenario of the lab");
            assert!(scenario(&lab).is_err(), "{name}");
        }
    }
}
