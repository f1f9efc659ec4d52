//! The origin among sites, told as stories: who is sent where, and that nobody waits for ever.

use protocol::Hash;
use protocol::fixtures::Fleet;
use protocol::limits::{REFERRAL_WAIT_MAX, SPREAD_HOLDERS_MAX};

use super::deciding::{OWN_BEFORE, PASSED_MAX};
use super::*;

/// Pieces of 4 MiB; a site takes two in a second, four at a time, and gives one in two seconds.
const RATE: u64 = 4 << 20;
const PIECES: u64 = 16;

struct Tale {
    referrals: Referrals,
    out: Outbox,
    now: Time,
    tickets: u64,
}

fn blob() -> BlobRef {
    BlobRef {
        root: Hash::of(b"pack"),
        length: PIECES * RATE,
    }
}

fn node(site: u8, n: u8) -> NodeId {
    NodeId([site * 16 + n; 32])
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Told {
    Sent,
    Referred(NodeId),
    Other(Service),
}

impl Tale {
    /// Sites `s1`, `s2`, … that relay, but for the last.
    fn new(sites: u8) -> Tale {
        let mut topology = Fleet::new(1).topology(1, sites);
        for site in &mut topology.sites {
            site.wan_down_bytes_per_s = Some(2 * RATE);
            site.wan_up_bytes_per_s = Some(RATE / 2);
            site.relay = site.id != format!("s{sites}").parse().expect("a name");
        }
        let grain = Grain {
            pieces: PIECES,
            ..Grain::default()
        };
        let mut referrals = Referrals::new(grain);
        assert!(referrals.set_sites(&topology, |site| {
            (site.wan_down_bytes_per_s, site.wan_up_bytes_per_s)
        }));
        Tale {
            referrals,
            out: Outbox::default(),
            now: Time::from_secs(100),
            tickets: 0,
        }
    }

    fn asks(&mut self, who: NodeId, site: u8, piece: u32, spurned: &[NodeId]) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let wanted = Wanted {
            ticket,
            from: Contact {
                node: who,
                control: [].into(),
                data: Some(([127, site, 0, 1], 1).into()),
            },
            site: format!("s{site}").parse().expect("a name"),
            blob: blob(),
            pieces: vec![piece],
            spurned: spurned.to_vec(),
        };
        self.referrals.wanted(self.now, wanted, &mut self.out);
        ticket
    }

    /// The origin has found that its uplink carries many pieces at once.
    fn opens_wide(&mut self) {
        for _ in 0..12 {
            self.referrals.window.begin();
        }
        for _ in 0..12 {
            self.referrals.window.end(Span::ZERO, Span::ZERO);
        }
    }

    fn won(&mut self, who: NodeId, piece: u32) {
        let now = self.now;
        self.referrals
            .won(now, who, blob(), &[piece], &mut self.out);
    }

    fn passes(&mut self, span: Span) {
        let end = self.now + span;
        while let Some(at) = self.referrals.timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.referrals.tick(self.now, &mut self.out);
        }
        self.now = end;
    }

    /// All that was answered since the last time.
    fn told(&mut self) -> Vec<(Ticket, Told)> {
        let mut told = Vec::new();
        while let Some(action) = self.out.pop() {
            let Action::Serve { ticket, service } = action else {
                panic!("{action:?}");
            };
            told.push((
                ticket,
                match service {
                    Service::Send { .. } => Told::Sent,
                    Service::Refer(referral) => Told::Referred(referral.holders[0].node),
                    other => Told::Other(other),
                },
            ));
        }
        told
    }
}

#[test]
fn a_piece_is_handed_out_once_and_then_referred() {
    let mut tale = Tale::new(4);
    let first = tale.asks(node(1, 1), 1, 0, &[]);
    let second = tale.asks(node(2, 1), 2, 0, &[]);
    let third = tale.asks(node(3, 1), 3, 0, &[]);
    assert_eq!(tale.told(), [(first, Told::Sent)], "the others wait");
    tale.won(node(1, 1), 0);
    // one upload takes all of a site's way out
    assert_eq!(tale.told(), [(second, Told::Referred(node(1, 1)))]);
    tale.won(node(2, 1), 0);
    let told = tale.told();
    assert!(
        matches!(told[..], [(ticket, Told::Referred(_))] if ticket == third),
        "{told:?}"
    );
    // two sites have it and nothing to do: the one with the lower number gives
    assert!(told.contains(&(third, Told::Referred(node(1, 1)))));
}

