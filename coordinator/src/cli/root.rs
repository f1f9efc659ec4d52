//! `root show|online-key|issuing-ca|rotate|sign|publish|fetch`: how a fleet changes its keys.
//!
//! Each step but `publish` and `fetch` works on a machine without a network: a request goes out as a
//! file, signatures come back as files. A signature file is the request's envelope with one signature.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use node::config::write_durably;
use node::net::identity::save_key;
use protocol::delegations::{self, Delegation};
use protocol::envelope::Envelope;
use protocol::trust::{Role, RoleKeys, Root, Trust};
use protocol::{FleetId, PublicKey};

use super::args::trust::{Part, Root as Command, RootRotate};
use super::{issuing, output, setup, units};
use crate::directory::Directory;
use crate::keys;

/// `tidegate root …`
///
/// # Errors
/// One line each: what cannot be read, does not follow, or is refused.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Show { root, json } => show(&root, json),
        Command::OnlineKey { dir, out } => online_key(&dir, &out),
        Command::Rotate(ask) => rotate(&ask).context("failed to make the next root"),
        Command::Sign {
            request,
            key,
            root,
            out,
        } => sign(&request, &key, &root, out).context("failed to sign the root"),
        Command::IssuingCa(ask) => {
            issuing::make(&ask).context("failed to make the next issuing CA")
        }
        Command::Publish {
            at,
            request,
            signatures,
        } => publish(&at.dir, &request, &signatures)
            .await
            .context("failed to publish the root"),
        Command::Fetch { at } => fetch(&at.dir).await.context("failed to fetch the root"),
    }
}

/// The chain of a file, walked from its first root on.
///
/// # Errors
/// When it is no chain of roots.
fn walk(envelopes: &[Envelope]) -> anyhow::Result<Trust> {
    let first = envelopes.first().context("it holds no root")?;
    let mut trust = Trust::pin(first.clone(), FleetId(first.digest().0))?;
    for next in &envelopes[1..] {
        trust.update(next.clone())?;
    }
    Ok(trust)
}

/// The chain of roots of a file, with what it leads to.
///
/// # Errors
/// When it is no chain of roots.
pub fn read_chain(path: &Path) -> anyhow::Result<(Vec<Envelope>, Trust)> {
    let of_file = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(of_file)?;
    let envelopes: Vec<Envelope> = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is not root metadata", path.display()))?;
    let trust = walk(&envelopes).with_context(of_file)?;
    Ok((envelopes, trust))
}

pub(super) fn read_envelope(path: &Path) -> anyhow::Result<Envelope> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Envelope::from_json(&bytes).with_context(|| path.display().to_string())
}

/// The root of a request, which counts for nothing yet.
fn proposed(envelope: &Envelope) -> anyhow::Result<Root> {
    if envelope.payload_type != Root::PAYLOAD_TYPE {
        bail!("it is a {:?}, not a root", envelope.payload_type);
    }
    Ok(serde_json::from_slice(&envelope.payload)?)
}

fn show(path: &Path, json: bool) -> anyhow::Result<()> {
    let failed = "failed to show the root";
    let text = std::fs::read(path)
        .with_context(|| path.display().to_string())
        .context(failed)?;
    let (roots, proposal) = match Envelope::from_json(&text) {
        Ok(request) => (vec![proposed(&request).context(failed)?], true),
        Err(_) => {
            let (envelopes, _) = read_chain(path).context(failed)?;
            let roots: anyhow::Result<Vec<Root>> = envelopes.iter().map(proposed).collect();
            (roots.context(failed)?, false)
        }
    };
    if json {
        return output::json(&roots);
    }
    let Some(newest) = roots.last() else {
        bail!("{failed}: {} holds no root", path.display());
    };
    let state = if proposal { " (not in force)" } else { "" };
    output::line(&format!("fleet        {}", newest.fleet_name))?;
    output::line(&format!("version      {}{state}", newest.version))?;
    let now = units::wall_now();
    let left = newest.expires.since(now);
    let days = left.as_millis() / 86_400_000;
    output::line(&format!("expires      in {days} days"))?;
    for role in &newest.roles {
        let keys: Vec<String> = role.keys.iter().map(|key| key.short()).collect();
        output::line(&format!(
            "{:<12} {} of {}: {}",
            name(role.role),
            role.threshold,
            role.keys.len(),
            keys.join(" ")
        ))?;
    }
    for one in &newest.delegations {
        output::line(&format!("delegation   {}", described(one)))?;
    }
    let (lines, warnings) = issuing::described(newest, now);
    let warnings = warnings.iter().map(|line| format!("warning      {line}"));
    let mut all = lines.into_iter().chain(warnings);
    all.try_for_each(|line| output::line(&line))
}

