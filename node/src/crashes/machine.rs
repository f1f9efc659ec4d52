//! A node without a network: the real brain, records, blobs and installers, and a scripted coordinator
//! and origin around them.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use node_core::Brain;
use node_core::contract::{
    Action, Boundary, Config, Event, FetchOutcome, Grain, NodeRole, Record, Step, Tempo,
};
use protocol::envelope::Envelope;
use protocol::feed::Seal;
use protocol::fixtures::{CREATED, Fleet, contact, node};
use protocol::manifest::{HealthCheck, Hook, Hooks, Install, ReleaseManifest, Restart};
use protocol::orders::{Mark, Order, OrderBody};
use protocol::plan::RolloutPlan;
use protocol::status::{NodeStatus, State};
use protocol::wire::{ControlReply, ControlRequest};
use protocol::{Hash, Now, Span, Time, Verified};

use crate::content::tests::{Bench, Held, noise};
use crate::disk::Disk;
use crate::driver::Shelf;
use crate::install::Installer;
use crate::store::blobs::{Blobs, Decoder, Encoder};
use crate::store::records::{Change, Records};

/// Well within a lease's life.
const RENEWED_EVERY: Span = Span::from_secs(20);

/// What is rolled out, signed once for all runs, and where the outside world is.
pub(super) struct Script {
    fleet: Fleet,
    bench: Bench,
    /// Each command installation appends a line to it; no death takes it back.
    pub(super) outside: PathBuf,
    /// Each hook appends a line to it with its attempt.
    hooks: PathBuf,
    /// Each restart of the machine appends a line to it; their number names the boot.
    restarts: PathBuf,
    pub(super) old: Release,
    pub(super) new: Release,
    runtime: tokio::runtime::Runtime,
}

/// A release and the rollout that brings it.
pub(super) struct Release {
    pub(super) manifest: Verified<ReleaseManifest>,
    pub(super) held: Held,
    plan: Verified<RolloutPlan>,
}

/// How the releases of a script install.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Tree,
    Command,
    /// Commands between hooks, and a restart of the machine.
    Hooked,
}

impl Script {
    /// 1.0, which is healthy, and 2.0, which is if told so.
    pub(super) fn new(kind: Kind, healthy: bool) -> Script {
        let (fleet, bench) = (Fleet::new(1), Bench::new());
        let outside = bench.at("outside");
        let (hooks, restarts) = (bench.at("hooks"), bench.at("restarts"));
        let old = release(&fleet, &bench, kind, "1.0", true);
        let new = release(&fleet, &bench, kind, "2.0", healthy);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Script {
            fleet,
            bench,
            outside,
            hooks,
            restarts,
            old,
            new,
            runtime,
        }
    }

    /// Lines that the command installer of a version left outside.
    pub(super) fn lines(&self, line: &str) -> usize {
        lines_of(&self.outside).filter(|l| *l == line).count()
    }

    /// Lines that hooks left, in order.
    pub(super) fn hooks(&self) -> Vec<String> {
        lines_of(&self.hooks).collect()
    }

    /// How often the machine restarted.
    pub(super) fn restarts(&self) -> usize {
        lines_of(&self.restarts).count()
    }

    /// Nothing has happened outside yet.
    pub(super) fn forget(&self) {
        for log in [&self.outside, &self.hooks, &self.restarts] {
            let _ = std::fs::remove_file(log);
        }
    }
}

