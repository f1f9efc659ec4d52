//! `init`, `serve`, `token`: making and running a coordinator.

use coordinator_core::contract::TokenTerms;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use node::enroll::InstallerFile;
use node::run::RunOptions;

use super::args::{Init, InternalNode, Serve, Token};
use super::output;
use crate::api::Client;
use crate::api::messages::NewToken;
use crate::init::{KeySpec, Options, init as make_fleet};
use crate::keys;
use crate::serve::{OriginMode, ServeOptions, start};
use crate::signing::Signer;

/// `tidegate init`
///
/// # Errors
/// One line each: the directory is in use, a passphrase was not given, the disk fails.
pub fn init(ask: Init) -> anyhow::Result<()> {
    let names = if ask.operators.is_empty() {
        ["op1", "op2", "op3"].map(String::from).to_vec()
    } else {
        ask.operators
    };
    let approvals = ask
        .approvals
        .unwrap_or_else(|| (names.len() as u32).saturating_sub(1).clamp(1, 2));
    if names.len() as u32 <= approvals {
        bail!(
            "failed to make the fleet: {approvals} approvals beside the proposer take {} operators, and there are {}; add --operator NAME",
            approvals + 1,
            names.len()
        );
    }
    let spec = |name: &str| -> anyhow::Result<KeySpec> {
        let passphrase = match ask.plain_keys {
            true => None,
            false => Some(new_passphrase(name)?),
        };
        Ok(KeySpec {
            name: name.to_owned(),
            passphrase,
        })
    };
    let port = |offset: u16| -> anyhow::Result<SocketAddr> {
        let port = match ask.port {
            0 => 0,
            first => first
                .checked_add(offset)
                .context("failed to make the fleet: the port is too high")?,
        };
        Ok(SocketAddr::new(ask.address, port))
    };
    let options = Options {
        fleet_name: ask.fleet,
        root: vec![spec("root")?],
        releases: vec![spec("releases")?],
        operators: names.iter().map(|n| spec(n)).collect::<Result<_, _>>()?,
        plans_threshold: approvals,
        keys: ask.keys.clone(),
        api: port(0)?,
        control: port(1)?,
        origin_control: port(2)?,
        origin_data: port(3)?,
        ..Options::default()
    };
    let root = make_fleet(&ask.dir, &options).context("failed to make the fleet")?;
    let keys = ask.keys.unwrap_or_else(|| ask.dir.join("keys"));
    output::line(&format!("fleet      {}", options.fleet_name))?;
    output::line(&format!("root       {root}"))?;
    output::line(&format!(
        "operators  {} ({approvals} approve a plan, its proposer not counted)",
        names.join(", ")
    ))?;
    output::line(&format!(
        "keys       {} (move them to where the operators sit)",
        keys.display()
    ))?;
    output::line(&format!(
        "next       tidegate serve --dir {}",
        ask.dir.display()
    ))
}

/// `tidegate serve`
///
/// # Errors
/// One line each: no such directory, port in use, corrupt ledger.
pub async fn serve(ask: Serve) -> anyhow::Result<()> {
    if ask.with_parent {
        end_with_parent()?;
    }
    let options = ServeOptions {
        dir: ask.dir,
        origin: if ask.no_origin {
            OriginMode::Elsewhere
        } else {
            OriginMode::Child
        },
        keep_origin: false,
    };
    let mut running = start(options)
        .await
        .context("failed to start the coordinator")?;
    output::line(&format!("serving    https://{}", running.settings().api))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let failure = tokio::select! {
        _ = tokio::signal::ctrl_c() => None,
        _ = terminate.recv() => None,
        failure = running.failed() => Some(failure),
    };
    running.shutdown().await;
    match failure {
        Some(failure) => Err(anyhow::Error::new(failure).context("failed to go on")),
        None => Ok(()),
    }
}

