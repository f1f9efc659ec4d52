//! The least time in which a payload can be everywhere.

/// A site as the bound sees it; rates in bytes a second, none: no limit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Reach {
    /// Its nodes.
    pub nodes: u32,
    /// Its WAN, inward.
    pub wan_down: Option<f64>,
    /// Each host's link, either way.
    pub lan: Option<f64>,
}

/// Seconds below which no schedule brings `bytes` to every node of `site`, when `sites` such sites are
/// served by an origin with the uplink `origin` (bytes a second) and no site serves another:
/// `max(F/u_o · S, F/w_s, F/l)`. The last term is the LAN's: every node takes F over its own link.
pub fn t_min(bytes: u64, site: &Reach, sites: u32, origin: Option<f64>) -> f64 {
    let bytes = bytes as f64;
    let through = |rate: Option<f64>, copies: f64| rate.map_or(0.0, |r| bytes * copies / r);
    through(origin, f64::from(sites))
        .max(through(site.wan_down, 1.0))
        .max(through(site.lan, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_link_decides() {
        let site = Reach {
            nodes: 8,
            wan_down: Some(2_500_000.0),
            lan: Some(25_000_000.0),
        };
        let check = |bytes, sites, origin, expected: f64| {
            assert!((t_min(bytes, &site, sites, origin) - expected).abs() < 1e-9);
        };
        check(25_000_000, 1, None, 10.0);
        check(25_000_000, 6, Some(10_000_000.0), 15.0);
        check(25_000_000, 6, Some(100_000_000.0), 10.0);
        let near = Reach {
            wan_down: None,
            ..site
        };
        assert!((t_min(25_000_000, &near, 1, None) - 1.0).abs() < 1e-9);
    }
}