#[test]
fn first_copies_go_to_different_sites() {
    let mut tale = Tale::new(3);
    tale.opens_wide();
    let asked: Vec<Ticket> = (0..6).map(|p| tale.asks(node(1, 1), 1, p, &[])).collect();
    let other = tale.asks(node(2, 1), 2, 4, &[]);
    // a site is promised what its link carries: four pieces at once
    let mut sent: Vec<(Ticket, Told)> = asked[..4].iter().map(|t| (*t, Told::Sent)).collect();
    sent.push((other, Told::Sent));
    assert_eq!(tale.told(), sent);
    tale.won(node(1, 1), 0);
    let next = [(asked[5], Told::Sent)];
    assert_eq!(tale.told(), next, "what the other brings is waited for");
    tale.won(node(2, 1), 4);
    assert_eq!(tale.told(), [], "the first site's link is full");
    tale.won(node(1, 1), 1);
    assert_eq!(tale.told(), [(asked[4], Told::Referred(node(2, 1)))]);
}

#[test]
fn who_is_referred_in_vain_gets_it_from_the_origin() {
    let mut tale = Tale::new(4);
    for site in 1..=2 {
        tale.asks(node(site, 1), site, 0, &[]);
        tale.won(node(site, 1), 0);
    }
    tale.told();
    let asker = node(3, 1);
    let ticket = tale.asks(asker, 3, 0, &[]);
    assert_eq!(tale.told(), [(ticket, Told::Referred(node(1, 1)))]);
    let ticket = tale.asks(asker, 3, 0, &[node(1, 1)]);
    assert_eq!(tale.told(), [(ticket, Told::Referred(node(2, 1)))]);
    let both = [node(1, 1), node(2, 1)];
    let ticket = tale.asks(asker, 3, 0, &both);
    assert_eq!(tale.told(), [(ticket, Told::Sent)]);
}

#[test]
fn a_first_copy_that_comes_to_nothing_is_handed_out_again() {
    let mut tale = Tale::new(3);
    let first = tale.asks(node(1, 1), 1, 0, &[]);
    let second = tale.asks(node(2, 1), 2, 0, &[]);
    assert_eq!(tale.told(), [(first, Told::Sent)]);
    // its connection broke: it never says that it holds the piece
    tale.referrals.left(tale.now, first);
    tale.passes(Span::from_secs(3));
    assert_eq!(tale.told(), [(second, Told::Sent)]);
}

#[test]
fn whoever_waits_for_very_long_is_served() {
    let mut tale = Tale::new(4);
    tale.asks(node(1, 1), 1, 0, &[]);
    tale.won(node(1, 1), 0);
    tale.told();
    // the only site that holds it has nothing left to give
    let name = "s1".parse().expect("a name");
    tale.referrals.links.set(&name, Some(RATE), Some(0));
    let waits = tale.asks(node(3, 1), 3, 0, &[]);
    tale.passes(REFERRAL_WAIT_MAX);
    assert_eq!(tale.told(), []);
    tale.passes(Span::from_secs(2 * OWN_BEFORE + 2));
    assert_eq!(tale.told(), [(waits, Told::Sent)]);
}

/// Behind two thousand sites whose uplinks were what everyone waited for, the origin gave eight more copies to
/// those whose requests had waited for long, though one after the other was served.
#[test]
fn a_line_that_moves_is_not_waited_in_vain() {
    let mut tale = Tale::new(4);
    tale.opens_wide();
    let slow = "s1".parse().expect("a name");
    tale.referrals.links.set(&slow, Some(RATE), Some(RATE / 64));
    for piece in 0..8 {
        tale.asks(node(1, 1), 1, piece, &[]);
        tale.won(node(1, 1), piece);
    }
    tale.told();
    let waits: Vec<Ticket> = (0..8)
        .map(|piece| tale.asks(node(3, 1), 3, piece, &[]))
        .collect();
    for (piece, ticket) in (0..).zip(waits) {
        assert_eq!(tale.told(), [(ticket, Told::Referred(node(1, 1)))]);
        tale.passes(Span::from_secs(64));
        tale.won(node(3, 1), piece);
    }
    assert!(tale.now > Time::from_secs(100) + REFERRAL_WAIT_MAX + Span::from_secs(100));
}