/// `tidegate token`
///
/// # Errors
/// When the coordinator does not answer or refuses.
pub async fn token(ask: Token) -> anyhow::Result<()> {
    let client = client(&ask.at.dir)?;
    let made = client
        .new_token(&NewToken {
            site: ask.site,
            uses: ask.count,
            life: ask.valid,
            foreign: ask.foreign,
            terms: TokenTerms {
                from: ask.from,
                labels: ask.labels.into_iter().collect(),
                by_hand: ask.by_hand,
            },
        })
        .await
        .context("failed to make a token")?;
    let settings = crate::directory::Directory::new(&ask.at.dir).settings()?;
    let installer = InstallerFile {
        spec_version: InstallerFile::VERSION,
        coordinator: format!("https://{}", settings.public_api()),
        token: made.token.to_string(),
        root_digest: made.root.to_string(),
    };
    if let Some(path) = ask.installer {
        node::config::write_durably(&path, &serde_json::to_vec_pretty(&installer)?, 0o600)
            .context("failed to write the installer file")?;
        return output::line(&format!(
            "next   tidegate-node {} --installer {} --dir DIR",
            if ask.foreign { "report" } else { "enroll" },
            path.display()
        ));
    }
    if ask.json {
        return output::json(&installer);
    }
    output::line(&format!("coordinator  https://{}", settings.public_api()))?;
    output::line(&format!("token        {}", made.token))?;
    output::line(&format!("root digest  {}", made.root))
}

/// `tidegate internal-node`
///
/// # Errors
/// When the node cannot start.
pub async fn internal_node(ask: InternalNode) -> anyhow::Result<()> {
    if ask.with_parent {
        end_with_parent()?;
    }
    node::run::run(&ask.dir, RunOptions::default())
        .await
        .map(drop)
        .with_context(|| format!("failed to run the node of {}", ask.dir.display()))
}

fn end_with_parent() -> anyhow::Result<()> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))
        .context("failed to tie this process to its parent")
}

/// A client for the coordinator of a directory.
///
/// # Errors
/// When the directory is no coordinator's.
pub fn client(dir: &Path) -> anyhow::Result<Client> {
    Client::from_dir(dir).context("failed to find the coordinator")
}

/// Who signs: the command of a `.signer` file, or a key file, whose passphrase is asked for if it is
/// encrypted. `TIDEGATE_PASSPHRASE` or the file that `TIDEGATE_PASSPHRASE_FILE` names answers instead of
/// a person.
///
/// # Errors
/// When the file is no key, exposed, or the passphrase is wrong.
pub fn load_signer(path: &Path) -> anyhow::Result<Signer> {
    if path.extension().is_some_and(|e| e == "signer") {
        return Signer::from_file(path).context("failed to load the key");
    }
    let ask = || match given_passphrase()? {
        Some(passphrase) => Ok(passphrase),
        None => rpassword::prompt_password(format!("passphrase of {}: ", path.display())),
    };
    let key = keys::load(path, ask).context("failed to load the key")?;
    Ok(key.into())
}

/// The passphrase of the environment, or of the file that it names, without its line's end.
fn given_passphrase() -> std::io::Result<Option<String>> {
    if let Ok(passphrase) = std::env::var("TIDEGATE_PASSPHRASE") {
        return Ok(Some(passphrase));
    }
    let Some(path) = std::env::var_os("TIDEGATE_PASSPHRASE_FILE") else {
        return Ok(None);
    };
    let mut text = std::fs::read_to_string(path)?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(Some(text))
}

fn new_passphrase(name: &str) -> anyhow::Result<String> {
    if let Some(passphrase) = given_passphrase().context("failed to read the passphrase's file")? {
        return Ok(passphrase);
    }
    let ask = |what: String| {
        rpassword::prompt_password(what).context("failed to ask for a passphrase (no terminal?); set TIDEGATE_PASSPHRASE or use --plain-keys")
    };
    loop {
        let first = ask(format!("new passphrase for key {name}: "))?;
        if first.is_empty() {
            eprintln!("an empty passphrase protects nothing; use --plain-keys if that is meant");
        } else if first == ask("again: ".into())? {
            return Ok(first);
        } else {
            eprintln!("the two differ");
        }
    }
}
