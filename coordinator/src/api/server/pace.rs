//! How fast one address may ask. Whoever floods the API waits, and everybody else is answered.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use protocol::limits::{
    API_ADDRESSES_MAX, API_BURST, API_PER_SECOND, CERTIFICATES_BURST, CERTIFICATES_PER_SECOND,
};

use super::failure::Failure;
use super::listener::Listener;

/// Stands for all that find no place of their own.
const REST: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Who asks, as the connection says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote(SocketAddr);

impl Remote {
    /// The address.
    pub(super) fn ip(self) -> IpAddr {
        self.0.ip().to_canonical()
    }
}

impl Connected<IncomingStream<'_, Listener>> for Remote {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Remote {
        Remote(*stream.remote_addr())
    }
}

/// The rates of one server: for everything, and for what costs a certificate or a row.
pub(super) struct Paces<C: Clock = DefaultClock> {
    all: Pace<C>,
    certificates: Pace<C>,
}

impl Paces {
    pub(super) fn new() -> Arc<Paces> {
        Arc::new(Paces::by(DefaultClock::default()))
    }
}

impl<C: Clock + Clone> Paces<C> {
    fn by(clock: C) -> Paces<C> {
        Paces {
            all: Pace::new(API_PER_SECOND, API_BURST, clock.clone()),
            certificates: Pace::new(CERTIFICATES_PER_SECOND, CERTIFICATES_BURST, clock),
        }
    }

    fn check(&self, from: IpAddr, path: &str) -> Result<(), u64> {
        self.all.check(from)?;
        match path {
            "/v1/enroll" | "/v1/renew" | "/v1/rejoin" | "/v1/report" => {
                self.certificates.check(from)
            }
            _ => Ok(()),
        }
    }
}

struct Pace<C: Clock> {
    limiter: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
}

impl<C: Clock + Clone> Pace<C> {
    fn new(per_second: u32, burst: u32, clock: C) -> Pace<C> {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
        Pace {
            limiter: RateLimiter::new(quota, HashMapStateStore::default(), clock.clone()),
            clock,
        }
    }

    /// The seconds to wait, if it is too fast.
    fn check(&self, from: IpAddr) -> Result<(), u64> {
        if self.limiter.len() >= API_ADDRESSES_MAX {
            self.limiter.retain_recent();
        }
        let room = self.limiter.len() < API_ADDRESSES_MAX;
        let key = if room { household(from) } else { REST };
        let checked = self.limiter.check_key(&key);
        checked.map_err(|until| until.wait_time_from(self.clock.now()).as_secs() + 1)
    }
}

/// One machine has a whole /64 of IPv6 addresses to ask from.
fn household(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// Lets a request pass whose address did not ask too often lately.
pub(super) async fn keep(
    State(paces): State<Arc<Paces>>,
    ConnectInfo(Remote(from)): ConnectInfo<Remote>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    paces.check(from.ip(), request.uri().path()).map_err(|s| {
        let line = format!("{} asks too often; ask again in {s} s", from.ip());
        Failure::new(StatusCode::TOO_MANY_REQUESTS, line)
    })?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use std::time::Duration;

    #[test]
    fn an_address_gets_its_burst_and_then_its_rate_and_others_wait_for_none() {
        let clock = FakeRelativeClock::default();
        let paces = Paces::by(clock.clone());
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let passed = |from, path| {
            (0..10_000)
                .filter(|_| paces.check(from, path).is_ok())
                .count()
        };
        assert_eq!(passed(one, "/v1/renew"), CERTIFICATES_BURST as usize);
        assert!(paces.check(one, "/v1/renew").unwrap_err() >= 1);
        assert_eq!(passed(other, "/v1/nodes"), API_BURST as usize);
        assert!(
            paces.check(other, "/v1/renew").is_err(),
            "it counts for all"
        );
        clock.advance(Duration::from_secs(10));
        assert_eq!(
            passed(one, "/v1/enroll"),
            10 * CERTIFICATES_PER_SECOND as usize
        );
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_room() {
        let clock = FakeRelativeClock::default();
        let paces = Paces::by(clock.clone());
        for n in 0..2 * API_ADDRESSES_MAX as u128 {
            let from: Ipv6Addr = ((0x2001 << 112) | (n << 64)).into();
            let _ = paces.check(from.into(), "/v1/nodes");
        }
        assert!(paces.all.limiter.len() <= API_ADDRESSES_MAX + 1);
        let strangers = (0..2 * API_BURST).filter(|n| {
            let from: Ipv6Addr = ((0x2002 << 112) | (u128::from(*n) << 64)).into();
            paces.check(from.into(), "/v1/nodes").is_ok()
        });
        assert!(strangers.count() <= API_BURST as usize, "they share one");
        clock.advance(Duration::from_secs(3_600));
        assert!(paces.check([10, 0, 0, 1].into(), "/v1/nodes").is_ok());
        assert!(paces.all.limiter.len() < 10, "who is gone is forgotten");
    }

    #[test]
    fn one_machine_has_one_rate_by_all_of_its_addresses() {
        let at = |text: &str| household(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
    }
}
