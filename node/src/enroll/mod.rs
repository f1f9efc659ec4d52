//! How a machine becomes a node: the token, the pinned server, the pinned root.
//!
//! The token pins the server's certificate; the root's digest comes apart from it and nothing else
//! is believed. Everything is written durably before `node.json`, which makes the directory a node.

pub mod pin;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use protocol::enroll::{EnrollReply, EnrollRequest, Token};
use protocol::limits::API_BODY_MAX_BYTES;
use protocol::trust::TrustError;
use protocol::{FleetId, NodeId, Time};
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, ListenAsked, NodeConfig, Role};
use crate::driver::{issued_at, issuing_cas, random_bytes};
use crate::inventory::hostname;
use crate::machine;
use crate::net::identity::{
    Admission, AdmissionError, Identity, IdentityError, KEY_FILE, RulesError, load_key, save_key,
};
use crate::renew::Api;
use crate::run::chain;
use crate::store::records::{Change, Records, RecordsError};

/// The coordinator answers within this, or it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the installer was given.
#[derive(Clone, Debug)]
pub struct EnrollOptions {
    /// The coordinator, e.g. `https://10.0.0.1:7443`.
    pub coordinator: String,
    /// The token.
    pub token: Token,
    /// Digest of the fleet's first root, given apart from the token.
    pub root_digest: FleetId,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Where the node should listen.
    pub listen: ListenAsked,
}

/// What an installer file holds, as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallerFile {
    /// Format version, 1.
    #[serde(default = "first_version")]
    pub spec_version: u32,
    /// The coordinator's address.
    pub coordinator: String,
    /// The token, as text.
    pub token: String,
    /// Digest of the fleet's first root, hex.
    pub root_digest: String,
}

