//! The lab: hosts made of network namespaces, links with real rates, and real processes in them.
//!
//! [`Scenario`] names a network and a payload; [`Network`] builds it from namespaces, veth pairs,
//! bridges and token buckets (`tbf`); [`Fleet`] runs `tidegate` and `tidegate-node` inside;
//! [`watch`] notes when each node has every byte; [`Report`] holds all that against the lower bound
//! [`bound::t_min`], [`hostile`] adds members that lie, and [`pretend`] against the same in the simulator.
//! [`courtesy`] looks at those who share the link instead, [`cap`] at every second of what a source sends,
//! [`idle`] at nodes that have nothing to do, and [`rivals`] lets other programs move the same bytes. Needs
//! root and iproute2. Whatever it makes carries the lab's process id in its name, and goes when the lab ends.

pub mod bound;
pub mod cap;
pub mod courtesy;
pub mod fleet;
pub mod foreground;
pub mod hostile;
pub mod idle;
pub mod inside;
pub mod interrupt;
pub mod line;
pub mod meter;
mod mishaps;
pub mod network;
pub mod pretend;
pub mod process;
pub mod report;
pub mod rivals;
pub mod scenario;
pub mod watch;

pub use fleet::Fleet;
pub use network::Network;
pub use report::Report;
pub use scenario::Scenario;

/// Builds the scenario's network, distributes its payload once, and says what came of it.
///
/// # Errors
/// What did not come up, or did not finish in time.
pub fn run(scenario: &Scenario) -> anyhow::Result<Report> {
    network::check_tools()?;
    interrupt::listen()?;
    let clean = clean_s(scenario)?;
    let network = Network::build(scenario)?;
    let mut fleet = Fleet::raise(scenario, &network)?;
    let release = fleet.publish(scenario)?;
    fleet.start_hostile(scenario, &network)?;
    let before = network.wan_bytes()?;
    let prepared = fleet.cpu_seconds(&network)?;
    let story = watch::roll_out(scenario, &network, &mut fleet)?;
    let after = network.wan_bytes()?;
    let crossed = before.iter().zip(after).map(|(b, a)| a - b).collect();
    let handed_out = fleet.handed_out(scenario.sites.len())?;
    let used = fleet.cpu_seconds(&network)? - prepared;
    let mut report = Report::of(scenario, &release, &story, crossed, fleet.usage(&network)?)?;
    report.set_cpu(used);
    report.add_sent(&release, &handed_out);
    if let Some(clean_s) = clean {
        let liars = fleet.hostile.count()?;
        report.set_harm(liars, clean_s, hostile::wasted(&fleet)?);
    }
    if scenario.mishaps > 0 || clean.is_some() {
        watch::wait_for_installs(&fleet)?;
    }
    Ok(report)
}

/// How long the same takes without those who are not to be trusted; none if there are none.
fn clean_s(scenario: &Scenario) -> anyhow::Result<Option<f64>> {
    if scenario.sites.iter().all(|site| site.liars == 0) {
        return Ok(None);
    }
    let mut clean = scenario.clone();
    clean.sites.iter_mut().for_each(|site| site.liars = 0);
    Ok(Some(run(&clean)?.last_s()))
}
