//! The network: one namespace for each host, each site's gateway, the wide area and the data centre.
//!
//! ```text
//! dc (coordinator, origin) ── core ══ WAN of site 1 ══ gateway 1 ── bridge ── hosts of site 1
//!                                  ══ WAN of site 2 ══ …
//! ```
//! A WAN link is shaped where bytes enter it: inward at the core, outward at the gateway.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::line::{End, Way, lay};
use super::process::output;
use super::scenario::{Scenario, Site};

/// The coordinator's and the origin's address.
pub const DATA_CENTRE: &str = "10.250.0.2";
/// A token bucket holds this, or two milliseconds of its rate: enough for one burst of a sender.
const BURST_BYTES: u64 = 16 << 10;
/// Links as fast as this ...
const FAST_BITS: u64 = 100_000_000;
/// ... let a batch of 64 KiB pass as it is, six milliseconds' worth at most: `tbf` cuts what is longer than its
/// burst into packets, which costs the processor, and in an office the network card does that.
const BATCH_BYTES: u64 = 72 << 10;

/// A network of namespaces. Dropping it removes them.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    made: Vec<String>,
    sites: usize,
}

/// Whether the machine can play at all.
///
/// # Errors
/// What is missing, in one line.
pub fn check_tools() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab makes network namespaces, which needs root; run it as root");
    }
    for tool in ["ip", "tc"] {
        if Command::new(tool).arg("-V").output().is_err() {
            bail!("the lab needs {tool} of iproute2; install iproute2");
        }
    }
    Ok(())
}

impl Network {
    /// Builds the scenario's network.
    ///
    /// # Errors
    /// The command that failed, and what it said.
    pub fn build(scenario: &Scenario) -> Result<Network> {
        let mut network = Network {
            prefix: format!("tidegate-lab-{}", std::process::id()),
            made: Vec::new(),
            sites: scenario.sites.len(),
        };
        let (core, dc) = (network.add("core")?, network.add("dc")?);
        ip(&format!(
            "link add dc netns {core} type veth peer name eth0 netns {dc}"
        ))?;
        network.address("core", "dc", "10.250.0.1/24")?;
        network.address("dc", "eth0", &format!("{DATA_CENTRE}/24"))?;
        ip(&format!("-n {dc} route add default via 10.250.0.1"))?;
        forward(&core)?;
        network.shape("dc", "eth0", scenario.origin_up, 200)?;
        for (number, site) in scenario.sites.iter().enumerate() {
            network.build_site(number + 1, site)?;
        }
        Ok(network)
    }

    fn build_site(&mut self, s: usize, site: &Site) -> Result<()> {
        let (core, gate) = (self.name("core"), self.add(&format!("g{s}"))?);
        if site.is_far() {
            lay_far(s, site, &core, &gate)?;
        } else {
            ip(&format!(
                "link add w{s} netns {core} type veth peer name wan netns {gate}"
            ))?;
        }
        self.address("core", &format!("w{s}"), &format!("10.251.{s}.1/30"))?;
        self.address(&format!("g{s}"), "wan", &format!("10.251.{s}.2/30"))?;
        ip(&format!("-n {gate} route add default via 10.251.{s}.1"))?;
        ip(&format!(
            "-n {core} route add 10.{s}.0.0/24 via 10.251.{s}.2"
        ))?;
        forward(&gate)?;
        if !site.is_far() {
            self.shape("core", &format!("w{s}"), site.down, site.buffer_ms)?;
            self.shape(&format!("g{s}"), "wan", site.up, site.buffer_ms)?;
        }
        ip(&format!("-n {gate} link add lan type bridge"))?;
        self.address(&format!("g{s}"), "lan", &format!("10.{s}.0.1/24"))?;
        for h in 1..=site.hosts() {
            let (role, port) = (format!("h{s}-{h}"), format!("p{h}"));
            let host = self.add(&role)?;
            ip(&format!(
                "link add {port} netns {gate} type veth peer name eth0 netns {host}"
            ))?;
            ip(&format!("-n {gate} link set {port} master lan up"))?;
            self.address(&role, "eth0", &format!("{}/24", address(s, h)))?;
            ip(&format!("-n {host} route add default via 10.{s}.0.1"))?;
            self.shape(&role, "eth0", site.lan, 50)?;
            self.shape(&format!("g{s}"), &port, site.lan, 50)?;
            let hosts = site.hosts();
            for other in (1..=hosts).filter(|other| site.rift.parts(h, *other, hosts)) {
                ip(&format!(
                    "-n {host} route add blackhole {}/32",
                    address(s, other)
                ))?;
            }
        }
        Ok(())
    }

