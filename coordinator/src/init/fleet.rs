//! The making itself, step by step; `coordinator.json` comes last, so a directory that has it is whole.

use std::net::IpAddr;
use std::path::Path;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::SigningKey;
use node::config::{ListenAsked, Role as NodeRole, write_durably};
use node::net::identity::issue::{IssuingCa, Validity};
use node::net::identity::{Admission, Identity, save_key};
use node::renew::Api;
use protocol::enroll::EnrollReply;
use protocol::envelope::Envelope;
use protocol::trust::{Role, RoleKeys, Root, Trust};
use protocol::{FleetId, Hash, NodeId, Span, Time};

use super::options::Ports;
use super::{InitError, KeySpec, Options, make_dir};
use crate::directory::{Directory, Settings};
use crate::keys;
use crate::ledger::{Ledger, events};

/// The issuing CA outlives the roots that name it.
pub(crate) const CA_LIFE: Span = Span::from_secs(10 * 365 * 86_400);
/// Certificates hold from a day before, for machines whose clocks are behind.
pub(crate) const SKEW: Span = protocol::limits::CERTIFICATE_SKEW;
/// Epoch of orders and of node registers in a new fleet.
pub(crate) const FIRST_EPOCH: u32 = 1;

pub(super) fn make(
    dir: &Directory,
    options: &Options,
    ports: &Ports,
) -> Result<FleetId, InitError> {
    let other = |e: &dyn std::fmt::Display| InitError::Other(e.to_string());
    let now = wall();
    let for_ever = Validity {
        not_before: now - SKEW,
        not_after: now + CA_LIFE,
    };
    for path in [
        dir.online_dir(),
        dir.ca_dir(),
        dir.peer_dir(),
        dir.server_dir(),
    ] {
        make_dir(&path)?;
    }

    let keys_dir = options.keys.clone().unwrap_or_else(|| dir.keys_dir());
    make_dir(&keys_dir)?;
    let root_keys = make_keys(&keys_dir, &options.root)?;
    let release_keys = make_keys(&keys_dir, &options.releases)?;
    let operator_keys = make_keys(&keys_dir, &options.operators)?;

    let online = keys::generate();
    save_key(&dir.online_key_file(), &online).map_err(|e| other(&e))?;
    let ca_key = keys::generate();
    save_key(&dir.ca_key_file(), &ca_key).map_err(|e| other(&e))?;
    let ca = IssuingCa::create(&options.fleet_name, &ca_key, for_ever).map_err(|e| other(&e))?;
    write_file(&dir.ca_certificate_file(), ca.certificate(), 0o644)?;

    let role = |role, keys: &[SigningKey], threshold| RoleKeys {
        role,
        keys: keys.iter().map(keys::public).collect(),
        threshold,
    };
    let root = Root {
        spec_version: 1,
        fleet_name: options.fleet_name.clone(),
        fleet: None,
        version: 1,
        expires: now + options.root_life,
        roles: vec![
            role(Role::Root, &root_keys, options.root_threshold),
            role(Role::Releases, &release_keys, options.releases_threshold),
            role(Role::Plans, &operator_keys, options.plans_threshold),
            role(Role::Topology, &operator_keys, 1),
            role(Role::Coordinator, std::slice::from_ref(&online), 1),
        ],
        issuing_cas: vec![HEXLOWER.encode(ca.certificate())],
        delegations: Vec::new(),
    };
    let mut envelope = root.to_envelope();
    root_keys.iter().for_each(|key| envelope.sign(key));
    let fleet = FleetId(envelope.digest().0);
    Trust::pin(envelope.clone(), fleet).map_err(|e| other(&e))?;
    let roots = vec![envelope];
    write_file(
        &dir.root_file(),
        &serde_json::to_vec_pretty(&roots).expect("plain data"),
        0o644,
    )?;

    let server_pin = make_server(dir, &ca, options, ports, for_ever)?;
    let coordinator = make_peer(dir, &ca, for_ever)?;
    let origin_key = keys::generate();
    let settings = Settings {
        spec_version: 1,
        fleet,
        fleet_name: options.fleet_name.clone(),
        coordinator,
        origin: NodeId(keys::public(&origin_key).0),
        public: options.public,
        api: ports.api,
        control: ports.control,
        origin_control: ports.origin_control,
        origin_data: ports.origin_data,
        server_pin,
        time_frames: Default::default(),
        starts_per_day: None,
        certificate_life: None,
    };
    make_origin(dir, &settings, &origin_key, &ca, roots, for_ever)?;
    write_file(
        &dir.api_token_file(),
        BASE64URL_NOPAD.encode(&keys::random_32()).as_bytes(),
        0o600,
    )?;

    let mut ledger = Ledger::create(&dir.ledger_file()).map_err(|e| other(&e))?;
    ledger
        .append(vec![events::first(fleet, FIRST_EPOCH, now)])
        .map_err(|e| other(&e))?;
    drop(ledger);
    write_file(
        &dir.settings_file(),
        &serde_json::to_vec_pretty(&settings).expect("plain data"),
        0o644,
    )?;
    Ok(fleet)
}

