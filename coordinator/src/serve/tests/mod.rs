//! The coordinator as its clients see it: in process, on loopback, over real sockets.

mod accessing;
mod admitting;
mod copying;
mod enrolling;
mod forecasting;
mod foreign;
mod issuing;
mod lifting;
mod mistakes;
mod renewing;
mod reporting;
mod revoking;
mod rolling;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use node::config::{ListenAsked, NodeConfig};
use node::enroll::{EnrollError, EnrollOptions, enroll};
use protocol::enroll::EnrollRequest;
use protocol::envelope::Envelope;
use protocol::plan::{Gate, Priority, Proposal, Selector, Targets, WaveDraft};
use protocol::topology::{Site, Topology};
use protocol::trust::Statement;
use protocol::{FleetId, Hash, NodeId, Span, Time};

use super::{OriginMode, Running, ServeOptions, start};
use crate::api::messages::{NewToken, TokenMade};
use crate::api::{ApiError, Client};
use crate::directory::Directory;
use crate::init::{Options, init};
use crate::keys;

/// A fleet of the default options, with its coordinator running and nobody at the origin's place.
struct Town {
    temp: tempfile::TempDir,
    fleet: FleetId,
    client: Client,
    running: Option<Running>,
}

impl Town {
    async fn new() -> Town {
        let temp = tempfile::tempdir().unwrap();
        let fleet = init(&temp.path().join("c"), &Options::default()).unwrap();
        let client = Client::from_dir(&temp.path().join("c")).unwrap();
        let mut town = Town {
            temp,
            fleet,
            client,
            running: None,
        };
        town.open().await;
        town
    }

    fn dir(&self) -> Directory {
        Directory::new(self.temp.path().join("c"))
    }

    fn options(&self) -> ServeOptions {
        ServeOptions {
            dir: self.dir().path().to_owned(),
            origin: OriginMode::Elsewhere,
            keep_origin: false,
        }
    }

    async fn open(&mut self) {
        self.running = Some(start(self.options()).await.unwrap());
    }

    async fn close(&mut self) {
        self.running.take().unwrap().shutdown().await;
    }

    async fn restart(&mut self) {
        self.close().await;
        self.open().await;
    }

    fn key(&self, name: &str) -> SigningKey {
        let path = self.dir().keys_dir().join(format!("{name}.pem"));
        keys::load(&path, || unreachable!("plain")).unwrap()
    }

    fn signed<T: Statement>(&self, statement: &T, by: &[&str]) -> Envelope {
        let mut envelope = statement.to_envelope();
        by.iter().for_each(|name| envelope.sign(&self.key(name)));
        envelope
    }

    async fn token(&self, uses: u32, life: Span) -> TokenMade {
        self.client
            .new_token(&NewToken {
                foreign: false,
                terms: Default::default(),
                site: Some("north".parse().unwrap()),
                uses,
                life,
            })
            .await
            .unwrap()
    }

    /// Enrols a machine by the node's own code.
    async fn enrol(&self, name: &str, token: &TokenMade) -> Result<NodeConfig, EnrollError> {
        let options = EnrollOptions {
            coordinator: format!("https://{}", self.dir().settings().unwrap().public_api()),
            token: token.token.clone(),
            root_digest: token.root,
            labels: vec![("ring".into(), "canary".into())],
            listen: ListenAsked {
                address: Ipv4Addr::LOCALHOST.into(),
                ..ListenAsked::default()
            },
        };
        enroll(&self.node_dir(name), options).await
    }

    fn node_dir(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn topology(&self, version: u64) -> Topology {
        let site = Site {
            id: "north".parse().unwrap(),
            subnets: vec!["127.0.0.0/8".parse().unwrap()],
            parent: None,
            wan_down_bytes_per_s: Some(1 << 20),
            wan_up_bytes_per_s: None,
            relay: false,
            no_peers: false,
            node: Default::default(),
            schedule: None,
        };
        Topology {
            foreign: Vec::new(),
            spec_version: 1,
            fleet: self.fleet,
            version,
            created: now(),
            sites: vec![site],
        }
    }

    fn proposal(&self, rollout: &str, release: Hash, proposer: &str) -> Proposal {
        let wave = WaveDraft {
            name: "all".into(),
            select: Selector::Rest,
            not_before: Time(0),
            gate: Gate {
                min_success_ppm: 900_000,
                min_sample: 1,
                soak: Span::from_secs(1),
                silence_after: Span::from_secs(60),
            },
        };
        Proposal {
            spec_version: 1,
            fleet: self.fleet,
            rollout: rollout.parse().unwrap(),
            release,
            proposer: keys::public(&self.key(proposer)),
            priority: Priority::Medium,
            targets: Targets::default(),
            waves: vec![wave],
            test: None,
            constraints: Default::default(),
            lease_ttl: Span::from_secs(60),
            not_after: now() + Span::from_secs(86_400),
        }
    }
}

fn now() -> Time {
    Time(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64,
    )
}

/// A request of a machine of its own, proven by its key.
fn request(token: &TokenMade, key: &SigningKey) -> EnrollRequest {
    let mut request = EnrollRequest {
        spec_version: 1,
        token_id: token.token.id.clone(),
        token_secret: token.token.secret.clone(),
        node: NodeId(keys::public(key).0),
        hostname: "box".into(),
        os: "linux".into(),
        arch: "x86_64".into(),
        labels: Vec::new(),
        proof: String::new(),
    };
    request.prove(key);
    request
}

/// Status code and line of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, ApiError>) -> (u16, String) {
    match result {
        Err(ApiError::Refused { status, message }) => {
            assert!(
                !message.is_empty() && !message.contains('\n'),
                "{message:?}"
            );
            (status, message)
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// Tries until it holds.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"))
}
