//! What people do on a link while a node fetches: a download by the kernel's TCP, and small packets that
//! tell how long others wait.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::inside::inside;

/// A probe leaves this often: 58 bytes each on Ethernet, 46 kbit/s.
const PROBE: Duration = Duration::from_millis(10);
/// Received bytes are noted this often.
const NOTE: Duration = Duration::from_millis(50);
/// Whoever waits for a packet looks this often whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// Two namespaces, and an address of the second that the first reaches.
#[derive(Clone, Debug)]
pub struct Path {
    /// Where packets come from.
    pub from: String,
    /// Where they go.
    pub to: String,
    /// An address there.
    pub address: std::net::IpAddr,
}

/// Probes under way. Both ends read one clock, so that each tells its own way alone.
#[derive(Debug)]
pub struct Probes {
    stop: Arc<AtomicBool>,
    waits: Arc<Mutex<Vec<(Instant, Duration)>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Probes {
    /// Starts probing.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub fn start(path: &Path) -> Result<Probes> {
        let (address, stop) = (path.address, Arc::new(AtomicBool::new(false)));
        let there = inside(&path.to, || Ok(UdpSocket::bind((address, 0))?))?;
        there.set_read_timeout(Some(LOOK))?;
        let target = there.local_addr()?;
        let here = inside(&path.from, || Ok(UdpSocket::bind(("0.0.0.0", 0))?))?;
        let waits = Arc::new(Mutex::new(Vec::new()));
        let zero = Instant::now();
        let sender = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let sent = zero.elapsed().as_nanos().to_le_bytes();
                    // refused while the link is down: lost
                    let _ = here.send_to(&sent, target);
                    std::thread::sleep(PROBE);
                }
            })
        };
        let receiver = {
            let (stop, waits) = (stop.clone(), waits.clone());
            std::thread::spawn(move || {
                let mut sent = [0; 16];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(16) = there.recv(&mut sent) {
                        let now = zero.elapsed();
                        let sent = Duration::from_nanos(u128::from_le_bytes(sent) as u64);
                        let wait = now.saturating_sub(sent);
                        let mut waits = waits.lock().expect("no panic under this lock");
                        waits.push((zero + now, wait));
                    }
                }
            })
        };
        Ok(Probes {
            stop,
            waits,
            threads: vec![sender, receiver],
        })
    }

    /// How long probes that arrived since then were on their way, the shortest first.
    pub fn since(&self, from: Instant) -> Vec<Duration> {
        let waits = self.waits.lock().expect("no panic under this lock");
        let mut waits: Vec<Duration> = waits
            .iter()
            .filter(|(at, _)| *at >= from)
            .map(|(_, wait)| *wait)
            .collect();
        waits.sort_unstable();
        waits
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What a download brought.
#[derive(Clone, Debug)]
pub struct Download {
    /// Seconds since it began, and bytes that the receiver had read by then.
    pub notes: Vec<(f64, u64)>,
}

impl Download {
    /// Downloads for so long by one connection of the kernel's TCP, which shares links by `algorithm`.
    ///
    /// # Errors
    /// When it cannot be connected, or the kernel has no such algorithm.
    pub fn run(path: &Path, algorithm: &str, length: Duration) -> Result<Download> {
        let address = path.address;
        let listener = inside(&path.to, || Ok(TcpListener::bind((address, 0))?))?;
        let target = listener.local_addr()?;
        let began = Instant::now();
        let sender = inside(&path.from, || connect(target, algorithm))?;
        let (receiver, _) = listener.accept()?;
        receiver.set_read_timeout(Some(LOOK))?;
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut notes = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| pour(sender));
            scope.spawn(|| drink(receiver, &stop, &count));
            while began.elapsed() < length {
                std::thread::sleep(NOTE);
                let bytes = count.load(Ordering::Relaxed);
                notes.push((began.elapsed().as_secs_f64(), bytes));
            }
            stop.store(true, Ordering::Relaxed);
        });
        Ok(Download { notes })
    }

    /// Bytes a second over all of it.
    pub fn rate(&self) -> f64 {
        self.notes
            .last()
            .map_or(0.0, |(time, bytes)| *bytes as f64 / time)
    }

    /// Seconds until it brought at least `rate` bytes a second for a quarter of a second.
    pub fn reaches(&self, rate: f64) -> Option<f64> {
        let spans = self.notes.iter().enumerate().filter_map(|(n, begin)| {
            let rest = &self.notes[n..];
            let end = rest.iter().find(|(time, _)| time - begin.0 >= 0.25)?;
            Some((begin, end))
        });
        let mut fast =
            spans.filter(|(begin, end)| (end.1 - begin.1) as f64 >= rate * (end.0 - begin.0));
        fast.next().map(|(_, end)| end.0)
    }
}

fn connect(target: SocketAddr, algorithm: &str) -> Result<TcpStream> {
    let to =
        TcpStream::connect(target).with_context(|| format!("failed to connect to {target}"))?;
    rustix::net::sockopt::set_tcp_congestion(&to, algorithm)
        .with_context(|| format!("the kernel's TCP does not know {algorithm}"))?;
    Ok(to)
}

/// Writes until the other end is gone.
fn pour(mut to: TcpStream) {
    let water = vec![0; 64 << 10];
    while to.write_all(&water).is_ok() {}
}

/// Reads until told to stop, and leaves with the rest unread, which ends the connection at once.
fn drink(mut from: TcpStream, stop: &AtomicBool, count: &AtomicU64) {
    let mut cup = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        match from.read(&mut cup) {
            Ok(0) => return,
            Ok(bytes) => drop(count.fetch_add(bytes as u64, Ordering::Relaxed)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_reaches_its_rate_when_it_has_kept_it_for_a_while() {
        let steady = |n: u64| {
            (
                n as f64 / 20.0,
                if n < 20 { n * 10 } else { 200 + (n - 20) * 50 },
            )
        };
        let download = Download {
            notes: (0..100).map(steady).collect(),
        };
        assert_eq!(download.reaches(900.0), Some(1.25));
        assert_eq!(download.reaches(100.0), Some(0.25));
        assert_eq!(download.reaches(2_000.0), None);
        assert!((download.rate() - (200.0 + 79.0 * 50.0) / 4.95).abs() < 1e-9);
    }
}
