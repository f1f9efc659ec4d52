//! What the origin's data socket sends to a site, packet by packet, seen by a tap in the data centre.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::inside::inside;

/// The origin's UDP port for bulk data.
const DATA_PORT: u16 = 7703;
/// Every protocol, in the order of the network (packet(7)).
const EVERY_PROTOCOL: i32 = 0x0003_u16.to_be() as i32;
/// Headers of IPv4 without options and of UDP.
const HEADERS: usize = 28;
const UDP: u8 = 17;
/// Whoever waits for a packet looks this often whether it is over.
const LOOK: Duration = Duration::from_millis(100);
const BUFFER_BYTES: usize = 8 << 20;

/// One packet, or a batch that the kernel has not cut yet: when, and its bytes without headers.
pub type Sent = (Instant, u64);

/// A tap that listens.
#[derive(Debug)]
pub struct Meter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sent>>,
}

impl Meter {
    /// Listens in a namespace to what goes to `10.site.0.0/24`.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn start(namespace: &str, site: u8) -> Result<Meter> {
        let tap = inside(namespace, || {
            let every = Some(Protocol::from(EVERY_PROTOCOL));
            let tap = Socket::new(Domain::PACKET, Type::DGRAM, every);
            tap.context("failed to tap the data centre's link")
        })?;
        tap.set_read_timeout(Some(LOOK))?;
        tap.set_recv_buffer_size(BUFFER_BYTES)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut tap, mut sent) = (tap, Vec::new());
            let mut head = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(length) = tap.read(&mut head) {
                    let bytes = data_bytes(&head[..length], site);
                    sent.extend(bytes.map(|bytes| (Instant::now(), bytes)));
                }
            }
            sent
        });
        Ok(Meter { stop, thread })
    }

    /// Everything that was seen.
    pub fn stop(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the thread does not panic")
    }
}

/// Bytes of a packet's datagrams, if it goes from the origin's data port to the site.
fn data_bytes(head: &[u8], site: u8) -> Option<u64> {
    let ours = head.len() >= HEADERS
        && head[0] == 0x45
        && head[9] == UDP
        && head[16..19] == [10, site, 0]
        && u16::from_be_bytes([head[20], head[21]]) == DATA_PORT;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    ours.then(|| length.saturating_sub(HEADERS) as u64)
}

/// The most bytes that were sent within any stretch of time of this length.
pub fn most_within(sent: &[Sent], length: Duration) -> u64 {
    let (mut first, mut sum, mut most) = (0, 0, 0);
    for (at, bytes) in sent {
        sum += bytes;
        while at.duration_since(sent[first].0) >= length {
            sum -= sent[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_of_any_second_is_found_wherever_it_begins() {
        let zero = Instant::now();
        let sent: Vec<Sent> = [
            (0, 5),
            (900, 7),
            (1_000, 1),
            (1_850, 4),
            (1_899, 2),
            (1_900, 100),
        ]
        .map(|(ms, bytes)| (zero + Duration::from_millis(ms), bytes))
        .to_vec();
        assert_eq!(most_within(&sent[..5], Duration::from_secs(1)), 14);
        assert_eq!(most_within(&sent, Duration::from_secs(1)), 107);
        assert_eq!(most_within(&sent, Duration::from_secs(60)), 119);
        assert_eq!(most_within(&[], Duration::from_secs(1)), 0);
    }

    #[test]
    fn only_what_the_origin_sends_to_the_site_counts() {
        let mut head = [0; 64];
        head[0] = 0x45;
        head[2..4].copy_from_slice(&1_228u16.to_be_bytes());
        head[9] = UDP;
        head[16..20].copy_from_slice(&[10, 3, 0, 11]);
        head[20..22].copy_from_slice(&DATA_PORT.to_be_bytes());
        assert_eq!(data_bytes(&head, 3), Some(1_200));
        assert_eq!(data_bytes(&head, 4), None);
        assert_eq!(data_bytes(&head[..20], 3), None);
        head[21] ^= 1;
        assert_eq!(data_bytes(&head, 3), None);
    }
}
