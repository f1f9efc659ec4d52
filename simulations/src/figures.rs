//! Figures that a run is judged by: percentiles, and the least time that physics allows.

use serde::Serialize;

/// Percentiles by the nearest rank: of a thousand values, `p999` is the second largest.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: f64,
    /// 99 of a hundred are at most this.
    pub p99: f64,
    /// 999 of a thousand are at most this.
    pub p999: f64,
}

impl Percentiles {
    /// Of these values; none if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Percentiles> {
        values.sort_by(f64::total_cmp);
        let rank = |permille: usize| {
            let rank = (values.len() * permille).div_ceil(1000).max(1);
            values.get(rank - 1).copied()
        };
        Some(Percentiles {
            p50: rank(500)?,
            p99: rank(990)?,
            p999: rank(999)?,
        })
    }
}

/// What a release's way to the sites is limited by; rates in bytes a second.
#[derive(Clone, Debug)]
pub struct Ways {
    /// Bytes that must cross, F.
    pub bytes: f64,
    /// The origin's uplink, u_o.
    pub origin: f64,
    /// Sites with nodes, S.
    pub sites: f64,
    /// What the sites together may give to others, Σ v_s; nothing where relay is off.
    pub relay: f64,
}

impl Ways {
    /// Seconds that a site needs at the least, T_min: the slowest of the origin, the site's own WAN,
    /// the way to all sites at once, and the LAN, over which each node takes all of it.
    ///
    /// T_min = max(F/u_o, F/w_s, S·F/(u_o+Σv_s), F/l), of which `wan_s` is F/w_s, told as a time
    /// because the rate may change. All sites share the origin, so its term counts for each; F/u_o is
    /// for sites that are served one after another and is the smaller of the two.
    pub fn t_min(&self, wan_s: f64, lan: f64) -> f64 {
        let origin = self.bytes / self.origin;
        let all = self.sites * self.bytes / (self.origin + self.relay);
        let lan = self.bytes / lan;
        [origin, wan_s, all, lan].into_iter().fold(0.0, f64::max)
    }
}

/// Seconds from `start` on until so many bytes have crossed a link whose rate changes: `changes` are
/// seconds and the rate from then on, bytes a second, rising. Infinite if they never do.
pub fn crossing_s(bytes: f64, start: f64, changes: &[(f64, f64)]) -> f64 {
    let mut left = bytes;
    for (n, (from, rate)) in changes.iter().enumerate() {
        let to = changes.get(n + 1).map_or(f64::INFINITY, |next| next.0);
        let from = from.max(start);
        if to <= from {
            continue;
        }
        if left <= rate * (to - from) {
            return from + left / rate - start;
        }
        left -= rate * (to - from);
    }
    f64::INFINITY
}

/// Four digits behind the point, which is more than any of it means.
pub fn round(x: f64) -> f64 {
    (x * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert_eq!(Percentiles::of(Vec::new()), None);
        let of = |n: u32| Percentiles::of((1..=n).rev().map(f64::from).collect()).unwrap();
        let p = |p50, p99, p999| Percentiles { p50, p99, p999 };
        assert_eq!(of(1), p(1.0, 1.0, 1.0));
        assert_eq!(of(100), p(50.0, 99.0, 100.0));
        assert_eq!(of(1000), p(500.0, 990.0, 999.0));
        assert_eq!(of(100_000), p(50_000.0, 99_000.0, 99_900.0));
    }

    #[test]
    fn the_least_time_is_that_of_the_narrowest_way() {
        let ways = |origin: f64, sites: f64, relay: f64| Ways {
            bytes: 1000.0,
            origin,
            sites,
            relay,
        };
        // origin, sites, relay, seconds over the WAN, LAN: seconds
        let cases = [
            (ways(f64::INFINITY, 9.0, 0.0), 100.0, 1000.0, 100.0),
            (ways(1000.0, 9.0, 0.0), 5.0, 1000.0, 9.0),
            (ways(1000.0, 9.0, 8000.0), 0.5, 2000.0, 1.0),
            (ways(100.0, 9.0, 8000.0), 5.0, 1000.0, 10.0),
            (ways(f64::INFINITY, 9.0, 0.0), 1.0, 10.0, 100.0),
        ];
        for (number, (ways, wan_s, lan, expected)) in cases.into_iter().enumerate() {
            assert_eq!(ways.t_min(wan_s, lan), expected, "case {number}");
        }
    }

    #[test]
    fn a_crossing_follows_the_rate() {
        let changes = [(0.0, 10.0), (10.0, 0.0), (20.0, 5.0)];
        // bytes, start, seconds
        let cases = [
            (100.0, 0.0, 10.0),
            (50.0, 0.0, 5.0),
            (50.0, 4.0, 5.0),
            (150.0, 0.0, 30.0),
            (50.0, 30.0, 10.0),
            (20.0, 9.0, 13.0),
        ];
        for (bytes, start, expected) in cases {
            assert_eq!(
                crossing_s(bytes, start, &changes),
                expected,
                "{bytes} from {start}"
            );
        }
        assert_eq!(crossing_s(150.0, 0.0, &changes[..2]), f64::INFINITY);
    }
}