fn online_key(dir: &Path, out: &Path) -> anyhow::Result<()> {
    let failed = "failed to make the next online key";
    let directory = Directory::new(dir);
    directory.settings().context(failed)?;
    let path = directory.next_online_key_file();
    if path.exists() {
        bail!(
            "{failed}: {} is there already; publish the root that names it, or remove it",
            path.display()
        );
    }
    let key = keys::generate();
    save_key(&path, &key).context(failed)?;
    let public = format!("{}\n", keys::public(&key));
    write_durably(out, public.as_bytes(), 0o644).context(failed)?;
    output::line(&format!(
        "next   tidegate root rotate --add coordinator={}",
        out.display()
    ))
}

fn rotate(ask: &RootRotate) -> anyhow::Result<()> {
    let (_, trust) = read_chain(&ask.root)?;
    let mut root = (**trust.root()).clone();
    root.version += 1;
    root.fleet = Some(trust.fleet());
    root.expires = units::wall_now() + ask.valid;
    for (part, text) in &ask.remove {
        match part {
            Part::Role(role) => remove_key(role_of(&mut root, *role)?, text)?,
            Part::Ca => issuing::remove(&mut root, text)?,
        }
    }
    for (part, file) in &ask.add {
        let file = Path::new(file);
        match part {
            Part::Role(role) => add_key(role_of(&mut root, *role)?, file)?,
            Part::Ca => issuing::add(&mut root, file)?,
        }
    }
    for (role, count) in &ask.threshold {
        role_of(&mut root, *role)?.threshold = *count;
    }
    delegate(ask, &mut root.delegations)?;
    delegations::check(&root.delegations).map_err(|why| anyhow::anyhow!("delegation {why}"))?;
    for role in &root.roles {
        if role.keys.len() < role.threshold as usize {
            bail!(
                "the {} role would have {} keys, and {} must sign; add keys or lower --threshold",
                name(role.role),
                role.keys.len(),
                role.threshold
            );
        }
    }
    if ask.out.exists() {
        bail!(
            "{} is there already; choose another name",
            ask.out.display()
        );
    }
    issuing::check(&root)?;
    write_durably(&ask.out, &root.to_envelope().to_json(), 0o644)?;
    differences(trust.root(), &root)?;
    output::line(&format!(
        "next   tidegate root sign {} --key KEY --root root.json, by {}",
        ask.out.display(),
        who_must(trust.root(), &root)
    ))
}

/// Takes away the key of a `.pub` file, or the one that begins with these digits.
fn remove_key(role: &mut RoleKeys, text: &str) -> anyhow::Result<()> {
    let meant = match keys::load_public(Path::new(text)) {
        Ok(key) => key.to_string(),
        Err(_) => text.to_owned(),
    };
    let found: Vec<PublicKey> = role
        .keys
        .iter()
        .filter(|k| k.to_string().starts_with(&meant))
        .copied()
        .collect();
    let [key] = found[..] else {
        bail!(
            "{} keys of the {} role begin with {meant:?}; name one",
            found.len(),
            name(role.role)
        );
    };
    role.keys.retain(|k| *k != key);
    Ok(())
}

fn add_key(role: &mut RoleKeys, file: &Path) -> anyhow::Result<()> {
    let key = keys::load_public(file)?;
    if role.keys.contains(&key) {
        bail!(
            "the {} role has key {} already",
            name(role.role),
            key.short()
        );
    }
    role.keys.push(key);
    Ok(())
}

