//! The door for machines that are no nodes.

use std::fmt::Write as _;

use node::enroll::pin;
use protocol::foreign::{
    Demand, ForeignInventory, ForeignReply, ForeignReport, ForeignRule, ForeignVerdict,
};

use super::*;
use crate::api::messages::ForeignView;

const HOUR: Span = Span::from_secs(3600);

impl Town {
    async fn foreign_token(&self, uses: u32) -> TokenMade {
        let ask = NewToken {
            site: None,
            uses,
            life: HOUR,
            foreign: true,
            terms: Default::default(),
        };
        self.client.new_token(&ask).await.unwrap()
    }

    /// Posts bytes as they are; status and body of the answer.
    async fn post(&self, token: &TokenMade, body: Vec<u8>) -> (u16, Vec<u8>) {
        let (tls, _) = pin::client_config(token.token.server_pin);
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls);
        let http = http.no_proxy().build().unwrap();
        post_by(&http, self.dir().settings().unwrap().public_api(), body).await
    }

    async fn set_rules(&self, rules: Vec<ForeignRule>) {
        let topology = Topology {
            foreign: rules,
            ..self.topology(1)
        };
        let envelope = self.signed(&topology, &["alice"]);
        self.client.set_topology(&envelope).await.unwrap();
    }
}

async fn post_by(
    http: &reqwest::Client,
    at: impl std::fmt::Display,
    body: Vec<u8>,
) -> (u16, Vec<u8>) {
    let mut url = String::new();
    write!(url, "https://{at}/v1/report").unwrap();
    let answer = http.post(url).body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.bytes().await.unwrap().to_vec())
}

fn report(token: &TokenMade, fleet: FleetId, key: &SigningKey) -> ForeignReport {
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let attributes = [
        pair("os", "linux"),
        pair("arch", "x86_64"),
        pair("hostname", "visitor"),
    ];
    let mut report = ForeignReport {
        spec_version: 1,
        fleet,
        token_id: token.token.id.clone(),
        token_secret: token.token.secret.clone(),
        machine: NodeId(keys::public(key).0),
        inventory: ForeignInventory {
            attributes: attributes.into(),
            ..ForeignInventory::default()
        },
        proof: String::new(),
    };
    report.prove(key);
    report
}

fn json(report: &ForeignReport) -> Vec<u8> {
    serde_json::to_vec(report).unwrap()
}

fn line(body: &[u8]) -> String {
    let said: serde_json::Value = serde_json::from_slice(body).expect("an error is JSON");
    let line = said["error"].as_str().expect("a line").to_owned();
    assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
    line
}

#[tokio::test]
async fn a_foreign_machine_gets_a_verdict_is_remembered_apart_and_is_no_node() {
    let mut town = Town::new().await;
    let rule = |name: &str, filter: &str| ForeignRule {
        name: name.into(),
        demand: Demand::Require(filter.parse().unwrap()),
    };
    town.set_rules(vec![
        rule("linux", "os=linux"),
        rule("asset", "label.asset"),
    ])
    .await;
    let token = town.foreign_token(1).await;
    let key = keys::generate();
    let asked = report(&token, town.fleet, &key);
    let (status, body) = town.post(&token, json(&asked)).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let reply: ForeignReply = serde_json::from_slice(&body).unwrap();
    let verdict: ForeignVerdict = serde_json::from_slice(&reply.verdict.payload).unwrap();
    assert_eq!(
        (verdict.machine, verdict.report),
        (asked.machine, asked.digest())
    );
    let words: Vec<_> = verdict.rules.iter().map(|r| r.why.is_empty()).collect();
    assert_eq!(words, [true, false]);

    town.restart().await;
    let mut tagged = asked.clone();
    tagged.inventory.labels = [("asset".into(), "7".into())].into();
    tagged.prove(&key);
    assert_eq!(town.post(&token, json(&tagged)).await.0, 200);
    let found: Vec<ForeignView> = town.client.foreign().await.unwrap();
    let [one] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((one.machine, one.times), (asked.machine, 2));
    assert_eq!((one.hostname.as_str(), one.compliant), ("visitor", true));
    assert!(one.first_seen <= one.last_seen);
    assert_eq!(one.site, Some("north".parse().unwrap()), "by its address");
    assert!(town.client.nodes().await.unwrap().is_empty());
    assert_eq!(town.client.status().await.unwrap().nodes, 0);
    // The token serves one machine, as often as it likes.
    let other = report(&token, town.fleet, &keys::generate());
    let (status, body) = town.post(&token, json(&other)).await;
    assert_eq!(status, 403);
    assert!(line(&body).contains("all of its 1"), "{}", line(&body));
    town.close().await;
}

