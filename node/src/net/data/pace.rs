//! Pacing: how fast bytes may leave for a site, over all connections with its nodes together.
//!
//! A bucket (governor's GCRA) is asked before every write. Where the socket's bytes are not counted, what is
//! written costs a part more than its payload, for headers. Where they are, whatever the socket really sent to
//! that site beyond what was paid for (headers, handshakes, retransmissions) is added to the price of the
//! next write, so that no more is paid than was sent.
//! So the bytes at the socket stay within `rate × time + burst`, whatever they were. Of those who wait
//! the more urgent class goes first (`queue`), within a class who asked first, so a site's nodes share
//! its rate evenly.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use protocol::SiteId;
use protocol::limits::PACED_WRITE_MAX_BYTES;
use protocol::topology::NodeRates;
use protocol::wire::Class;
use tokio::sync::watch;

use super::count::{Tallies, Tally};
use super::queue::Queue;

/// Smallest and largest burst; in between a 32nd of a second's worth, so that no second carries much more
/// than its share: that, and what the socket sent before it was paid for.
const BURST_MIN_BYTES: u64 = 2 << 10;
const BURST_MAX_BYTES: u64 = 1 << 20;
const BURSTS_PER_S: u64 = 32;
/// Of what is written, so much more are headers and proofs: a packet of 1,452 bytes holds some 1,416 of a
/// stream, and a group of 16 KiB comes with up to 128 bytes of hashes.
const HEADERS: u64 = 32;
/// Buckets are filled by this many cells a second at most, so that a cell's time in nanoseconds is
/// a number large enough to be exact.
const CELLS_PER_S_MAX: u64 = 100_000;

/// A rate that is kept.
#[derive(Debug)]
pub(crate) struct Bucket {
    limiter: DefaultDirectRateLimiter,
    clock: DefaultClock,
    rate: u64,
    cell_bytes: u64,
    burst_bytes: u64,
    /// Bytes that were sent at the socket when the bucket was made, and bytes paid for since.
    baseline: u64,
    paid: AtomicU64,
}

impl Bucket {
    /// For `rate` bytes a second (at least 1). `baseline` is what was sent before it was made.
    pub(crate) fn new(rate: u64, baseline: u64) -> Bucket {
        let rate = rate.max(1);
        let cell_bytes = rate.div_ceil(CELLS_PER_S_MAX);
        let burst_bytes = (rate / BURSTS_PER_S).clamp(BURST_MIN_BYTES, BURST_MAX_BYTES);
        // Rounded up: never faster than asked for.
        let per_cell = Duration::from_nanos((cell_bytes * 1_000_000_000).div_ceil(rate));
        let cells = NonZeroU32::new((burst_bytes / cell_bytes) as u32).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(per_cell)
            .expect("a cell takes at least a nanosecond")
            .allow_burst(cells);
        Bucket {
            limiter: RateLimiter::direct(quota),
            clock: DefaultClock::default(),
            rate,
            cell_bytes,
            burst_bytes: u64::from(cells.get()) * cell_bytes,
            baseline,
            paid: AtomicU64::new(0),
        }
    }

    /// Payload bytes that are best written at once.
    pub(crate) fn write_bytes(&self) -> usize {
        let payload = self.burst_bytes / (HEADERS + 1) * HEADERS;
        (payload as usize).clamp(1, PACED_WRITE_MAX_BYTES)
    }

    /// What writing `payload` bytes costs, with what the socket sent unpaid.
    fn price(&self, payload: usize, socket_out: Option<u64>) -> u64 {
        let payload = payload as u64;
        let Some(sent) = socket_out.map(|out| out.saturating_sub(self.baseline)) else {
            return payload + payload / HEADERS + 1;
        };
        payload + sent.saturating_sub(self.paid.load(Ordering::Relaxed))
    }