/// Makes, changes and takes away delegations as asked for.
fn delegate(ask: &RootRotate, all: &mut Vec<Delegation>) -> anyhow::Result<()> {
    for name in &ask.undelegate {
        let before = all.len();
        all.retain(|one| one.name != *name);
        if all.len() == before {
            bail!("there is no delegation {name:?}");
        }
    }
    for (name, products) in &ask.delegate {
        let products = products.split(',').map(str::to_owned).collect();
        match all.iter_mut().find(|one| one.name == *name) {
            Some(one) => one.products = products,
            None => all.push(Delegation {
                name: name.clone(),
                under: None,
                products,
                keys: Vec::new(),
                threshold: 1,
            }),
        }
    }
    for (name, file) in &ask.delegate_key {
        let key = keys::load_public(Path::new(file))?;
        named(all, name)?.keys.push(key);
    }
    for (name, count) in &ask.delegate_threshold {
        named(all, name)?.threshold = count
            .parse()
            .with_context(|| format!("{count:?} is no number of keys"))?;
    }
    for (name, other) in &ask.under {
        named(all, name)?.under = Some(other.clone());
    }
    Ok(())
}

fn named<'a>(all: &'a mut [Delegation], name: &str) -> anyhow::Result<&'a mut Delegation> {
    let found = all.iter_mut().find(|one| one.name == name);
    found.with_context(|| format!("there is no delegation {name:?}; make it with --delegate"))
}

/// A delegation in one line.
fn described(one: &Delegation) -> String {
    let keys: Vec<String> = one.keys.iter().map(PublicKey::short).collect();
    let under = one.under.as_deref().map(|other| format!(" under {other}"));
    format!(
        "{} signs {}{}: {} of {}",
        one.name,
        one.products.join(","),
        under.unwrap_or_default(),
        one.threshold,
        keys.join(" ")
    )
}

fn sign(request: &Path, key: &Path, root_file: &Path, out: Option<PathBuf>) -> anyhow::Result<()> {
    let (_, trust) = read_chain(root_file)?;
    let mut envelope = read_envelope(request)?;
    let next = proposed(&envelope).with_context(|| request.display().to_string())?;
    if next.version != trust.root().version + 1 || next.fleet != Some(trust.fleet()) {
        bail!(
            "{} does not follow root {} of this fleet; make it anew with `tidegate root rotate`",
            request.display(),
            trust.root().version
        );
    }
    let key = setup::load_signer(key)?;
    let public = key.public();
    let holds = |root: &Root| {
        root.role(Role::Root)
            .is_some_and(|r| r.keys.contains(&public))
    };
    if !holds(trust.root()) && !holds(&next) {
        bail!(
            "key {} is no root key, neither of this root nor of the next",
            public.short()
        );
    }
    differences(trust.root(), &next)?;
    envelope.signatures.clear();
    key.sign(&mut envelope)?;
    let out = signature_file(out.as_deref(), request, &public);
    write_durably(&out, &envelope.to_json(), 0o644)?;
    output::line(&format!("signature  {}", out.display()))
}

/// Where a signature goes, if nobody says.
pub(super) fn signature_file(asked: Option<&Path>, request: &Path, key: &PublicKey) -> PathBuf {
    let beside = || {
        let mut name = request.as_os_str().to_owned();
        name.push(format!(".{}.sig", key.short()));
        name.into()
    };
    asked.map_or_else(beside, Path::to_owned)
}