fn lines_of(log: &Path) -> impl Iterator<Item = String> {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    log.lines()
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

fn release(fleet: &Fleet, bench: &Bench, kind: Kind, version: &str, healthy: bool) -> Release {
    let counter = u64::from(version.as_bytes()[0] - b'0');
    let _ = std::fs::remove_dir_all(bench.at("tree"));
    bench.file("data/noise", noise(counter, 280_000), 0o644);
    // What compresses, so that there is a carrier, whose frames are unfolded into the pack.
    bench.file("data/plain", vec![b'0'; 40_000], 0o644);
    bench.file("version", version, 0o640);
    bench.file("run.sh", "#!/bin/sh\nexit 0\n", 0o755);
    std::os::unix::fs::symlink("data/noise", bench.tree("link")).unwrap();
    let built = bench.build().unwrap();
    let out = bench.at("out");
    for (blob, file) in &built.blobs(&out) {
        bench.blobs.import_expected(file, *blob).unwrap();
    }
    let held = bench.fetch();
    let mut manifest = fleet.release("app", version, counter);
    manifest.artifacts[0].index = built.index;
    manifest.artifacts[0].pack = built.pack;
    manifest.artifacts[0].carriers = built.carriers();
    assert!(built.carrier.is_some());
    let outside = bench.at("outside").display().to_string();
    let sh = |line: String| vec!["/bin/sh".into(), "-c".into(), line];
    if kind != Kind::Tree {
        manifest.install = Install::Command {
            steps: vec![sh(format!("echo on {version} >> {outside}"))],
            detect: sh(format!(
                "tail -qn1 {outside} 2>&1 | grep -qx 'on {version}'"
            )),
            undo: vec![sh(format!("echo off {version} >> {outside}"))],
            expected_exit_codes: vec![],
            max_run_time: Span::from_secs(60),
            busy: vec![],
        };
    }
    if kind == Kind::Hooked {
        let log = bench.at("hooks").display().to_string();
        let hook = |name: &str| {
            Some(Hook {
                argv: sh(format!("echo {name} {version} $TIDEGATE_ATTEMPT >> {log}")),
                timeout: Span::from_secs(60),
            })
        };
        manifest.hooks = Hooks {
            pre: hook("pre"),
            post: hook("post"),
        };
        manifest.restart = Restart::Required;
    }
    manifest.health_check = (!healthy).then(|| HealthCheck {
        argv: sh("exit 3".into()),
        soak: Span::ZERO,
        attempts: 0,
        timeout: Span::from_secs(60),
    });
    let manifest = fleet.verified(&manifest);
    let plan = fleet.plan(&format!("r{counter}"), &manifest, vec![node(1)]);
    Release {
        plan: fleet.verified(&plan),
        manifest,
        held,
    }
}

/// The coordinator's side of one run. It outlives every death of the node.
pub(super) struct Coordinator {
    plan: Verified<RolloutPlan>,
    orders: Vec<Verified<Order>>,
    renew_at: Time,
    newest: Option<NodeStatus>,
    now: Now,
}

impl Coordinator {
    /// Opens the rollout of a release, with orders of the numbers from `first` on.
    pub(super) fn new(script: &Script, release: &Release, first: u64) -> Coordinator {
        let (fleet, plan) = (&script.fleet, &release.plan);
        let lease = fleet.order(first, fleet.lease(plan, 0));
        let bulletin = OrderBody::Bulletin(fleet.bulletin(None, &[(plan, first)]));
        let now = Now {
            boot: Time::from_secs(1_000 * first),
            wall: CREATED + Span::from_secs(1_000 * first),
        };
        Coordinator {
            plan: plan.clone(),
            orders: vec![lease, fleet.order(first + 1, bulletin)],
            renew_at: now.wall + RENEWED_EVERY,
            newest: None,
            now,
        }
    }

    /// Renews the lease once it is time to.
    fn renewed(&mut self, fleet: &Fleet) -> Option<Verified<Order>> {
        if self.now.wall < self.renew_at {
            return None;
        }
        self.renew_at = self.now.wall + RENEWED_EVERY;
        let number = self.orders.last()?.seq.n + 1;
        let order = fleet.order(number, fleet.lease(&self.plan, 0));
        self.orders.push(order.clone());
        Some(order)
    }

    /// A status that came up.
    fn take(&mut self, status: NodeStatus) {
        let newest = self.newest.as_ref();
        let newer = newest.is_none_or(|held| held.seq < status.seq);
        if status.rollout == self.plan.rollout && newer {
            self.newest = Some(status);
        }
    }
}

/// One life of the process.
pub(super) struct Life<'a> {
    script: &'a Script,
    coordinator: &'a mut Coordinator,
    records: Records,
    shelf: Shelf,
    blobs: Blobs,
    brain: Brain,
    dir: PathBuf,
    /// What the disk has of these, without reading and verifying all of it again.
    journals: BTreeMap<Hash, Boundary>,
    installed: Option<Hash>,
    answers: VecDeque<Event>,
    /// The machine goes down, as it was asked to.
    pub(super) restarts: bool,
    is_dead: &'a dyn Fn() -> bool,
}

