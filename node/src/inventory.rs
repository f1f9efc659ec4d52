//! What a node knows of its machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use protocol::limits::ATTRIBUTES_MAX;
use serde::Serialize;

use crate::config::{ConfigError, Criticality, NodeConfig};

/// The end of a value that is longer is left out.
const VALUE_MAX_CHARS: usize = 128;
/// So much is read of a file of the system.
const FILE_MAX_BYTES: u64 = 64 << 10;
/// Devices that are looked at for their drivers.
const DEVICES_MAX: usize = 1024;

/// What a node knows of its machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Inventory {
    /// Operating system, as `std::env::consts::OS` has it.
    pub os: String,
    /// Architecture, as `std::env::consts::ARCH` has it.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// Name of the machine now.
    pub hostname: String,
    /// The node's id.
    pub node: String,
    /// The fleet's id.
    pub fleet: String,
    /// Labels as the installer set them.
    pub labels: BTreeMap<String, String>,
    /// What else filters may ask for and does not change while the node runs.
    pub attributes: BTreeMap<String, String>,
    /// Where it listens, control plane then data plane.
    pub addresses: Vec<String>,
    /// This program's version.
    pub version: String,
}

/// Name of this machine, for people.
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Takes the inventory.
///
/// # Errors
/// When the directory is not a node's.
pub fn take(dir: &Path) -> Result<Inventory, ConfigError> {
    let config = NodeConfig::load(dir)?;
    let address = |port| std::net::SocketAddr::new(config.listen.address, port).to_string();
    Ok(Inventory {
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        hostname: hostname(),
        node: config.node.to_string(),
        fleet: config.fleet.to_string(),
        labels: config.labels.iter().cloned().collect(),
        attributes: attributes(&config),
        addresses: vec![
            address(config.listen.control_port),
            address(config.listen.data_port),
        ],
        version: env!("CARGO_PKG_VERSION").into(),
    })
}

/// What filters may ask for and does not change while the node runs. What cannot be read is left out.
pub fn attributes(config: &NodeConfig) -> BTreeMap<String, String> {
    gather(Path::new("/"), config)
}

/// The same of a machine that is no node: what follows from the machine alone.
pub fn of_machine() -> BTreeMap<String, String> {
    found(Path::new("/"), None, None)
}

fn gather(root: &Path, config: &NodeConfig) -> BTreeMap<String, String> {
    found(root, config.ring.as_deref(), config.criticality)
}

fn found(
    root: &Path,
    ring: Option<&str>,
    criticality: Option<Criticality>,
) -> BTreeMap<String, String> {
    let read = |path: &str| tidy(&text(&root.join(path))?);
    let release = text(&root.join("etc/os-release"))
        .or_else(|| text(&root.join("usr/lib/os-release")))
        .unwrap_or_default();
    let of_release = |key: &str| field(&release, key).and_then(|value| tidy(&value));
    let kernel = || tidy(&rustix::system::uname().release().to_string_lossy());
    let own = [
        ("hostname", tidy(&hostname())),
        ("os", tidy(std::env::consts::OS)),
        ("arch", tidy(std::env::consts::ARCH)),
        ("os.name", of_release("ID")),
        ("os.version", of_release("VERSION_ID")),
        ("os.build", of_release("BUILD_ID").or_else(kernel)),
        ("vendor", read("sys/class/dmi/id/sys_vendor")),
        ("model", read("sys/class/dmi/id/product_name")),
        ("ring", ring.and_then(tidy)),
        ("criticality", criticality.map(|c| c.name().to_owned())),
        ("agent", tidy(env!("CARGO_PKG_VERSION"))),
    ];
    let own = own
        .into_iter()
        .filter_map(|(k, v)| Some((k.to_owned(), v?)));
    let mut all: BTreeMap<String, String> = own.collect();
    // some room is left for what the machine is like at the moment
    let room = ATTRIBUTES_MAX - 8 - all.len();
    all.extend(drivers(root).into_iter().take(room));
    all
}