/// A request whose holder was busy whenever its site had room used to be passed over by all that came
/// after it, until the origin gave it once more.
#[test]
fn room_is_kept_for_a_request_that_was_passed_over() {
    let mut tale = Tale::new(4);
    tale.opens_wide();
    tale.asks(node(1, 1), 1, 0, &[]);
    tale.won(node(1, 1), 0);
    // the only holder of the first piece gives to another site
    let busy = tale.asks(node(3, 1), 3, 0, &[]);
    let passed = tale.asks(node(2, 1), 2, 0, &[]);
    assert!(tale.told().contains(&(busy, Told::Referred(node(1, 1)))));
    // meanwhile what comes after it is served, but not for ever
    let next = PASSED_MAX + 1;
    for piece in 1..next {
        let served = tale.asks(node(2, 1), 2, piece, &[]);
        assert_eq!(tale.told(), [(served, Told::Sent)]);
        tale.won(node(2, 1), piece);
    }
    let more: Vec<Ticket> = (next..next + 4)
        .map(|piece| tale.asks(node(2, 1), 2, piece, &[]))
        .collect();
    let three: Vec<(Ticket, Told)> = more[..3].iter().map(|t| (*t, Told::Sent)).collect();
    assert_eq!(tale.told(), three, "the last of four places is kept");
    tale.won(node(3, 1), 0);
    let told = tale.told();
    assert!(
        matches!(told[..], [(ticket, Told::Referred(_)), ..] if ticket == passed),
        "{told:?}"
    );
}

#[test]
fn who_may_not_relay_is_served_at_once_and_nobody_is_sent_there() {
    let mut tale = Tale::new(3);
    let outside = tale.asks(node(4, 1), 3, 0, &[]);
    assert_eq!(tale.told(), [(outside, Told::Sent)]);
    tale.won(node(4, 1), 0);
    let first = tale.asks(node(1, 1), 1, 0, &[]);
    assert_eq!(tale.told(), [(first, Told::Sent)]);
}

#[test]
fn whoever_leaves_keeps_nobody_from_what_it_waited_for() {
    let mut tale = Tale::new(4);
    let first = tale.asks(node(1, 1), 1, 0, &[]);
    let gone = tale.asks(node(2, 1), 2, 0, &[]);
    let waits = tale.asks(node(3, 1), 3, 0, &[]);
    tale.referrals.left(tale.now, gone);
    assert_eq!(tale.told(), [(first, Told::Sent)]);
    tale.won(node(1, 1), 0);
    assert_eq!(tale.told(), [(waits, Told::Referred(node(1, 1)))]);
}

/// A site whose fetchers change all the time was given every piece by the origin itself from its ninth
/// fetcher on: twice what a release has, with two thousand sites.
#[test]
fn the_ninth_node_of_a_site_is_referred_like_the_others() {
    let mut tale = Tale::new(4);
    tale.opens_wide();
    tale.asks(node(2, 1), 2, 0, &[]);
    tale.won(node(2, 1), 0);
    let most = SPREAD_HOLDERS_MAX as u8;
    for n in 1..=most {
        let piece = u32::from(n);
        tale.asks(node(1, n), 1, piece, &[]);
        if n != most {
            tale.won(node(1, n), piece);
        }
        tale.passes(Span::from_secs(200));
    }
    tale.told();
    let ninth = tale.asks(node(1, most + 1), 1, 0, &[]);
    assert_eq!(tale.told(), [(ninth, Told::Referred(node(2, 1)))]);
    tale.won(node(1, most + 1), 0);
    // Whoever held something is still known to hold it.
    let third = tale.asks(node(3, 1), 3, 1, &[]);
    assert_eq!(tale.told(), [(third, Told::Referred(node(1, 1)))]);
}

#[test]
fn a_site_has_no_more_waiting_than_the_table_bears() {
    let mut tale = Tale::new(3);
    tale.asks(node(1, 1), 1, 0, &[]);
    for _ in 0..REFERRALS_WAITING_MAX {
        tale.asks(node(2, 1), 2, 0, &[]);
    }
    assert_eq!(tale.told().len(), 1);
    let more = tale.asks(node(2, 1), 2, 0, &[]);
    assert_eq!(tale.told(), [(more, Told::Other(Service::Busy))]);
}