#[tokio::test]
async fn tokens_keys_and_doors_of_nodes_and_of_foreign_machines_stay_apart() {
    let mut town = Town::new().await;
    let (foreign, nodes) = (town.foreign_token(5).await, town.token(5, HOUR).await);
    let key = keys::generate();
    let (status, said) = refusal(town.client.enroll(&request(&foreign, &key)).await);
    assert_eq!(status, 403);
    assert!(said.contains("is for foreign machines"), "{said}");
    let (status, body) = town
        .post(&foreign, json(&report(&nodes, town.fleet, &key)))
        .await;
    assert_eq!(status, 403);
    assert!(line(&body).contains("become nodes"), "{}", line(&body));

    // Nothing was used up, and a node's key reports at no foreign door.
    town.client.enroll(&request(&nodes, &key)).await.unwrap();
    let (status, body) = town
        .post(&foreign, json(&report(&foreign, town.fleet, &key)))
        .await;
    assert_eq!(status, 409);
    assert!(
        line(&body).contains("node of this fleet"),
        "{}",
        line(&body)
    );

    // Who becomes a node later is among the nodes, and there alone.
    let later = keys::generate();
    let asked = json(&report(&foreign, town.fleet, &later));
    assert_eq!(town.post(&foreign, asked).await.0, 200);
    assert_eq!(town.client.foreign().await.unwrap().len(), 1);
    town.client.enroll(&request(&nodes, &later)).await.unwrap();
    assert!(town.client.foreign().await.unwrap().is_empty());
    assert_eq!(town.client.nodes().await.unwrap().len(), 2);

    // Another key's proof, another fleet, too much.
    let stranger = keys::generate();
    let mut forged = report(&foreign, town.fleet, &stranger);
    forged.prove(&key);
    assert_eq!(town.post(&foreign, json(&forged)).await.0, 403);
    let elsewhere = report(&foreign, FleetId([9; 32]), &stranger);
    assert_eq!(town.post(&foreign, json(&elsewhere)).await.0, 400);
    let mut loud = report(&foreign, town.fleet, &stranger);
    loud.inventory.labels = [("a".into(), "\u{1b}[2J".into())].into();
    loud.prove(&stranger);
    assert_eq!(town.post(&foreign, json(&loud)).await.0, 400);
    assert!(town.client.foreign().await.unwrap().is_empty());
    town.close().await;
}

/// A thousand damages of a genuine report: each is refused in one line, or says what the genuine one said.
#[tokio::test]
async fn a_damaged_report_is_refused_or_means_the_same() {
    let mut town = Town::new().await;
    let token = town.foreign_token(1000).await;
    let asked = report(&token, town.fleet, &keys::generate());
    let genuine = json(&asked);
    let (tls, _) = pin::client_config(token.token.server_pin);
    let http = reqwest::Client::builder().tls_backend_preconfigured(tls);
    let http = http.no_proxy().build().unwrap();
    let at = town.dir().settings().unwrap().public_api();
    let mut state = 28_u64;
    let mut below = move |end: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % end
    };
    let mut refused = 0;
    for case in 0..1_000 {
        let mut body = genuine.clone();
        for _ in 0..1 + below(3) {
            let place = below(body.len());
            match case % 5 {
                0 => body[place] ^= 1 << below(8),
                1 => body.truncate(place.max(1)),
                2 => body.insert(place, [b'"', b'{', b'[', 0, 0xff, b'9'][below(6)]),
                3 => {
                    drop(body.drain(place..(place + 1 + below(16)).min(body.len() - 1).max(place)))
                }
                _ => {
                    let again = body[place..(place + 1 + below(32)).min(body.len())].to_vec();
                    let to = below(body.len());
                    body.splice(to..to, again);
                }
            }
        }
        let (status, said) = post_by(&http, at, body).await;
        match status {
            200 => {}
            400..500 => {
                line(&said);
                refused += 1;
            }
            other => panic!("case {case}: {other}: {}", String::from_utf8_lossy(&said)),
        }
    }
    assert!(refused > 900, "{refused}");
    let found = town.client.foreign().await.unwrap();
    assert!(
        found
            .iter()
            .all(|one| one.machine == asked.machine && one.hostname == "visitor")
    );
    assert_eq!(town.post(&token, genuine).await.0, 200);
    assert_eq!(town.client.foreign().await.unwrap().len(), 1);
    town.close().await;
}
