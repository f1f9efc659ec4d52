//! Where nodes stand, and by which links.

use serde::Deserialize;

/// Seconds of a day.
const DAY_S: u64 = 86_400;
/// The hour of the day, UTC, at which every world begins; see [`crate::fleet::BEGINNING`].
pub const BEGINS_H: u64 = crate::fleet::BEGINNING.0 / 1000 % DAY_S / 3600;

/// Nodes that share a LAN and a WAN link.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteSpec {
    /// Its name.
    pub name: String,
    /// Its nodes.
    pub nodes: u32,
    /// Its WAN link in Mbit/s; the signed topology caps it at the same.
    pub wan_mbit: u64,
    /// Its WAN link outward, if that is another.
    #[serde(default)]
    pub wan_up_mbit: Option<u64>,
    /// It gives to other such sites, and takes from them; the topology says so.
    #[serde(default)]
    pub relay: bool,
    /// Each node's link, each way, in Mbit/s.
    pub lan_mbit: u64,
    /// One way to the coordinator and the origin, in milliseconds; the region's comes on top.
    pub wan_delay_ms: u64,
    /// The region in which it lies; none: next to the data centre.
    #[serde(default)]
    pub region: Option<String>,
    /// Hours that its clocks are ahead of UTC, if the region does not say. The world begins at 08:00 UTC.
    #[serde(default)]
    pub zone_h: Option<i32>,
    /// The IANA zone of its machines' clocks, by which constraints on hours go; none: they know none, and
    /// UTC counts.
    #[serde(default)]
    pub clock: Option<String>,
    /// What others leave of its WAN at which hours of its day; the first that fits counts.
    #[serde(default)]
    pub schedule: Vec<Hours>,
}

impl SiteSpec {
    /// Its WAN link outward, in Mbit/s.
    pub fn up_mbit(&self) -> u64 {
        self.wan_up_mbit.unwrap_or(self.wan_mbit)
    }

    /// What the region adds is added.
    pub(super) fn resolved(mut self, regions: &[Region]) -> SiteSpec {
        let named = self.region.as_ref();
        let region = named.and_then(|name| regions.iter().find(|r| r.name == *name));
        self.wan_delay_ms += region.map_or(0, |r| r.delay_ms);
        self.zone_h = self.zone_h.or(region.map(|r| r.zone_h));
        self.region = None;
        self
    }
}

/// Sites far away from the data centre.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// One way between it and the data centre, in milliseconds.
    pub delay_ms: u64,
    /// Hours that its clocks are ahead of UTC.
    #[serde(default)]
    pub zone_h: i32,
}

/// Hours of the day at which a WAN is not what it could be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// From this hour, local time.
    pub from_h: u32,
    /// To this one; past midnight if it is smaller.
    pub to_h: u32,
    /// Of the link's rate, so many of a hundred are left.
    pub percent: u32,
}

impl Hours {
    /// Whether they hold at so many seconds after local midnight.
    pub fn hold(&self, second_of_day: u64) -> bool {
        let (from, to) = (u64::from(self.from_h) * 3600, u64::from(self.to_h) * 3600);
        match from <= to {
            true => (from..to).contains(&second_of_day),
            false => second_of_day >= from || second_of_day < to,
        }
    }
}

/// Seconds after local midnight, so many seconds after the world's beginning.
pub fn second_of_day(zone_h: i32, since_beginning_s: u64) -> u64 {
    let ahead = (i64::from(zone_h) * 3600).rem_euclid(DAY_S as i64) as u64;
    (BEGINS_H * 3600 + since_beginning_s + ahead) % DAY_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_begins_at_eight_utc() {
        assert_eq!(BEGINS_H, 8);
        assert_eq!(second_of_day(0, 0), 8 * 3600);
        assert_eq!(second_of_day(9, 3600), 18 * 3600);
        assert_eq!(second_of_day(-9, 0), 23 * 3600);
        assert_eq!(second_of_day(0, DAY_S + 60), 8 * 3600 + 60);
    }

    #[test]
    fn hours_may_pass_midnight() {
        let night = Hours {
            from_h: 22,
            to_h: 6,
            percent: 50,
        };
        assert!(night.hold(23 * 3600) && night.hold(0) && night.hold(6 * 3600 - 1));
        assert!(!night.hold(6 * 3600) && !night.hold(12 * 3600));
        let day = Hours {
            from_h: 8,
            to_h: 18,
            percent: 50,
        };
        assert!(day.hold(8 * 3600) && !day.hold(18 * 3600));
    }
}