fn make_keys(dir: &Path, specs: &[KeySpec]) -> Result<Vec<SigningKey>, InitError> {
    let mut made = Vec::new();
    for KeySpec { name, passphrase } in specs {
        let key = keys::generate();
        keys::save(dir, name, &key, passphrase.as_deref())?;
        made.push(key);
    }
    Ok(made)
}

/// Certificate and key of the API. Gives its pin.
fn make_server(
    dir: &Directory,
    ca: &IssuingCa,
    options: &Options,
    ports: &Ports,
    validity: Validity,
) -> Result<Hash, InitError> {
    let other = |e: &dyn std::fmt::Display| InitError::Other(e.to_string());
    let key = keys::generate();
    save_key(&dir.server_key_file(), &key).map_err(|e| other(&e))?;
    let mut names = vec!["localhost".to_owned()];
    let mut addresses: Vec<IpAddr> = vec![ports.api.ip()];
    addresses.extend(options.public);
    for name in &options.api_names {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name.clone()),
        }
    }
    let certificate = ca
        .server(&key, &names, &addresses, serial(), validity)
        .map_err(|e| other(&e))?;
    write_file(&dir.server_certificate_file(), &certificate, 0o644)?;
    Ok(Hash::of(&certificate))
}

/// The coordinator as a peer among peers.
fn make_peer(dir: &Directory, ca: &IssuingCa, validity: Validity) -> Result<NodeId, InitError> {
    let other = |e: &dyn std::fmt::Display| InitError::Other(e.to_string());
    let key = keys::generate();
    let node = NodeId(keys::public(&key).0);
    let leaf = ca.node(node, serial(), validity).map_err(|e| other(&e))?;
    let admission = Admission::new(vec![ca.certificate().clone()]).map_err(|e| other(&e))?;
    let identity = Identity::new(key, vec![leaf, ca.certificate().clone()], admission.into());
    identity.save(&dir.peer_dir()).map_err(|e| other(&e))?;
    Ok(node)
}

/// The origin's directory, for one whose own was lost.
pub(crate) fn restore_origin(
    dir: &Directory,
    settings: &Settings,
    key: &SigningKey,
    ca: &IssuingCa,
    roots: Vec<Envelope>,
) -> Result<(), InitError> {
    let now = wall();
    let validity = Validity {
        not_before: now - SKEW,
        not_after: now + CA_LIFE,
    };
    make_origin(dir, settings, key, ca, roots, validity)
}

fn make_origin(
    dir: &Directory,
    settings: &Settings,
    key: &SigningKey,
    ca: &IssuingCa,
    roots: Vec<Envelope>,
    validity: Validity,
) -> Result<(), InitError> {
    let other = |e: &dyn std::fmt::Display| InitError::Other(e.to_string());
    let leaf = ca
        .node(settings.origin, serial(), validity)
        .map_err(|e| other(&e))?;
    let reply = EnrollReply {
        spec_version: 1,
        fleet: settings.fleet,
        roots,
        certificates: vec![HEXLOWER.encode(&leaf), HEXLOWER.encode(ca.certificate())],
        site: None,
        labels: Vec::new(),
        coordinators: vec![settings.coordinator_contact()],
        origins: vec![settings.origin_contact()],
        epoch: FIRST_EPOCH,
    };
    let listen = ListenAsked {
        address: settings.origin_control.ip(),
        control_port: settings.origin_control.port(),
        data_port: settings.origin_data.port(),
    };
    let adopted = node::enroll::adopt(
        &dir.origin_dir(),
        key,
        &reply,
        settings.fleet,
        NodeRole::Origin,
        Vec::new(),
        listen,
    );
    adopted.map_err(|e| other(&e))?;
    let api = Api::at(
        &format!("https://{}", settings.public_api()),
        settings.server_pin,
    );
    api.store(&dir.origin_dir()).map_err(|e| other(&e))?;
    make_dir(&dir.incoming_dir())
}

/// A serial number that was never used before. Random, so that a coordinator restored from a backup
/// gives none out twice.
pub(crate) fn serial() -> u64 {
    let bytes = keys::random_32();
    (u64::from_le_bytes(bytes[..8].try_into().expect("eight of 32 bytes")) >> 1).max(1)
}

/// The system's wall clock.
pub(crate) fn wall() -> Time {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Time(since.as_millis() as u64)
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), InitError> {
    write_durably(path, bytes, mode).map_err(|e| InitError::Other(e.to_string()))
}
