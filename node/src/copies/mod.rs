//! A node's directory on another machine than its own, and images that are meant to be copied.
//!
//! Two machines with one key would contradict each other in every number that they give. So a directory
//! knows its machine. On another one it makes a key of its own and enrols by the proof of the key that it
//! was copied with; everything is written down before the old key is gone, so that a crash in between
//! costs nothing. [`seal`] takes the key out of a directory before it becomes an image.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use protocol::enroll::{EnrollReply, RejoinRequest};
use protocol::limits::API_BODY_MAX_BYTES;
use protocol::{Hash, NodeId};

use crate::config::{ConfigError, NodeConfig, Role, write_durably};
use crate::enroll::{EnrollError, ask, key_at, machine_request, take_over};
use crate::machine;
use crate::net::identity::{CERTIFICATES_FILE, KEY_FILE, certificates_in, load_key};
use crate::renew::Api;

mod image;

pub use image::{SealedImage, enroll_sealed, seal};

/// The directory's node on this machine: itself, or a new one if it was copied here.
///
/// # Errors
/// When it was copied and cannot be enrolled now; the key of the other machine is not used then.
pub(crate) async fn settle(dir: &Path, config: NodeConfig) -> Result<NodeConfig, EnrollError> {
    let here = machine::id(&config.fleet).filter(|_| config.role == Role::Endpoint);
    let Some(here) = here else {
        return Ok(config);
    };
    match config.machine {
        Some(bound) if bound == here => {
            Files::of(dir, here).remove();
            Ok(config)
        }
        None => {
            let bound = NodeConfig {
                machine: Some(here),
                ..config
            };
            bound.store(dir)?;
            Ok(bound)
        }
        Some(_) => rejoin(dir, config, here).await,
    }
}

/// What is kept until the directory is this machine's own; named by it, because it may be copied again.
struct Files {
    key: PathBuf,
    reply: PathBuf,
}

impl Files {
    fn of(dir: &Path, here: Hash) -> Files {
        let name = &here.to_string()[..16];
        Files {
            key: dir.join(format!("next-{name}.key")),
            reply: dir.join(format!("next-{name}.json")),
        }
    }

    fn remove(&self) {
        // Left behind they harm nothing, and the next start tries again.
        let _ = fs::remove_file(&self.reply);
        let _ = fs::remove_file(&self.key);
    }

    fn reply(&self) -> Option<EnrollReply> {
        let short = fs::metadata(&self.reply).ok()?.len() <= API_BODY_MAX_BYTES as u64;
        let json = short.then(|| fs::read(&self.reply).ok()).flatten()?;
        serde_json::from_slice(&json).ok()
    }
}

async fn rejoin(dir: &Path, old: NodeConfig, here: Hash) -> Result<NodeConfig, EnrollError> {
    let files = Files::of(dir, here);
    let key = key_at(&files.key)?;
    let reply = match files.reply() {
        Some(reply) => reply,
        None => {
            let request = request(dir, &old, &key)?;
            let api = Api::needed(dir)?;
            let reply: EnrollReply = ask(&api, "/v1/rejoin", &request).await?;
            let json = serde_json::to_vec(&reply).expect("plain data");
            write_durably(&files.reply, &json, 0o600)?;
            reply
        }
    };
    let copied = old.node;
    let config = NodeConfig {
        node: NodeId(key.verifying_key().to_bytes()),
        hostname: crate::inventory::hostname(),
        machine: Some(here),
        site: reply.site.clone(),
        coordinators: reply.coordinators.clone(),
        origins: reply.origins.clone(),
        epoch: reply.epoch,
        ..old
    };
    take_over(dir, &key, &reply, &config)?;
    files.remove();
    tracing::warn!(
        event = "copied",
        "this directory was copied from the machine of {}: it is enrolled as {} now",
        copied.short(),
        config.node.short()
    );
    Ok(config)
}

fn request(
    dir: &Path,
    old: &NodeConfig,
    key: &ed25519_dalek::SigningKey,
) -> Result<RejoinRequest, EnrollError> {
    let old_key = load_key(&dir.join(KEY_FILE))?;
    let chain = certificates_in(&dir.join(CERTIFICATES_FILE), &old_key)?;
    let certificate = chain
        .first()
        .map(|leaf| data_encoding::HEXLOWER.encode(leaf));
    let mut enroll = machine_request(key, old.labels.clone());
    enroll.prove(key);
    let mut request = RejoinRequest {
        spec_version: 1,
        fleet: old.fleet,
        copy_of: old.node,
        certificate: certificate.unwrap_or_default(),
        enroll,
        proof: String::new(),
    };
    request.prove(&old_key);
    Ok(request)
}

/// Removes a file if it is there.
fn remove(path: &Path) -> Result<(), ConfigError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ConfigError::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