    /// The namespace with this role: `core`, `dc`, `g1`, `h1-2`.
    pub fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }

    /// A command that runs in the namespace of this role.
    pub fn command(&self, role: &str, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name(role)])
            .arg(program);
        command
    }

    /// Bytes that each site's WAN carried inward since it was made, by the interface's counter.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn wan_bytes(&self) -> Result<Vec<u64>> {
        let core = self.name("core");
        let text = ip(&format!("-n {core} -s -j link"))?;
        let links: Vec<serde_json::Value> = serde_json::from_str(&text)?;
        let of = |s: usize| {
            let link = links.iter().find(|l| l["ifname"] == format!("w{s}"))?;
            link["stats64"]["tx"]["bytes"].as_u64()
        };
        (1..=self.sites)
            .map(|s| of(s).with_context(|| format!("link w{s} has no counter")))
            .collect()
    }

    /// Takes every WAN link down, or up again.
    ///
    /// # Errors
    /// When a link cannot be set.
    pub fn cut(&self, down: bool) -> Result<()> {
        let core = self.name("core");
        for s in 1..=self.sites {
            let state = if down { "down" } else { "up" };
            ip(&format!("-n {core} link set w{s} {state}"))?;
            if !down {
                // the kernel dropped the route with the link
                ip(&format!(
                    "-n {core} route replace 10.{s}.0.0/24 via 10.251.{s}.2"
                ))?;
            }
        }
        Ok(())
    }

    /// Gives a host another address in its site, the `change`-th since the start.
    ///
    /// # Errors
    /// When a command fails.
    pub fn readdress(&self, site: usize, host: usize, change: u8) -> Result<()> {
        let name = self.name(&format!("h{site}-{host}"));
        let last = host + 10 + 40 * usize::from(1 + change % 5);
        ip(&format!("-n {name} address flush dev eth0"))?;
        ip(&format!(
            "-n {name} address add 10.{site}.0.{last}/24 dev eth0"
        ))?;
        ip(&format!("-n {name} route add default via 10.{site}.0.1"))?;
        Ok(())
    }

    /// Has the kernel's TCP in the namespace of this role remember nothing from one connection to the next.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn forget_paths(&self, role: &str) -> Result<()> {
        set(&self.name(role), "tcp_no_metrics_save", "1")
    }

    /// Processes that run in the namespace of this role.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn processes(&self, role: &str) -> Result<Vec<u32>> {
        let pids = ip(&format!("netns pids {}", self.name(role)))?;
        Ok(pids.lines().filter_map(|l| l.trim().parse().ok()).collect())
    }

    fn add(&mut self, role: &str) -> Result<String> {
        let name = self.name(role);
        ip(&format!("netns add {name}"))?;
        self.made.push(name.clone());
        ip(&format!("-n {name} link set lo up"))?;
        Ok(name)
    }

    fn address(&self, role: &str, link: &str, address: &str) -> Result<()> {
        let name = self.name(role);
        ip(&format!("-n {name} address add {address} dev {link}"))?;
        ip(&format!("-n {name} link set {link} up"))?;
        Ok(())
    }

    fn shape(&self, role: &str, link: &str, bits: Option<u64>, buffer_ms: u32) -> Result<()> {
        let Some(bits) = bits else { return Ok(()) };
        let burst = match bits >= FAST_BITS {
            true => BATCH_BYTES.max(bits / 8 / 500),
            false => BURST_BYTES.max(bits / 8 / 500),
        };
        output(
            Command::new("tc").args(["-n", &self.name(role)]).args(
                format!(
                    "qdisc add dev {link} root tbf rate {bits}bit burst {burst} latency {buffer_ms}ms"
                )
                .split(' '),
            ),
        )?;
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.made.drain(..).rev() {
            end_all_in(&name);
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

/// The address of a host: site and place count from 1.
pub fn address(site: usize, host: usize) -> String {
    format!("10.{site}.0.{}", host + 10)
}

fn lay_far(s: usize, site: &Site, core: &str, gate: &str) -> Result<()> {
    let way = |bits| Way {
        bits,
        delay: Duration::from_millis(site.delay_ms.into()),
        loss_ppm: site.loss_ppm,
        buffer: Duration::from_millis(site.buffer_ms.into()),
    };
    let device = format!("w{s}");
    let end = |namespace, device| End { namespace, device };
    lay(
        end(core, &device),
        end(gate, "wan"),
        way(site.down),
        way(site.up),
    )
}

/// Only what the lab started can be in a namespace that the lab made.
fn end_all_in(name: &str) {
    let pids = ip(&format!("netns pids {name}")).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn forward(name: &str) -> Result<()> {
    set(name, "ip_forward", "1")
}

fn set(name: &str, key: &str, value: &str) -> Result<()> {
    let set = format!("echo {value} > /proc/sys/net/ipv4/{key}");
    output(Command::new("ip").args(["netns", "exec", name, "sh", "-c", &set]))?;
    Ok(())
}

fn ip(arguments: &str) -> Result<String> {
    output(Command::new("ip").args(arguments.split(' ')))
}
