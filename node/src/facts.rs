//! What the machine is like at the moment: its zone, its power, its free space, its link.

use std::fs;
use std::path::{Path, PathBuf};

use protocol::constraints::Machine;

use crate::config::NodeConfig;

/// Free space is told in steps of so much, so that it is not news all the time.
const SPACE_STEP_BYTES: u64 = 64 << 20;
/// Where Linux tells of batteries and mains.
const SUPPLIES: &str = "/sys/class/power_supply";
/// Supplies that are looked at.
const SUPPLIES_MAX: usize = 64;

/// Reads what the machine is like.
#[derive(Clone, Debug)]
pub struct Facts {
    dir: PathBuf,
    zone: Option<String>,
    metered: Option<bool>,
}

impl Facts {
    /// Of the machine whose node lives in `dir`.
    pub fn of(dir: &Path, config: &NodeConfig) -> Facts {
        Facts {
            dir: dir.to_owned(),
            zone: config.zone.clone(),
            metered: config.metered,
        }
    }

    /// What it is like now. What cannot be read is not known.
    pub fn read(&self) -> Machine {
        let space = rustix::fs::statvfs(&self.dir).ok();
        let free = space.map(|s| s.f_bavail.saturating_mul(s.f_frsize));
        Machine {
            zone: self.zone.clone().or_else(system_zone),
            free_disk_bytes: free.map(|bytes| bytes / SPACE_STEP_BYTES * SPACE_STEP_BYTES),
            mains: mains(Path::new(SUPPLIES)),
            metered: self.metered,
        }
    }
}

/// The system's IANA zone: what `TZ` names, where `/etc/localtime` points, or what `/etc/timezone` says.
fn system_zone() -> Option<String> {
    let named = std::env::var("TZ").ok();
    let named = named.map(|tz| tz.trim_start_matches(':').to_owned());
    let linked = || zone_of_link(&fs::read_link("/etc/localtime").ok()?);
    let written = || Some(fs::read_to_string("/etc/timezone").ok()?.trim().to_owned());
    let known = |name: &String| protocol::zones::Clock::of(name).is_some();
    named.filter(known).or_else(linked).or_else(written)
}

fn zone_of_link(target: &Path) -> Option<String> {
    let (_, name) = target.to_str()?.split_once("zoneinfo/")?;
    Some(name.trim_start_matches("posix/").to_owned())
}

/// Whether the machine is on mains power: none without a supply that tells. A battery that is not
/// discharged counts as mains.
fn mains(supplies: &Path) -> Option<bool> {
    let read = |dir: &Path, name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let mut known = None;
    for supply in fs::read_dir(supplies).ok()?.flatten().take(SUPPLIES_MAX) {
        let dir = supply.path();
        let of_the_machine = read(&dir, "scope").trim() != "Device";
        match read(&dir, "type").trim() {
            "Mains" | "USB" if read(&dir, "online").trim() == "1" => return Some(true),
            "Battery" if of_the_machine => {
                let empties = read(&dir, "status").trim() == "Discharging";
                known = Some(known.unwrap_or(true) && !empties);
            }
            _ => {}
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_battery_that_empties_is_no_mains_power() {
        let dir = tempfile::tempdir().unwrap();
        let supply = |name: &str, files: &[(&str, &str)]| {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            for (file, text) in files {
                fs::write(dir.path().join(name).join(file), format!("{text}\n")).unwrap();
            }
        };
        assert_eq!(mains(&dir.path().join("none")), None);
        assert_eq!(mains(dir.path()), None);
        supply(
            "mouse",
            &[
                ("type", "Battery"),
                ("scope", "Device"),
                ("status", "Discharging"),
            ],
        );
        assert_eq!(mains(dir.path()), None);
        supply("BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        assert_eq!(mains(dir.path()), Some(false));
        supply("AC", &[("type", "Mains"), ("online", "1")]);
        assert_eq!(mains(dir.path()), Some(true));
        supply("AC", &[("online", "0")]);
        supply("BAT0", &[("status", "Full")]);
        assert_eq!(mains(dir.path()), Some(true));
    }

    #[test]
    fn a_zone_is_read_off_the_link() {
        let zone = |target: &str| zone_of_link(Path::new(target));
        assert_eq!(
            zone("/usr/share/zoneinfo/Europe/Berlin").as_deref(),
            Some("Europe/Berlin")
        );
        assert_eq!(
            zone("../usr/share/zoneinfo/posix/UTC").as_deref(),
            Some("UTC")
        );
        assert_eq!(zone("/somewhere/else"), None);
    }
}
