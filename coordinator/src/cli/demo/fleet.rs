//! The demo's processes: one coordinator with its origin, and the nodes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use node::config::ListenAsked;
use node::enroll::{EnrollOptions, enroll};
use protocol::topology::Site;
use protocol::trust::Statement;
use protocol::{FleetId, NodeId, SiteId, Span};
use tokio::process::{Child, Command};

use super::live::Live;
use crate::api::Client;
use crate::api::messages::NewToken;
use crate::cli::args::Demo;
use crate::cli::fleet::topology;
use crate::directory::Directory;
use crate::init::{Options, init};
use crate::keys;
use crate::signing::Signer;

/// A process gets so long to end after it was asked to.
const FAREWELL: Duration = Duration::from_secs(5);
/// The fleet must be up by then.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running fleet.
pub struct Fleet {
    dir: PathBuf,
    /// The coordinator's API.
    pub client: Client,
    /// The fleet's id.
    pub id: FleetId,
    /// The nodes, in order of site.
    pub nodes: Vec<Node>,
    coordinator: Child,
}

/// One of the demo's nodes.
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its site.
    pub site: SiteId,
    /// Its directory.
    pub dir: PathBuf,
    process: Child,
}

impl Fleet {
    /// Makes a fleet below `dir`, starts its coordinator, sets its sites, enrols and starts its nodes.
    ///
    /// # Errors
    /// When a process does not come up.
    pub async fn raise(dir: &Path, options: &Demo) -> anyhow::Result<Fleet> {
        let home = dir.join("coordinator");
        std::fs::create_dir_all(dir.join("logs"))?;
        let id = init(
            &home,
            &Options {
                fleet_name: "demo".into(),
                ..Options::default()
            },
        )
        .context("failed to make the fleet")?;
        let mut coordinator = spawn(
            dir,
            "coordinator",
            &["serve", "--with-parent", "--dir"],
            &home,
        )?;
        let client = Client::from_dir(&home)?;
        let since = Instant::now();
        while let Err(error) = client.status().await {
            if let Some(status) = coordinator.try_wait()? {
                bail!("failed to start the coordinator: it ended with {status}");
            }
            if since.elapsed() > PATIENCE {
                return Err(error).context("failed to start the coordinator");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let sites = sites(options)?;
        let mut fleet = Fleet {
            dir: dir.to_owned(),
            client,
            id,
            nodes: Vec::new(),
            coordinator,
        };
        let mut envelope = topology(id, 1, sites.clone()).to_envelope();
        fleet.operator("alice")?.sign(&mut envelope)?;
        fleet
            .client
            .set_topology(&envelope)
            .await
            .context("failed to set the sites")?;
        for n in 0..options.nodes {
            let s = usize::from(n) % sites.len();
            let place = usize::from(n) / sites.len();
            fleet.add_node(&sites[s], s + 1, place).await?;
        }
        fleet.nodes.sort_by(|a, b| a.site.cmp(&b.site));
        Ok(fleet)
    }

    async fn add_node(&mut self, site: &Site, number: usize, place: usize) -> anyhow::Result<()> {
        let name = format!("{}-{}", site.id, place + 1);
        let dir = self.dir.join("nodes").join(&name);
        let life = Span::from_secs(3600);
        let made = self
            .client
            .new_token(&NewToken {
                foreign: false,
                terms: Default::default(),
                site: Some(site.id.clone()),
                uses: 1,
                life,
            })
            .await
            .context("failed to make a token")?;
        let settings = self.home().settings()?;
        let config = enroll(
            &dir,
            EnrollOptions {
                coordinator: format!("https://{}", settings.api),
                token: made.token,
                root_digest: made.root,
                labels: vec![("name".into(), name.clone())],
                listen: ListenAsked {
                    address: address(number, place),
                    control_port: 0,
                    data_port: 0,
                },
            },
        )
        .await
        .with_context(|| format!("failed to enrol {name}"))?;
        let process = spawn(
            &self.dir,
            &name,
            &["internal-node", "--with-parent", "--dir"],
            &dir,
        )?;
        self.nodes.push(Node {
            id: config.node,
            site: site.id.clone(),
            dir,
            process,
        });
        Ok(())
    }

    /// The coordinator's directory.
    pub fn home(&self) -> Directory {
        Directory::new(self.dir.join("coordinator"))
    }

    /// Where builds go.
    pub fn builds(&self) -> PathBuf {
        self.dir.join("builds")
    }

    /// An operator's key.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn operator(&self, name: &str) -> anyhow::Result<Signer> {
        let path = self.home().keys_dir().join(format!("{name}.pem"));
        Ok(keys::load(&path, || Ok(String::new()))?.into())
    }

    /// Waits until the coordinator has heard of every node.
    ///
    /// # Errors
    /// When a process ends, or it takes too long.
    pub async fn wait_until_present(&mut self, live: &Live) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let nodes = self.client.nodes().await.context("failed to list nodes")?;
            let here = nodes.iter().filter(|n| n.last_seen.is_some()).count();
            live.present(here, self.nodes.len());
            if here == self.nodes.len() {
                return Ok(());
            }
            self.check_processes()?;
            if since.elapsed() > PATIENCE {
                bail!(
                    "failed to raise the fleet: {here} of {} nodes reported",
                    self.nodes.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether every process still runs.
    ///
    /// # Errors
    /// Names the one that does not.
    pub fn check_processes(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.coordinator.try_wait()? {
            bail!("the coordinator ended with {status}");
        }
        for node in &mut self.nodes {
            if let Some(status) = node.process.try_wait()? {
                bail!("the node of {} ended with {status}", node.dir.display());
            }
        }
        Ok(())
    }

    /// Asks every process to end and waits; what does not end in time is killed.
    pub async fn end(mut self) {
        let mut children: Vec<&mut Child> = self.nodes.iter_mut().map(|n| &mut n.process).collect();
        for child in &children {
            ask_to_end(child);
        }
        for child in &mut children {
            wait_or_kill(child).await;
        }
        ask_to_end(&self.coordinator);
        wait_or_kill(&mut self.coordinator).await;
    }
}

fn ask_to_end(child: &Child) {
    let pid = child
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(id as i32));
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

async fn wait_or_kill(child: &mut Child) {
    if tokio::time::timeout(FAREWELL, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn spawn(dir: &Path, name: &str, arguments: &[&str], home: &Path) -> anyhow::Result<Child> {
    let executable = std::env::current_exe().context("failed to find the running executable")?;
    let log = std::fs::File::create(dir.join("logs").join(format!("{name}.log")))?;
    Command::new(executable)
        .args(arguments)
        .arg(home)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start {name}"))
}

fn sites(options: &Demo) -> anyhow::Result<Vec<Site>> {
    (1..=options.sites)
        .map(|s| {
            Ok(Site {
                id: format!("site-{s}").parse()?,
                subnets: vec![
                    format!("127.{s}.0.0/16")
                        .parse()
                        .map_err(anyhow::Error::msg)?,
                ],
                parent: None,
                wan_down_bytes_per_s: options.wan.0,
                wan_up_bytes_per_s: options.wan.0,
                relay: false,
                no_peers: false,
                node: Default::default(),
                schedule: None,
            })
        })
        .collect()
}

fn address(site: usize, place: usize) -> IpAddr {
    Ipv4Addr::new(
        127,
        site as u8,
        (place / 250) as u8,
        (place % 250 + 1) as u8,
    )
    .into()
}