async fn publish(dir: &Path, request: &Path, signatures: &[PathBuf]) -> anyhow::Result<()> {
    let directory = Directory::new(dir);
    let (mut chain, mut trust) = read_chain(&directory.root_file())?;
    let mut envelope = read_envelope(request)?;
    envelope.signatures.clear();
    for path in signatures {
        let signed = read_envelope(path)?;
        if signed.payload != envelope.payload {
            bail!(
                "{} signs something else than {}",
                path.display(),
                request.display()
            );
        }
        envelope.signatures.extend(signed.signatures);
    }
    let before = trust.root().clone();
    trust.update(envelope.clone())?;
    let client = setup::client(dir)?;
    let version = client.publish_root(&envelope).await?;
    chain.push(envelope);
    keep_chain(&directory, &chain)?;
    output::line(&format!("root {version} is in force"))?;
    for role in [Role::Topology, Role::Plans, Role::Releases] {
        if before.retires(trust.root(), role) {
            let again = match role {
                Role::Topology => {
                    "the topology must be signed anew if the key signed it: tidegate sites --set"
                }
                Role::Plans => "rollouts that the key approved must be proposed anew",
                _ => "releases that the key signed must be signed and published anew",
            };
            output::line(&format!(
                "note   the {} role lost a key: {again}",
                name(role)
            ))?;
        }
    }
    Ok(())
}

async fn fetch(dir: &Path) -> anyhow::Result<()> {
    let directory = Directory::new(dir);
    let (held, trust) = read_chain(&directory.root_file())?;
    let told = setup::client(dir)?.roots().await?;
    let walked = walk(&told).context("the coordinator's chain does not hold")?;
    if walked.fleet() != trust.fleet() || told.len() < held.len() {
        bail!(
            "the coordinator's chain is not a continuation of {}",
            directory.root_file().display()
        );
    }
    keep_chain(&directory, &told)?;
    output::line(&format!("root {} is the newest", walked.root().version))
}

/// On the coordinator's own machine the coordinator has written the same already.
fn keep_chain(directory: &Directory, chain: &[Envelope]) -> anyhow::Result<()> {
    let json = serde_json::to_vec_pretty(chain)?;
    if std::fs::read(directory.root_file()).is_ok_and(|held| held == json) {
        return Ok(());
    }
    Ok(write_durably(&directory.root_file(), &json, 0o644)?)
}

fn role_of(root: &mut Root, role: Role) -> anyhow::Result<&mut RoleKeys> {
    let found = root.roles.iter_mut().find(|r| r.role == role);
    found.with_context(|| format!("the root has no {} role", name(role)))
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Root => "root",
        Role::Releases => "releases",
        Role::Plans => "plans",
        Role::Topology => "topology",
        Role::Coordinator => "coordinator",
    }
}

/// What a root changes, so that nobody signs blindly.
fn differences(before: &Root, after: &Root) -> anyhow::Result<()> {
    output::line(&format!("root {} -> {}", before.version, after.version))?;
    for next in &after.roles {
        let held = before.role(next.role);
        let (old, threshold) = held.map_or((&[][..], 0), |r| (&r.keys[..], r.threshold));
        let added = next
            .keys
            .iter()
            .filter(|k| !old.contains(k))
            .map(|k| ("+", k));
        let removed = old
            .iter()
            .filter(|k| !next.keys.contains(k))
            .map(|k| ("-", k));
        for (sign, key) in added.chain(removed) {
            output::line(&format!("{sign} {:<12} {key}", name(next.role)))?;
        }
        if threshold != next.threshold {
            output::line(&format!(
                "  {:<12} {} must sign instead of {threshold}",
                name(next.role),
                next.threshold
            ))?;
        }
    }
    let (old, new) = (&before.delegations, &after.delegations);
    for one in new.iter().filter(|one| !old.contains(one)) {
        output::line(&format!("+ delegation   {}", described(one)))?;
    }
    for one in old.iter().filter(|one| !new.contains(one)) {
        output::line(&format!("- delegation   {}", described(one)))?;
    }
    issuing::differences(before, after)
}

fn who_must(before: &Root, after: &Root) -> String {
    let of = |root: &Root| root.role(Role::Root).map_or(0, |r| r.threshold);
    if before.role(Role::Root) == after.role(Role::Root) {
        return format!("{} root keys", of(before));
    }
    format!(
        "{} of the old and {} of the new root keys",
        of(before),
        of(after)
    )
}