/// Drivers of the machine's PCI devices, each with its version, or the kernel's if it has none of its own.
fn drivers(root: &Path) -> BTreeMap<String, String> {
    let devices = fs::read_dir(root.join("sys/bus/pci/devices"));
    let devices = devices.into_iter().flatten().flatten().take(DEVICES_MAX);
    let names = devices.filter_map(|device| {
        let driver = fs::read_link(device.path().join("driver")).ok()?;
        tidy(driver.file_name()?.to_str()?)
    });
    let kernel = rustix::system::uname();
    let kernel = kernel.release().to_string_lossy();
    let version = |name: &str| {
        let own = text(&root.join("sys/module").join(name).join("version"));
        own.and_then(|own| tidy(&own)).or_else(|| tidy(&kernel))
    };
    let named = names.filter_map(|name| Some((format!("driver.{name}"), version(&name)?)));
    named.collect()
}

/// A value of a file of `KEY=value` lines, as os-release(5) has them.
fn field(text: &str, key: &str) -> Option<String> {
    let values = text.lines().filter_map(|line| line.split_once('='));
    let value = values
        .filter(|(k, _)| *k == key)
        .map(|(_, v)| v)
        .next_back()?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(FILE_MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A value on one line and within its length; none if nothing is left.
fn tidy(value: &str) -> Option<String> {
    let plain = value.trim().chars().filter(|c| !c.is_control());
    let value: String = plain.take(VALUE_MAX_CHARS).collect();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine out of files.
    fn machine(files: &[(&str, &str)], drivers: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        for (number, driver) in drivers.iter().enumerate() {
            let device = dir.path().join(format!("sys/bus/pci/devices/{number}"));
            fs::create_dir_all(&device).unwrap();
            let target = format!("../../../bus/pci/drivers/{driver}");
            std::os::unix::fs::symlink(target, device.join("driver")).unwrap();
        }
        dir
    }

    #[test]
    fn a_machine_is_read_off_its_files() {
        let os = "NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\n";
        let files = [
            ("etc/os-release", os),
            ("sys/class/dmi/id/sys_vendor", "Acme\n"),
            ("sys/class/dmi/id/product_name", "  Till \u{7}7 \n"),
            ("sys/module/e1000e/version", "3.2.6-k\n"),
        ];
        let dir = machine(&files, &["e1000e", "e1000e", "nvme"]);
        let mut config = crate::config::tests::sample(dir.path());
        config.ring = Some("canary".into());
        config.criticality = Some(crate::config::Criticality::MissionCritical);
        let found = gather(dir.path(), &config);
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let expected = [
            ("os.name", "debian"),
            ("os.version", "12"),
            ("os.build", &kernel),
            ("vendor", "Acme"),
            ("model", "Till 7"),
            ("driver.e1000e", "3.2.6-k"),
            ("driver.nvme", &kernel),
            ("ring", "canary"),
            ("criticality", "mission_critical"),
            ("os", std::env::consts::OS),
            ("arch", std::env::consts::ARCH),
            ("agent", env!("CARGO_PKG_VERSION")),
            ("hostname", &hostname()),
        ];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
        assert!(found.keys().all(|name| protocol::inventory::is_name(name)));
    }

    #[test]
    fn an_odd_machine_stays_within_the_limits() {
        let long = "x".repeat(5000);
        let names: Vec<String> = (0..200).map(|n| format!("driver{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let dir = machine(&[("sys/class/dmi/id/product_name", &long)], &names);
        let found = gather(dir.path(), &crate::config::tests::sample(dir.path()));
        assert_eq!(found.len(), ATTRIBUTES_MAX - 8);
        assert_eq!(found["model"].len(), VALUE_MAX_CHARS);
        assert!(!found.contains_key("os.name") && !found.contains_key("vendor"));
    }
}
