//! What a run cost on this machine: told apart from what came of it, because it differs each time.

use core::time::Duration;

use crate::world::World;

/// Real time, peak memory, events a second and what they were, for people.
pub fn told(world: &World, took: Duration) -> String {
    let (events, seconds) = (world.events(), took.as_secs_f64());
    let mut out = format!(
        "{events} events in {seconds:.1} s: {:.0} a second, {:.1} for each node; peak memory {:.0} MiB\n",
        events as f64 / seconds.max(0.001),
        events as f64 / world.shared.nodes().max(1) as f64,
        peak_mib().unwrap_or(0.0)
    );
    for (kind, count) in world.heard() {
        let each = count as f64 / world.shared.nodes().max(1) as f64;
        out += &format!("  {kind}: {count}, {each:.1} for each node\n");
    }
    out
}

/// Peak resident memory of this process, where the system tells it.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
