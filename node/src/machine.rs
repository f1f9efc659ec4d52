//! Which machine this is, so that a node's directory that was copied is not taken for the node.

use std::fs;

use protocol::{FleetId, Hash};

/// Names the machine where the system does not: in containers, say.
const VARIABLE: &str = "TIDEGATE_MACHINE_ID";
/// Where the system does (machine-id(5)), the newer place first.
const FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
/// Nothing longer names a machine.
const MAX_BYTES: usize = 256;

/// What this machine is called in a fleet: a digest, because the name itself is to stay on the machine
/// (machine-id(5)). `None` where nothing names it.
pub fn id(fleet: &FleetId) -> Option<Hash> {
    let told = std::env::var(VARIABLE).ok();
    let name = told.or_else(|| FILES.iter().find_map(|file| fs::read_to_string(file).ok()))?;
    of(name.trim(), fleet)
}

fn of(name: &str, fleet: &FleetId) -> Option<Hash> {
    if name.is_empty() || name.len() > MAX_BYTES || name == "uninitialized" {
        return None;
    }
    let bytes = [b"tidegate machine v1\0", &fleet.0[..], name.as_bytes()].concat();
    Some(Hash::of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_name_in_a_fleet_and_none_is_made_up() {
        let (a, b) = (FleetId([1; 32]), FleetId([2; 32]));
        assert_eq!(of("m", &a), of("m", &a));
        assert_ne!(of("m", &a), of("n", &a));
        assert_ne!(of("m", &a), of("m", &b));
        for none in ["", "uninitialized", &"m".repeat(MAX_BYTES + 1)] {
            assert_eq!(of(none, &a), None);
        }
    }
}