/// Why a machine did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// It is a node already.
    #[error("{} is enrolled in fleet {fleet} already: use an empty directory", .dir.display())]
    AlreadyEnrolled {
        /// The directory.
        dir: PathBuf,
        /// The fleet that it belongs to.
        fleet: FleetId,
    },
    /// The directory cannot be used.
    #[error("{} cannot be written: {source}", .path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// By this machine's clock the token is over.
    #[error(
        "the token expired {ago_s} s ago: make a new one with 'tidegate token' (or set this machine's clock)"
    )]
    TokenExpired {
        /// Seconds since its end.
        ago_s: u64,
    },
    /// The address is none.
    #[error("{0:?} is not the address of a coordinator (such as https://10.0.0.1:7443)")]
    Address(String),
    /// Nobody answers there.
    #[error("the coordinator at {address} cannot be reached: {why}")]
    Unreachable {
        /// The address.
        address: String,
        /// What the system said.
        why: String,
    },
    /// Somebody else answers there.
    #[error(
        "the server at {0} is not the one that the token was made for: its certificate has another pin"
    )]
    Pin(String),
    /// The coordinator said no.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The answer is not understood.
    #[error("the coordinator's answer is not understood: {0}")]
    Reply(String),
    /// The root is not the pinned one, or does not hold.
    #[error("the coordinator's root is refused: {0}")]
    Root(#[from] TrustError),
    /// The certificate is not ours or not the fleet's.
    #[error("the certificate is refused: {0}")]
    Certificate(#[from] AdmissionError),
    /// The root's issuing CAs cannot be used.
    #[error("the root's issuing CAs are refused: {0}")]
    Issuers(#[from] RulesError),
    /// Key or certificate cannot be written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The database refused.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The directory is a damaged node's, or no port is free.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Enrols this machine over HTTPS and makes `dir` a node directory. `node.json` is written last.
///
/// # Errors
/// One line each, with the culprit and the next step.
pub async fn enroll(dir: &Path, options: EnrollOptions) -> Result<NodeConfig, EnrollError> {
    not_enrolled(dir)?;
    not_expired(&options.token)?;
    make_directory(dir)?;
    let key = key_at(&dir.join(KEY_FILE))?;
    let mut request = EnrollRequest {
        token_id: options.token.id.clone(),
        token_secret: options.token.secret.clone(),
        ..machine_request(&key, options.labels.clone())
    };
    request.prove(&key);
    let api = Api::at(&options.coordinator, options.token.server_pin);
    let reply: EnrollReply = ask(&api, "/v1/enroll", &request).await?;
    // Before `node.json`, which makes the directory a node's.
    api.store(dir)?;
    let EnrollOptions {
        root_digest,
        labels,
        listen,
        ..
    } = options;
    let labels: BTreeMap<_, _> = labels.into_iter().chain(reply.labels.clone()).collect();
    adopt(
        dir,
        &key,
        &reply,
        root_digest,
        Role::Endpoint,
        labels.into_iter().collect(),
        listen,
    )
}

/// Makes `dir` the directory of a node with `key`, from a reply that is checked first: the root
/// against `pinned`, the certificate against root and key. The coordinator makes its origin with it.
///
/// # Errors
/// When the reply does not hold or the directory cannot be written.
pub fn adopt(
    dir: &Path,
    key: &SigningKey,
    reply: &EnrollReply,
    pinned: FleetId,
    role: Role,
    labels: Vec<(String, String)>,
    listen: ListenAsked,
) -> Result<NodeConfig, EnrollError> {
    not_enrolled(dir)?;
    let config = NodeConfig {
        spec_version: 1,
        fleet: pinned,
        node: NodeId(key.verifying_key().to_bytes()),
        role,
        hostname: hostname(),
        labels,
        site: reply.site.clone(),
        listen: listen.settle()?,
        coordinators: reply.coordinators.clone(),
        origins: reply.origins.clone(),
        epoch: reply.epoch,
        enrolled: system_time(),
        zone: None,
        metered: None,
        ring: None,
        criticality: None,
        notify: Vec::new(),
        restart: Vec::new(),
        installer: None,
        agent: None,
        dscp: Default::default(),
        machine: machine::id(&pinned).filter(|_| role == Role::Endpoint),
    };
    take_over(dir, key, reply, &config)?;
    Ok(config)
}

/// Makes `dir` the directory of the node of `config`, whatever node it was before. `node.json` is written
/// last; until then the same may be done again.
pub(crate) fn take_over(
    dir: &Path,
    key: &SigningKey,
    reply: &EnrollReply,
    config: &NodeConfig,
) -> Result<(), EnrollError> {
    if reply.spec_version != 1 {
        let version = reply.spec_version;
        return Err(EnrollError::Reply(format!("it has version {version}")));
    }
    let mut roots = reply.roots.iter().cloned();
    let first = roots
        .next()
        .ok_or_else(|| EnrollError::Reply("it holds no root".into()))?;
    let trust = chain(first, roots, config.fleet)?;
    let admission = Arc::new(Admission::new(issuing_cas(trust.root()))?);
    let certificates = certificates(&reply.certificates)?;
    if let Some(own) = certificates.first() {
        admission.own_issued(issued_at(own));
    }
    let found = admission.admit(&certificates)?;
    if found != config.node {
        return Err(AdmissionError::WrongNode {
            expected: config.node,
            found,
        }
        .into());
    }
    make_directory(dir)?;
    // What an enrolment that was cut short, or another node, left behind belongs to no node.
    let stale = dir.join("store").join("store.redb");
    match fs::remove_file(&stale) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(EnrollError::Directory {
                path: stale,
                source,
            });
        }
        _ => {}
    }
    let changes: Vec<_> = (1..)
        .zip(&reply.roots)
        .map(|(version, root)| Change::Root(version, root.clone()))
        .collect();
    Records::open(dir)?.apply(&changes)?;
    Identity::new(key.clone(), certificates, admission).save(dir)?;
    config.store(dir)?;
    Ok(())
}

/// What this machine says of itself to be enrolled with a key; token and proof are still to come.
pub(crate) fn machine_request(key: &SigningKey, labels: Vec<(String, String)>) -> EnrollRequest {
    EnrollRequest {
        spec_version: 1,
        token_id: String::new(),
        token_secret: String::new(),
        node: NodeId(key.verifying_key().to_bytes()),
        hostname: hostname(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        labels,
        proof: String::new(),
    }
}

/// Puts a question to the coordinator's API, and to no other server.
pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned>(
    api: &Api,
    path: &str,
    request: &Q,
) -> Result<A, EnrollError> {
    let coordinator = api.address.as_str();
    let address = || EnrollError::Address(coordinator.to_owned());
    let base = reqwest::Url::parse(coordinator).map_err(|_| address())?;
    if base.scheme() != "https" {
        return Err(address());
    }
    let url = base.join(path).map_err(|_| address())?;
    let (tls, other_server) = pin::client_config(api.server_pin);
    let unreachable = |e: reqwest::Error| {
        if other_server.load(Ordering::Relaxed) {
            EnrollError::Pin(coordinator.to_owned())
        } else {
            EnrollError::Unreachable {
                address: coordinator.to_owned(),
                why: innermost(&e),
            }
        }
    };
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .map_err(unreachable)?;
    let mut response = client
        .post(url)
        .json(request)
        .send()
        .await
        .map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(unreachable)? {
        if body.len() + part.len() > API_BODY_MAX_BYTES {
            return Err(EnrollError::Reply("it is too long".into()));
        }
        body.extend_from_slice(&part);
    }
    if !response.status().is_success() {
        #[derive(Deserialize)]
        struct Said {
            error: String,
        }
        let said = serde_json::from_slice::<Said>(&body).map(|said| said.error);
        let said = said.unwrap_or_else(|_| response.status().to_string());
        let one_line: String = said
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(300)
            .collect();
        return Err(EnrollError::Refused(one_line));
    }
    serde_json::from_slice(&body).map_err(|e| EnrollError::Reply(e.to_string()))
}

pub(crate) fn certificates(hex: &[String]) -> Result<Vec<CertificateDer<'static>>, EnrollError> {
    let decode = |hex: &String| data_encoding::HEXLOWER.decode(hex.as_bytes());
    let ders: Result<Vec<_>, _> = hex.iter().map(decode).collect();
    let ders = ders.map_err(|_| EnrollError::Reply("a certificate is not hex".into()))?;
    Ok(ders.into_iter().map(CertificateDer::from).collect())
}

/// The key that the machine will be known by. One from an enrolment that was cut short serves again.
pub(crate) fn key_at(path: &Path) -> Result<SigningKey, EnrollError> {
    if path.exists() {
        return Ok(load_key(path)?);
    }
    let key = SigningKey::from_bytes(&random_bytes());
    save_key(path, &key)?;
    Ok(key)
}

pub(crate) fn not_expired(token: &Token) -> Result<(), EnrollError> {
    let now = system_time();
    if token.expires < now {
        let ago_s = now.since(token.expires).as_millis() / 1000;
        return Err(EnrollError::TokenExpired { ago_s });
    }
    Ok(())
}

pub(crate) fn make_directory(dir: &Path) -> Result<(), EnrollError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|source| EnrollError::Directory {
        path: dir.to_owned(),
        source,
    })
}

