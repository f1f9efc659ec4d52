//! Caps hold at the socket, over all nodes of a site.

use super::*;

/// Site `N` is 127.N.0.0/16, for 1 to 3.
fn topology() -> Arc<Topology> {
    let site = |n: u8| Site {
        id: format!("site-{n}").parse().unwrap(),
        subnets: vec![format!("127.{n}.0.0/16").parse().unwrap()],
        parent: None,
        wan_down_bytes_per_s: None,
        wan_up_bytes_per_s: None,
        relay: false,
        no_peers: false,
        node: Default::default(),
        schedule: None,
    };
    Arc::new(Topology {
        spec_version: 1,
        fleet: FleetId([0; 32]),
        version: 1,
        created: Time(0),
        sites: vec![site(1), site(2), site(3)],
        foreign: Vec::new(),
    })
}

fn site(n: u8) -> SiteId {
    format!("site-{n}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_fetchers_of_a_site_share_its_cap_at_the_socket() {
    const CAP: u64 = 600_000;
    let source = start(1, "127.0.0.1").await;
    source.plane.set_topology(topology());
    source.plane.set_pace(site(1), Some(CAP));
    let name = source.seed(&noise(600_000));
    let (a, b) = (start(2, "127.1.0.1").await, start(3, "127.1.0.2").await);
    let elsewhere = start(4, "127.2.0.1").await;
    elsewhere.plane.set_topology(topology());

    let begin = Instant::now();
    let wan = async |node: &Node| {
        let job = FetchJob {
            wan: true,
            ..node.job(&source.contact, name)
        };
        node.fetch(job).await
    };
    let (ends, third) = tokio::join!(async { tokio::join!(wan(&a), wan(&b)) }, async {
        let end = wan(&elsewhere).await;
        (end, begin.elapsed())
    });
    let seconds = begin.elapsed().as_secs_f64();
    for end in [ends.0, ends.1, third.0] {
        assert_eq!(
            end,
            FetchEnd {
                outcome: FetchOutcome::Complete,
                referral: None,
                bytes: 600_000
            }
        );
    }
    let counters = source.plane.counters();
    let paced = counters.sites[&Some(site(1))];
    let (burst, in_flight) = (CAP as f64 / 25.0, 16_384.0);
    let allowed = CAP as f64 * seconds + burst + in_flight;
    assert!(
        (paced.socket_out as f64) < allowed,
        "{} bytes in {seconds} s",
        paced.socket_out
    );
    assert_eq!(paced.payload_out, 1_200_000);
    assert!(
        (1_200_000..1_400_000).contains(&paced.socket_out),
        "{}",
        paced.socket_out
    );
    // A site without a cap was not held up, and both ends count alike.
    let free = counters.sites[&Some(site(2))];
    assert_eq!(free.payload_out, 600_000);
    let theirs = elsewhere.plane.counters();
    assert_eq!(theirs.wan_payload_in, 600_000);
    assert_eq!(theirs.sites[&None].payload_in, 600_000);
    let (sent, received) = (free.socket_out as f64, theirs.sites[&None].socket_in as f64);
    assert!(
        (0.9..=1.0).contains(&(received / sent)),
        "{received} of {sent}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_door_is_shut_serves_nobody() {
    let source = start(1, "127.1.0.1").await;
    source.plane.set_topology(topology());
    let name = source.seed(&noise(100_000));
    source.plane.doorkeep(Door::Shut);
    for (n, address) in [(2, "127.1.0.2"), (3, "127.2.0.1"), (4, "127.9.0.1")] {
        let asker = start(n, address).await;
        let end = asker.fetch_all(&source.contact, name).await;
        assert_eq!(end, FetchOutcome::Broken, "{address}");
        assert_eq!(
            source
                .plane
                .counters()
                .sites
                .values()
                .map(|s| s.payload_out)
                .sum::<u64>(),
            0
        );
    }
    source.plane.doorkeep(Door::Asks);
    let neighbour = start(5, "127.1.0.3").await;
    assert_eq!(
        neighbour.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_rate_acts_on_requests_under_way_and_inside_a_site_there_is_none() {
    let source = start(1, "127.1.0.1").await;
    source.plane.set_topology(topology());
    source.plane.set_pace(site(1), Some(1_000));
    source.plane.set_pace(site(2), Some(8_000));
    let name = source.seed(&noise(3_000_000));
    // The own site's cap is for its WAN: a neighbour has the LAN.
    let neighbour = start(2, "127.1.0.2").await;
    assert_eq!(
        neighbour.fetch_all(&source.contact, name).await,
        FetchOutcome::Complete
    );
    let far = start(3, "127.2.0.1").await;
    let job = far.job(&source.contact, name);
    let (_handle, end) = far.plane.fetch(job, mpsc::channel(1).0);
    while source
        .plane
        .counters()
        .sites
        .get(&Some(site(2)))
        .is_none_or(|count| count.socket_out < 4_000)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!end.is_finished());
    source.plane.set_pace(site(2), None);
    source.plane.set_pace(site(1), None);
    assert_eq!(end.await.unwrap().outcome, FetchOutcome::Complete);
}

type Change = fn(&mut NodeRates);

/// A site's nodes each keep to their own caps, whichever end has one, on a LAN as on a WAN.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_to_its_own_caps_as_giver_and_as_taker() {
    const BYTES: usize = 400_000;
    const CAP: u64 = 400_000;
    let capped = |change: Change| {
        let mut rates = NodeRates::default();
        change(&mut rates);
        rates
    };
    let lan = ["127.1.0.1", "127.1.0.2"];
    let wan = ["127.1.0.3", "127.2.0.1"];
    let cases: [(_, Change, Change, bool); 5] = [
        (lan, |r| r.lan_up_bytes_per_s = Some(CAP), |_| {}, true),
        (lan, |_| {}, |r| r.lan_down_bytes_per_s = Some(CAP), true),
        (wan, |r| r.wan_up_bytes_per_s = Some(CAP), |_| {}, true),
        (wan, |_| {}, |r| r.wan_down_bytes_per_s = Some(CAP), true),
        // The other way and the other link are not meant.
        (
            lan,
            |r| r.lan_down_bytes_per_s = Some(1),
            |r| r.wan_down_bytes_per_s = Some(1),
            false,
        ),
    ];
    for (n, (addresses, gives, takes, slow)) in cases.into_iter().enumerate() {
        let [source, taker] = [start(1, addresses[0]).await, start(2, addresses[1]).await];
        source.plane.set_topology(topology());
        taker.plane.set_topology(topology());
        source.plane.set_own_pace(capped(gives));
        taker.plane.set_own_pace(capped(takes));
        let name = source.seed(&noise(BYTES));
        let job = FetchJob {
            wan: addresses == wan,
            ..taker.job(&source.contact, name)
        };
        let begin = Instant::now();
        assert_eq!(
            taker.fetch(job).await.outcome,
            FetchOutcome::Complete,
            "case {n}"
        );
        let most = CAP as f64 * begin.elapsed().as_secs_f64() + CAP as f64 / 25.0 + 16_384.0;
        assert!(!slow || BYTES as f64 <= most, "case {n}: {BYTES} of {most}");
    }
}