    /// Pays some of `owed` bytes; how long to wait if nothing can be paid now.
    fn pay(&self, owed: u64) -> Result<u64, Duration> {
        let part = owed.min(self.burst_bytes);
        let cells =
            NonZeroU32::new(part.div_ceil(self.cell_bytes) as u32).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_n(cells) {
            Ok(Ok(())) => {
                self.paid.fetch_add(part, Ordering::Relaxed);
                Ok(part)
            }
            Ok(Err(later)) => Err(later.wait_time_from(self.clock.now())),
            // More cells than the burst has cannot be asked for; if it happened, they would be free.
            Err(_) => Ok(part),
        }
    }

    /// Waits until `payload` bytes may be written.
    pub(crate) async fn take(&self, payload: usize) {
        let mut owed = self.price(payload, None);
        while owed > 0 {
            match self.pay(owed) {
                Ok(part) => owed -= part,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
}

/// The rate of one remote site, which may change while writers wait.
#[derive(Debug)]
pub(crate) struct SitePace {
    bucket: ArcSwapOption<Bucket>,
    changed: watch::Sender<()>,
    queue: Arc<Queue>,
    tally: Arc<Tally>,
}

impl SitePace {
    fn of(tally: Arc<Tally>) -> SitePace {
        SitePace {
            bucket: ArcSwapOption::empty(),
            changed: watch::Sender::new(()),
            queue: Arc::default(),
            tally,
        }
    }

    /// Sets or lifts the cap; who waits follows at once. The same cap again changes nothing.
    fn set(&self, rate: Option<u64>) {
        if self.bucket.load().as_ref().map(|bucket| bucket.rate) == rate.map(|rate| rate.max(1)) {
            return;
        }
        let bucket = rate.map(|rate| Arc::new(Bucket::new(rate, self.tally.socket_out())));
        self.bucket.store(bucket);
        self.changed.send_replace(());
    }

    /// Bytes that are best written at once; `None` if the site has no cap.
    pub(crate) fn write_bytes(&self) -> Option<usize> {
        self.bucket
            .load()
            .as_ref()
            .map(|bucket| bucket.write_bytes())
    }

    /// Waits until `payload` bytes may be written. `count_socket`: the site is the receiver, so what
    /// the socket sent to it counts.
    pub(crate) async fn take(&self, payload: usize, count_socket: bool, class: Class) {
        if self.bucket.load().is_none() {
            return;
        }
        let _turn = self.queue.turn(class).await;
        let mut changed = self.changed.subscribe();
        let mut owed = None;
        loop {
            let Some(bucket) = self.bucket.load_full() else {
                return;
            };
            let sent = count_socket.then(|| self.tally.socket_out());
            let rest = owed.unwrap_or_else(|| bucket.price(payload, sent));
            match bucket.pay(rest) {
                Ok(part) if part >= rest => return,
                Ok(part) => owed = Some(rest - part),
                Err(wait) => {
                    owed = Some(rest);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        _ = changed.changed() => {}
                    }
                }
            }
        }
    }
}

/// What this node itself moves over one kind of link.
#[derive(Debug)]
pub(crate) struct OwnPaces {
    pub(crate) down: Arc<SitePace>,
    pub(crate) up: Arc<SitePace>,
}

impl OwnPaces {
    fn new() -> OwnPaces {
        OwnPaces {
            down: Arc::new(SitePace::of(Arc::default())),
            up: Arc::new(SitePace::of(Arc::default())),
        }
    }
}

/// The rates of all sites, and of this node.
#[derive(Debug)]
pub(crate) struct Paces {
    tallies: Arc<Tallies>,
    sites: Mutex<HashMap<SiteId, Arc<SitePace>>>,
    lan: OwnPaces,
    wan: OwnPaces,
}

impl Paces {
    pub(crate) fn new(tallies: Arc<Tallies>) -> Paces {
        Paces {
            tallies,
            sites: Mutex::default(),
            lan: OwnPaces::new(),
            wan: OwnPaces::new(),
        }
    }

    /// Sets or lifts a site's cap.
    pub(crate) fn set(&self, site: SiteId, rate: Option<u64>) {
        self.of(&site).set(rate);
    }

    /// Sets or lifts what this node itself keeps to.
    pub(crate) fn set_own(&self, rates: NodeRates) {
        self.lan.down.set(rates.lan_down_bytes_per_s);
        self.lan.up.set(rates.lan_up_bytes_per_s);
        self.wan.down.set(rates.wan_down_bytes_per_s);
        self.wan.up.set(rates.wan_up_bytes_per_s);
    }

    /// What this node itself keeps to.
    pub(crate) fn own(&self, wan: bool) -> &OwnPaces {
        if wan { &self.wan } else { &self.lan }
    }

    /// The pace of a site. Sites come from the signed topology and orders, so their number is bounded.
    pub(crate) fn of(&self, site: &SiteId) -> Arc<SitePace> {
        let mut sites = self.sites.lock().expect("no panic under this lock");
        let new = || Arc::new(SitePace::of(self.tallies.of_site(site.clone())));
        sites.entry(site.clone()).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_rate_has_a_burst_that_its_writes_fit() {
        for rate in [
            1,
            1_000,
            8_000,
            100_000,
            250_000,
            12_345_678,
            125_000_000,
            5_000_000_000,
            u64::MAX / 1_000_000_001,
        ] {
            let bucket = Bucket::new(rate, 0);
            let write = bucket.write_bytes();
            assert!(
                bucket.price(write, None) <= bucket.burst_bytes + bucket.cell_bytes,
                "{rate}"
            );
            assert!(bucket.pay(bucket.burst_bytes).is_ok(), "{rate}");
            assert!(write <= PACED_WRITE_MAX_BYTES, "{rate}");
        }
    }

    /// The story: a burst was 0.04 of a second's worth, and with what the socket sent unpaid a site took 1.051
    /// of its cap in one second. A second has room for 0.05.
    #[test]
    fn no_second_carries_a_twentieth_more_than_the_rate() {
        for rate in [64_000, 125_000, 625_000, 2_500_000, 125_000_000] {
            let bucket = Bucket::new(rate, 0);
            let least = BURST_MIN_BYTES + bucket.cell_bytes;
            let unpaid = rate / 64;
            let room = (rate / 20).max(least + unpaid);
            assert!(bucket.burst_bytes + unpaid <= room, "{rate}");
        }
    }

    #[test]
    fn what_is_paid_in_a_while_stays_under_the_rate() {
        for rate in [8_000, 1_000_000, 300_000_000] {
            let bucket = Bucket::new(rate, 0);
            let begin = std::time::Instant::now();
            let mut paid = 0;
            while begin.elapsed() < Duration::from_millis(50) {
                paid += bucket.pay(1_000).unwrap_or(0);
            }
            let allowed =
                begin.elapsed().as_secs_f64() * rate as f64 + bucket.burst_bytes as f64 + 1_000.0;
            assert!((paid as f64) <= allowed, "{paid} of {allowed} at {rate}");
            assert!(paid >= bucket.burst_bytes / 2, "{paid} at {rate}");
        }
    }

    #[tokio::test]
    async fn what_the_socket_sent_unpaid_is_paid_later() {
        let bucket = Bucket::new(1_000_000, 500);
        assert_eq!(bucket.price(1_600, None), 1_651);
        assert_eq!(bucket.price(1_600, Some(500)), 1_600);
        assert_eq!(bucket.price(1_600, Some(10_500)), 11_600);
        bucket.take(20_000).await;
        assert_eq!(bucket.price(1_600, Some(10_500)), 1_600);
    }

    #[tokio::test]
    async fn a_lifted_cap_frees_who_waits() {
        let paces = Paces::new(Arc::default());
        let site: SiteId = "north".parse().unwrap();
        paces.set(site.clone(), Some(1));
        let pace = paces.of(&site);
        pace.take(1_900, true, Class::Normal).await;
        let waiting = tokio::spawn(async move { pace.take(1_000_000, true, Class::Normal).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        paces.set(site, None);
        waiting.await.unwrap();
    }
}
