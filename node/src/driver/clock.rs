//! The two clocks of a body: boot time for timers and leases, floored wall time for expiries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::{Hash, Now, Time};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Reads both clocks. Wall time never falls behind the newest signed time that was seen, so a
/// machine whose clock was set back does not take old metadata for fresh.
#[derive(Debug)]
pub struct Clock {
    floor_ms: AtomicU64,
}

impl Clock {
    /// A clock with a floor from an earlier run.
    pub fn new(floor: Time) -> Clock {
        Clock {
            floor_ms: AtomicU64::new(floor.0),
        }
    }

    /// Both clocks now.
    pub fn now(&self) -> Now {
        let system = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as u64);
        Now {
            boot: boot_time(),
            wall: Time(system.max(self.floor().0)),
        }
    }

    /// The newest signed time that was seen.
    pub fn floor(&self) -> Time {
        Time(self.floor_ms.load(Ordering::Relaxed))
    }

    /// A signed time was seen.
    pub fn raise(&self, seen: Time) {
        self.floor_ms.fetch_max(seen.0, Ordering::Relaxed);
    }

    /// The keys behind the floor lost their role: what they signed floors nothing any more.
    pub fn reset(&self) {
        self.floor_ms.store(0, Ordering::Relaxed);
    }
}

/// Milliseconds since the machine's boot, suspend included (CLOCK_BOOTTIME).
fn boot_time() -> Time {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Time(t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000)
}

/// The variable by which whoever starts the process names the boot, where the kernel's name is another
/// machine's: in a container, for instance.
pub const BOOT_ID: &str = "TIDEGATE_BOOT_ID";

/// Names this boot of the machine. Where the kernel does not tell, every start of the process is a
/// boot of its own, and no lease outlives it.
pub fn boot_id() -> Hash {
    if let Some(id) = std::env::var_os(BOOT_ID) {
        return Hash::of(id.as_encoded_bytes());
    }
    match std::fs::read("/proc/sys/kernel/random/boot_id") {
        Ok(id) => Hash::of(&id),
        Err(_) => Hash(random_bytes()),
    }
}

/// When a certificate was issued: a signed time, and the first that a node has. A machine that wakes
/// up in 1970 can verify its peers by it. Zero if it cannot be read.
pub fn issued_at(certificate: &CertificateDer<'_>) -> Time {
    X509Certificate::from_der(certificate).map_or(Time(0), |(_, certificate)| {
        let seconds = certificate.validity().not_before.timestamp();
        Time::from_secs(u64::try_from(seconds).unwrap_or(0))
    })
}

/// 32 bytes of the system's randomness.
pub fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("the system has randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_never_falls_behind_what_was_signed() {
        let clock = Clock::new(Time(0));
        let system = clock.now().wall;
        let signed = Time(system.0 + 3_600_000);
        clock.raise(signed);
        clock.raise(Time(5));
        assert_eq!(clock.floor(), signed);
        assert!(clock.now().wall >= signed);
        clock.reset();
        assert!(clock.now().wall < signed);
    }
}
