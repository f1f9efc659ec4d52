//! How a node that fetches in the background treats others on its site's link.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::fleet::Fleet;
use super::foreground::{Download, Path, Probes};
use super::interrupt;
use super::network::{Network, address, check_tools};
use super::scenario::Scenario;

/// The idle link is looked at for so long.
const IDLE: Duration = Duration::from_secs(5);
/// Downloads, and the time that the node fetches alone, take so long.
const LENGTH: Duration = Duration::from_secs(30);
/// What was sent before has left the link after this.
const EMPTY: Duration = Duration::from_secs(3);
/// A node has begun to fetch when its link carries a tenth of what it can.
const BEGUN: f64 = 0.1;
/// It must have begun by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// The kernel's way of sharing a link that downloads use.
const TCP: &str = "cubic";

/// What came of it. Rates in bits a second; shares are of the link's rate, by the interface's counter.
#[derive(Clone, Debug, Serialize)]
pub struct Courtesy {
    /// The scenario.
    pub scenario: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// The kernel's congestion control of the downloads.
    pub tcp: &'static str,
    /// One way over the idle link, half of all probes.
    pub idle_ms: f64,
    /// The share that the node used while nobody else sent.
    pub alone_share: f64,
    /// What that added to the way of a probe: half of them, 95 of a hundred.
    pub alone_added_ms_p50: f64,
    /// See [`Courtesy::alone_added_ms_p50`].
    pub alone_added_ms_p95: f64,
    /// What a download gets without the node, and seconds until it has 95 % of that.
    pub solo_bits: f64,
    /// See [`Courtesy::solo_bits`].
    pub solo_reaches_s: Option<f64>,
    /// The same beside the node.
    pub beside_bits: f64,
    /// See [`Courtesy::beside_bits`].
    pub beside_reaches_s: Option<f64>,
    /// What a download keeps beside the node.
    pub kept: f64,
    /// The share that the node used in the same time after the download.
    pub after_share: f64,
}

/// Plays it: an idle link, a download alone, the node alone, both, the node alone again.
///
/// # Errors
/// What did not come up, or never began.
pub fn run(scenario: &Scenario) -> Result<Courtesy> {
    check_tools()?;
    interrupt::listen()?;
    let bits = scenario.sites.first().and_then(|site| site.down);
    let bits = bits.context("courtesy is shown on a link with a rate")? as f64;
    let network = Network::build(scenario)?;
    network.forget_paths("dc")?;
    let fleet = Fleet::raise(scenario, &network)?;
    fleet.publish(scenario)?;
    let path = Path {
        from: network.name("dc"),
        to: network.name("h1-1"),
        address: address(1, 1).parse()?,
    };
    let probes = Probes::start(&path)?;
    let idle = rest(&probes, IDLE)?;
    let solo = Download::run(&path, TCP, LENGTH)?;
    rest(&probes, EMPTY)?;

    let id = fleet.approve()?;
    fleet.tidegate(&["rollout", "start", &id])?;
    let link = Link {
        network: &network,
        bits,
    };
    link.begins()?;
    let (alone_share, alone) = link.watch(&probes, LENGTH)?;
    let beside = Download::run(&path, TCP, LENGTH)?;
    rest(&probes, EMPTY)?;
    let (after_share, _) = link.watch(&probes, EMPTY)?;

    let idle_ms = percentile(&idle, 50)?;
    let enough = solo.rate() * 0.95;
    Ok(Courtesy {
        scenario: scenario.name,
        about: scenario.about,
        tcp: TCP,
        idle_ms,
        alone_share: round(alone_share),
        alone_added_ms_p50: round(percentile(&alone, 50)? - idle_ms),
        alone_added_ms_p95: round(percentile(&alone, 95)? - idle_ms),
        solo_bits: (solo.rate() * 8.0).round(),
        solo_reaches_s: solo.reaches(enough).map(round),
        beside_bits: (beside.rate() * 8.0).round(),
        beside_reaches_s: beside.reaches(enough).map(round),
        kept: round(beside.rate() / solo.rate()),
        after_share: round(after_share),
    })
}

impl Courtesy {
    /// For people.
    pub fn to_text(&self) -> String {
        let mbit = |bits: f64| format!("{:.2} Mbit/s", bits / 1e6);
        let after = |s: Option<f64>| s.map_or("never".to_owned(), |s| format!("after {s} s"));
        format!(
            "{}: {}\n  \
             alone: {} of the link used, probes wait {} ms longer (half of them), {} ms (95 of a hundred) than the {} ms of the idle link\n  \
             a download ({}) without the node: {}, nearly all of it {}\n  \
             beside the node: {}, nearly all of it {}; it keeps {}\n  \
             after the download: {} of the link used\n",
            self.scenario,
            self.about,
            self.alone_share,
            self.alone_added_ms_p50,
            self.alone_added_ms_p95,
            self.idle_ms,
            self.tcp,
            mbit(self.solo_bits),
            after(self.solo_reaches_s),
            mbit(self.beside_bits),
            after(self.beside_reaches_s),
            self.kept,
            self.after_share,
        )
    }
}

/// The first site's WAN, inward.
struct Link<'a> {
    network: &'a Network,
    bits: f64,
}

impl Link<'_> {
    fn begins(&self) -> Result<()> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if self.share(Duration::from_millis(500))? > BEGUN {
                return Ok(());
            }
        }
        bail!("the node did not begin to fetch within {PATIENCE:?}")
    }

    fn watch(&self, probes: &Probes, length: Duration) -> Result<(f64, Vec<Duration>)> {
        let since = Instant::now();
        let share = self.share(length)?;
        Ok((share, probes.since(since)))
    }

    fn share(&self, length: Duration) -> Result<f64> {
        let (before, since) = (self.carried()?, Instant::now());
        interrupt::wait(length)?;
        let seconds = since.elapsed().as_secs_f64();
        Ok((self.carried()? - before) as f64 * 8.0 / seconds / self.bits)
    }

    fn carried(&self) -> Result<u64> {
        let all = self.network.wan_bytes()?;
        all.first().copied().context("a link")
    }
}

fn rest(probes: &Probes, length: Duration) -> Result<Vec<Duration>> {
    let since = Instant::now();
    interrupt::wait(length)?;
    Ok(probes.since(since))
}

/// In milliseconds, of waits in rising order.
fn percentile(waits: &[Duration], percent: usize) -> Result<f64> {
    let place = (waits.len() * percent / 100).min(waits.len().saturating_sub(1));
    let wait = waits.get(place).context("no probe arrived")?;
    Ok(round(wait.as_secs_f64() * 1e3))
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}