pub(crate) fn not_enrolled(dir: &Path) -> Result<(), EnrollError> {
    match NodeConfig::load(dir) {
        Err(ConfigError::NotEnrolled(_)) => Ok(()),
        Err(e) => Err(e.into()),
        Ok(config) => Err(EnrollError::AlreadyEnrolled {
            dir: dir.to_owned(),
            fleet: config.fleet,
        }),
    }
}

fn system_time() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Time(since.map_or(0, |d| d.as_millis() as u64))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// Files that name no version are of the first.
fn first_version() -> u32 {
    1
}

impl InstallerFile {
    /// The version that is written and read.
    pub const VERSION: u32 = 1;

    /// Reads an installer file.
    ///
    /// # Errors
    /// One line with the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<InstallerFile, String> {
        let name = path.display();
        let text = fs::read(path).map_err(|e| format!("{name}: {e}"))?;
        let file: InstallerFile = serde_json::from_slice(&text)
            .map_err(|e| format!("{name} is no installer file: {e}"))?;
        match file.spec_version {
            InstallerFile::VERSION => Ok(file),
            other => Err(format!(
                "{name} has spec_version {other}, which this program does not know: update it"
            )),
        }
    }

    /// What it asks for, beside what the command line adds.
    ///
    /// # Errors
    /// When token or digest are malformed.
    pub fn options(
        &self,
        labels: Vec<(String, String)>,
        listen: ListenAsked,
    ) -> Result<EnrollOptions, String> {
        Ok(EnrollOptions {
            coordinator: self.coordinator.clone(),
            token: self.token.parse()?,
            root_digest: FleetId::from_str(&self.root_digest).map_err(|_| {
                format!(
                    "{:?} is not a root digest (64 hex digits)",
                    self.root_digest
                )
            })?,
            labels,
            listen,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installer_file_is_read_and_written_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("installer.json");
        let file = InstallerFile {
            spec_version: InstallerFile::VERSION,
            coordinator: "https://127.0.0.1:7443".into(),
            token: "token".into(),
            root_digest: "00".repeat(32),
        };
        let write = |file: &InstallerFile| serde_json::to_vec_pretty(file).unwrap();
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            InstallerFile::read(&path)
        };
        let samples = [("1.json".to_owned(), write(&file))];
        crate::golden::check("installer", &samples, |bytes| {
            read(bytes).map(|f| write(&f))
        });

        let mut value = serde_json::to_value(&file).unwrap();
        value["spec_version"] = 2.into();
        let error = read(value.to_string().as_bytes()).unwrap_err();
        assert!(error.contains("spec_version 2"), "{error}");
        value.as_object_mut().unwrap().remove("spec_version");
        assert_eq!(read(value.to_string().as_bytes()), Ok(file));
    }
}
