//! Whatever is told, in whatever order and at whatever times.

use proptest::prelude::*;

use crate::congestion::{Background, Micros};

#[derive(Clone, Debug)]
enum Told {
    Acked(u64, u64, u64, bool),
    End(u64),
    Lost(u64, u64, u64, bool),
    Packet(u64),
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_000u64, any::<u64>(), Just(0), Just(u64::MAX)]
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        (number(), number(), number(), any::<bool>())
            .prop_map(|(now, sent, bytes, idle)| Told::Acked(now, sent, bytes, idle)),
        number().prop_map(Told::End),
        (number(), number(), number(), any::<bool>())
            .prop_map(|(now, sent, bytes, none)| Told::Lost(now, sent, bytes, none)),
        number().prop_map(Told::Packet),
    ]
}

proptest! {
    #[test]
    fn the_window_stays_within_its_bounds(
        packet in number(),
        history in prop::collection::vec(told(), 0..200),
    ) {
        let mut flow = Background::new(packet);
        for one in history {
            match one {
                Told::Acked(now, sent, bytes, idle) => flow.acked(Micros(now), Micros(sent), bytes, idle),
                Told::End(now) => flow.acks_end(Micros(now)),
                Told::Lost(now, sent, bytes, none) => flow.lost(Micros(now), Micros(sent), bytes, none),
                Told::Packet(bytes) => flow.packet_is(bytes),
            }
            prop_assert!(flow.window() >= 3, "room for a packet");
            prop_assert!(flow.window() <= 64 << 20);
        }
    }
}

#[test]
fn a_packet_that_arrived_before_it_was_sent_is_no_path_without_delay() {
    let mut flow = Background::new(1_000);
    let ack = |flow: &mut Background, now: u64, sent: u64| {
        flow.acked(
            Micros::from_millis(now),
            Micros::from_millis(sent),
            1_000,
            false,
        );
        flow.acks_end(Micros::from_millis(now));
    };
    for n in 0..8 {
        ack(&mut flow, 100 + n, 80 + n);
    }
    ack(&mut flow, 110, 120);
    assert_eq!(flow.queueing(), Micros(0));
    ack(&mut flow, 130, 110);
    assert_eq!(flow.queueing(), Micros(0));
}
