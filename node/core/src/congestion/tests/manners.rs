//! Who sends how.

use core::net::IpAddr;

use protocol::SiteId;
use protocol::wire::Class;

use crate::congestion::{End, Link, Manner};

#[test]
fn a_site_is_near_and_everything_else_is_far() {
    let (north, south): (SiteId, SiteId) = ("north".parse().unwrap(), "south".parse().unwrap());
    let [a, b]: [IpAddr; 2] = ["10.1.0.1", "10.1.0.2"].map(|a| a.parse().unwrap());
    let mapped: IpAddr = "::ffff:10.1.0.1".parse().unwrap();
    let check = |one, other, expected| {
        let [one, other] = [one, other].map(|(address, site)| End { address, site });
        assert_eq!(Link::between(one, other), expected, "{one:?} {other:?}");
        assert_eq!(Link::between(other, one), expected, "{other:?} {one:?}");
    };
    check((a, Some(&north)), (b, Some(&north)), Link::Near);
    check((a, Some(&north)), (b, Some(&south)), Link::Far);
    check((a, Some(&north)), (b, None), Link::Far);
    check((a, None), (b, None), Link::Far);
    check((a, None), (a, None), Link::Near);
    check((a, None), (mapped, None), Link::Near);
    let [here, there]: [IpAddr; 2] = ["127.1.0.1", "127.2.0.1"].map(|a| a.parse().unwrap());
    check((here, Some(&north)), (there, Some(&south)), Link::Near);
    check((here, None), (b, None), Link::Far);
}

#[test]
fn only_an_emergency_competes_on_a_wan() {
    for class in [None, Some(Class::Background), Some(Class::Normal)] {
        assert_eq!(Link::Far.manner(class), Manner::Background);
        assert_eq!(Link::Near.manner(class), Manner::Fair);
    }
    assert_eq!(Link::Far.manner(Some(Class::Emergency)), Manner::Fair);
}