impl<'a> Life<'a> {
    /// Comes up on what is on disk; `None` if it died on the way.
    pub(super) fn begin(
        script: &'a Script,
        coordinator: &'a mut Coordinator,
        disk: &Disk,
        dir: &Path,
        is_dead: &'a dyn Fn() -> bool,
    ) -> Option<Life<'a>> {
        let records = match Records::open_on(disk, dir) {
            Err(_) if is_dead() => return None,
            records => records.expect("no crash damages the records"),
        };
        let blobs = match Blobs::open_on(disk.clone(), &dir.join("store")) {
            Err(_) if is_dead() => return None,
            blobs => blobs.expect("no crash damages the store"),
        };
        let loaded = records
            .load(script.fleet.trust())
            .expect("readable records");
        assert!(loaded.dropped.is_empty(), "{:?}", loaded.dropped);
        let remembered = loaded.memory.records.clone();
        let boot = Hash::of(&script.restarts().to_le_bytes());
        let config = config(&script.fleet, boot);
        let brain = Brain::new(config, loaded.memory, coordinator.now);
        let restart = format!("echo restart >> {}", script.restarts.display());
        let installer = Installer::on(disk.clone(), dir.join("install"));
        let installer = installer.with_restart(vec!["/bin/sh".into(), "-c".into(), restart]);
        let shelf = Shelf::new(blobs.clone(), installer);
        let mut life = Life {
            script,
            coordinator,
            records,
            shelf,
            blobs,
            brain,
            dir: dir.to_owned(),
            journals: BTreeMap::new(),
            installed: None,
            answers: VecDeque::new(),
            restarts: false,
            is_dead,
        };
        remembered.iter().for_each(|record| life.learn(record));
        life.tell(Event::Root(script.fleet.trust().root().clone()));
        life.tell(Event::Addresses(vec![[10, 0, 0, 1].into()]));
        Some(life)
    }

    /// Lives until the journal of a release says that all is over; false if it died or the machine went
    /// down before.
    pub(super) fn run(&mut self, release: &Release) -> bool {
        for _ in 0..5_000 {
            while let Some(action) = self.brain.poll_action() {
                self.perform(action);
                if (self.is_dead)() || self.restarts {
                    return false;
                }
            }
            if let Some(answer) = self.answers.pop_front() {
                self.tell(answer);
            } else if self.is_over(release) {
                return true;
            } else {
                let now = &mut self.coordinator.now;
                let end = now.boot + Span::from_secs(5);
                let next = self.brain.poll_timeout().unwrap_or(end);
                let pause = next.clamp(now.boot, end).since(now.boot);
                (now.boot, now.wall) = (now.boot + pause, now.wall + pause);
                self.brain.handle_timeout(self.coordinator.now);
                if let Some(lease) = self.coordinator.renewed(&self.script.fleet) {
                    self.tell(Event::Order(lease, None));
                }
            }
        }
        let snapshot = self.brain.snapshot(self.coordinator.now);
        panic!("nothing comes of it: {snapshot:#?}");
    }

    fn is_over(&self, release: &Release) -> bool {
        let journal = self.journal(release);
        journal == Some(Boundary::Reported) && self.coordinator.newest.is_some()
    }

    fn learn(&mut self, record: &Record) {
        match record {
            Record::Journal(journal) => {
                self.journals.insert(journal.release, journal.at);
            }
            Record::Installed(installed) => self.installed = Some(installed.release),
            _ => {}
        }
    }

    /// Where the journal of a release stands on disk.
    pub(super) fn journal(&self, release: &Release) -> Option<Boundary> {
        self.journals.get(&release.manifest.digest()).copied()
    }

    /// The release that the records say is installed.
    pub(super) fn installed(&self) -> Option<Hash> {
        self.installed
    }

    /// The newest that the coordinator has of this node.
    pub(super) fn reported(&self) -> Option<State> {
        self.coordinator.newest.as_ref().map(|status| status.state)
    }

    /// What the store believes it has is right, byte for byte.
    pub(super) fn check_blobs(&self) {
        let mut names = self.blobs.complete();
        for release in [&self.script.old, &self.script.new] {
            let artifact = &release.manifest.artifacts[0];
            let ours = [artifact.index, artifact.pack, artifact.carriers[0].blob];
            names.extend(ours.into_iter().filter(|blob| {
                let file = format!("store/blobs/{}.data", blob.root);
                self.dir.join(file).exists()
            }));
        }
        for name in names {
            let blob = match self.blobs.open_blob(name) {
                Err(_) if (self.is_dead)() => return,
                blob => blob.expect("it opens after any crash"),
            };
            let right = self.script.bench.blobs.get(&name.root).expect("ours");
            for piece in blob.pieces().iter() {
                let range = blob.geometry().piece_range(piece);
                let mut bytes = [(); 2].map(|()| vec![0; (range.end - range.start) as usize]);
                blob.read_at(range.start, &mut bytes[0]).unwrap();
                right.read_at(range.start, &mut bytes[1]).unwrap();
                assert!(bytes[0] == bytes[1], "{name}: piece {piece} is believed");
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.brain.handle(self.coordinator.now, event);
    }

    /// What the driver does with it, with the network left out.
    fn perform(&mut self, action: Action) {
        match action {
            // A failure is the death that the caller looks for.
            Action::Remember(record) => {
                let kept = self.records.apply(&[Change::Keep(record.clone())]);
                kept.into_iter().for_each(|()| self.learn(&record));
            }
            Action::Forget(key) => drop(self.records.apply(&[Change::Forget(key)])),
            Action::Ask {
                ticket,
                request,
                own_statuses,
                ..
            } => {
                let reply = self.answer(*request, own_statuses);
                let reply = reply.map(Box::new);
                self.answers.push_back(Event::Answered { ticket, reply });
            }
            Action::OpenBlob { ticket, blob } => self.shelve(|shelf| shelf.open(ticket, blob)),
            Action::DropBlob(blob) => {
                let shelf = self.shelf.clone();
                self.script.runtime.block_on(shelf.drop_blob(blob));
            }
            Action::Fetch {
                ticket,
                blob,
                pieces,
                ..
            } => {
                let open = self.shelf.blob(blob).expect("it was opened");
                let right = self.script.bench.blobs.get(&blob.root).expect("ours");
                let groups: Vec<(u64, u64)> = pieces
                    .iter()
                    .flat_map(|p| open.missing_groups(*p))
                    .collect();
                let mut bytes = 0;
                for run in groups {
                    let mut encoder = Encoder::new(right.clone(), &[run]);
                    let mut decoder = Decoder::new(open.clone(), &[run]);
                    let mut buffer = vec![0; 70_000];
                    loop {
                        let filled = encoder.fill(&mut buffer).unwrap();
                        if filled == 0 || decoder.feed(&buffer[..filled]).is_err() {
                            break;
                        }
                    }
                    bytes += encoder.take_payload();
                }
                let sealed = open.seal_if_complete();
                let outcome = match sealed {
                    Ok(()) => FetchOutcome::Complete,
                    Err(_) => FetchOutcome::Storage,
                };
                self.answers
                    .push_back(Event::FetchProgress { ticket, bytes });
                self.answers
                    .push_back(Event::FetchEnded { ticket, outcome });
            }
            Action::ReadIndex {
                ticket,
                index,
                pack,
            } => self.shelve(|shelf| shelf.read_index(ticket, index, pack)),
            Action::Reuse {
                ticket,
                index,
                pack,
                donors,
            } => self.shelve(|shelf| shelf.reuse(ticket, index, pack, donors)),
            Action::ReadFrames {
                ticket,
                carrier,
                pack,
            } => self.shelve(|shelf| shelf.read_frames(ticket, carrier, pack)),
            Action::Decode {
                ticket,
                carrier,
                index,
                pack,
                frame,
            } => self.shelve(|shelf| shelf.decode(ticket, carrier, index, pack, frame)),
            Action::Step {
                ticket,
                install_id,
                release,
                before,
                warrant,
                step,
            } => {
                let restarts = step == Step::Restart;
                self.shelve(|shelf| shelf.step(ticket, install_id, release, before, warrant, step));
                self.restarts |= restarts;
            }
            _ => {}
        }
    }

    fn shelve<F: Future<Output = Event>>(&mut self, effect: impl FnOnce(Shelf) -> F) {
        let event = self.script.runtime.block_on(effect(self.shelf.clone()));
        self.answers.push_back(event);
    }

    fn answer(&mut self, request: ControlRequest, own: Vec<NodeStatus>) -> Option<ControlReply> {
        let releases = [&self.script.old, &self.script.new];
        match request {
            ControlRequest::Uplink { after, .. } => {
                let orders = &self.coordinator.orders;
                let new: Vec<_> = orders
                    .iter()
                    .filter(|o| o.seq.n > after.n)
                    .cloned()
                    .collect();
                let envelopes: Vec<Envelope> = new.iter().map(|o| o.envelope().clone()).collect();
                self.answers
                    .extend(new.into_iter().map(|order| Event::Order(order, None)));
                let mut marks = Vec::new();
                for status in own {
                    marks.push(Mark {
                        node: status.node,
                        rollout: status.rollout.clone(),
                        seq: status.seq,
                    });
                    self.coordinator.take(status);
                }
                let fleet = &self.script.fleet;
                let receipt = (!marks.is_empty()).then(|| fleet.receipt(marks));
                let seal = receipt.as_ref().map(|r| Seal::of(r.envelope(), Vec::new()));
                self.answers.extend(receipt.map(Event::Receipt));
                Some(ControlReply::Uplink {
                    orders: envelopes,
                    receipt: seal,
                    known: true,
                })
            }
            ControlRequest::PullDocument { digest } => {
                let document = releases.into_iter().find_map(|r| {
                    (r.plan.digest() == digest)
                        .then(|| Event::Plan(r.plan.clone()))
                        .or((r.manifest.digest() == digest)
                            .then(|| Event::Release(r.manifest.clone())))
                });
                let reply = ControlReply::Document(document.as_ref().map(|_| Vec::new()));
                self.answers.extend(document);
                Some(reply)
            }
            _ => None,
        }
    }
}

fn config(fleet: &Fleet, boot_id: Hash) -> Config {
    Config {
        node: node(1),
        fleet: fleet.id(),
        role: NodeRole::Endpoint,
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        labels: Default::default(),
        attributes: Default::default(),
        contact: contact(1),
        epoch: 1,
        boot_id,
        coordinators: vec![contact(9000)],
        origins: vec![contact(9001)],
        tempo: Tempo::default(),
        grain: Grain::default(),
        agent: None,
        seed: 7,
    }
}
