//! What the coordinator and the operator's tools keep in files, as committed bytes.

#[path = "../../protocol/tests/support/golden.rs"]
mod golden;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use coordinator::backup::Backup;
use coordinator::cli::release::Draft as Release;
use coordinator::directory::{Directory, FrameText, Settings};
use coordinator::ledger::{Draft, Ledger, verify};
use protocol::audit::AuditEntry;
use protocol::manifest::{
    Artifact, Carrier, CarrierKind, HealthCheck, Hook, Hooks, Install, Restart, Severity,
};
use protocol::plan::Priority;
use protocol::versioned::Versioned as _;
use protocol::{BlobRef, FleetId, Hash, NodeId, Span, Time};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

golden::variants!(every_install_of of Install: Tree, Command);
golden::variants!(every_severity_of of Severity: Critical, Important, Moderate, Low);

#[test]
fn settings_are_read_and_written_as_ever() {
    let at = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let least = Settings {
        spec_version: 1,
        fleet: FleetId([1; 32]),
        fleet_name: "demo".into(),
        coordinator: NodeId([2; 32]),
        origin: NodeId([3; 32]),
        public: None,
        api: at(7443),
        control: at(7444),
        origin_control: at(7445),
        origin_data: at(7446),
        server_pin: Hash::of(b"certificate"),
        time_frames: Default::default(),
        certificate_life: None,
        starts_per_day: None,
    };
    let public = Settings {
        public: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))),
        ..least.clone()
    };
    let frames = Settings {
        time_frames: BTreeMap::from([(
            Priority::High,
            FrameText {
                target: "5d".into(),
                latest: "14d".into(),
            },
        )]),
        ..least.clone()
    };
    let capped = Settings {
        starts_per_day: Some(500),
        ..least.clone()
    };
    let write = |settings: &Settings| serde_json::to_vec_pretty(settings).unwrap();
    let samples = [
        ("1.json".to_owned(), write(&least)),
        ("1.public.json".to_owned(), write(&public)),
        ("1.frames.json".to_owned(), write(&frames)),
        ("1.capped.json".to_owned(), write(&capped)),
    ];
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::new(dir.path());
    let read = |bytes: &[u8]| {
        std::fs::write(directory.settings_file(), bytes).unwrap();
        directory.settings().map_err(|e| e.to_string())
    };
    golden::check("settings", &samples, |bytes| read(bytes).map(|s| write(&s)));
    let newer = Settings {
        spec_version: 2,
        ..least
    };
    let error = read(&write(&newer)).unwrap_err();
    assert!(error.contains("spec_version 2"), "{error}");
    let mut late = frames.clone();
    late.time_frames.get_mut(&Priority::High).unwrap().target = "15d".into();
    let error = read(&write(&late)).unwrap_err();
    assert!(
        error.contains("time_frames, High: the latest date is before"),
        "{error}"
    );
    assert_eq!(
        frames.time_frames().unwrap().high.unwrap().target,
        Span::from_secs(5 * 86_400)
    );
}

#[test]
fn the_list_of_a_backup_is_read_and_written_as_ever() {
    let list = Backup {
        spec_version: 1,
        fleet: FleetId([1; 32]),
        taken: Time::from_secs(1_800_000_000),
        entries: 80,
        head: Hash::of(b"head"),
        files: [("root.json".to_owned(), Hash::of(b"roots"))].into(),
    };
    let write = |list: &Backup| serde_json::to_vec_pretty(list).unwrap();
    golden::check("backup", &[("1.json".into(), write(&list))], |bytes| {
        let list: Backup = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Ok(write(&list))
    });
}

#[test]
fn a_release_draft_is_read_and_written_as_ever() {
    let blob = |name: &str| BlobRef::of(name.as_bytes());
    let release = |vendor_severity, install, health_check| Release {
        spec_version: Release::VERSION,
        product: "app".parse().unwrap(),
        version: "1.2.3".parse().unwrap(),
        vendor_severity,
        applicability: None,
        artifact: Artifact {
            os: "linux".into(),
            arch: "any".into(),
            index: blob("index"),
            pack: blob("pack"),
            carriers: vec![Carrier {
                kind: CarrierKind::Full,
                blob: blob("carrier"),
            }],
            group_log2: 4,
            disk_bytes: 3 << 30,
        },
        install,
        health_check,
        hooks: Default::default(),
        restart: Default::default(),
        relations: Default::default(),
    };
    let command = Install::Command {
        steps: vec![vec!["./setup".into(), "--quiet".into()]],
        detect: vec!["rpm".into(), "-q".into(), "app".into()],
        undo: vec![vec!["./setup".into(), "--remove".into()]],
        expected_exit_codes: vec![0, -1, 3010],
        max_run_time: Span::from_secs(600),
        busy: vec![],
    };
    let check = HealthCheck {
        argv: vec!["sh".into(), "-c".into(), "./check".into()],
        soak: Span::from_secs(30),
        attempts: 3,
        timeout: Span::from_secs(60),
    };
    let releases = [
        release(Severity::Critical, Install::Tree, None),
        release(Severity::Important, command, Some(check)),
        release(Severity::Moderate, Install::Tree, None),
        release(Severity::Low, Install::Tree, None),
        Release {
            applicability: Some("os.name=debian and not label.kiosk".parse().unwrap()),
            ..release(Severity::Low, Install::Tree, None)
        },
        Release {
            hooks: Hooks {
                pre: Some(Hook {
                    argv: vec!["./before".into()],
                    timeout: Span::from_secs(600),
                }),
                post: None,
            },
            restart: Restart::Required,
            ..release(Severity::Low, Install::Tree, None)
        },
    ];
    every_install_of(releases.iter().map(|r| &r.install));
    every_severity_of(releases.iter().map(|r| &r.vendor_severity));
    let write = |release: &Release| serde_json::to_vec_pretty(release).unwrap();
    let names = [
        "1.tree.json",
        "1.command.json",
        "1.moderate.json",
        "1.low.json",
        "1.applicability.json",
        "1.hooks.json",
    ];
    let samples: Vec<_> = names
        .iter()
        .zip(&releases)
        .map(|(name, release)| ((*name).to_owned(), write(release)))
        .collect();
    golden::check("release", &samples, |bytes| {
        let release: Release = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Ok(write(&release))
    });
}

#[test]
fn a_draft_of_another_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/release/1.tree.json");
    let text = std::fs::read_to_string(golden).unwrap();
    let newer = text.replacen("\"spec_version\": 1", "\"spec_version\": 2", 1);
    std::fs::write(dir.path().join(coordinator::cli::release::DRAFT), newer).unwrap();
    let sign = || {
        let key = coordinator::keys::generate();
        let fleet = FleetId([1; 32]);
        coordinator::cli::release::sign(
            dir.path(),
            &key.into(),
            fleet,
            Some(1),
            Span::from_secs(60),
        )
    };
    let error = sign().unwrap_err().to_string();
    assert!(error.contains("spec_version 2"), "{error}");
    std::fs::write(dir.path().join(coordinator::cli::release::DRAFT), text).unwrap();
    assert_eq!(sign().unwrap().1, 1);
}

/// The rows themselves, and the names of their tables, which are the version of a row's form.
#[test]
fn rows_of_the_ledger_are_read_and_written_as_ever() {
    const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("ledger-1");
    const HEAD: TableDefinition<'_, u64, (u64, [u8; 32])> = TableDefinition::new("ledger-head-1");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let draft = |n: u64| Draft {
        time: Time::from_secs(1_800_000_000 + n),
        actor: "coordinator".into(),
        action: "epoch".into(),
        object: n.to_string(),
        body: format!("{{\"event\":\"epoch\",\"epoch\":{n}}}").into_bytes(),
    };
    let head = Ledger::create(&path)
        .and_then(|mut ledger| ledger.append(vec![draft(0), draft(1)]))
        .unwrap();
    let rows = || -> Vec<Vec<u8>> {
        let db = Database::open(&path).unwrap();
        let txn = db.begin_read().unwrap();
        let (entries, hash) = txn
            .open_table(HEAD)
            .unwrap()
            .get(0)
            .unwrap()
            .unwrap()
            .value();
        assert_eq!((entries, hash), (2, head.0));
        let table = txn.open_table(ENTRIES).unwrap();
        let rows = table.iter().unwrap();
        rows.map(|row| row.unwrap().1.value().to_vec()).collect()
    };
    let samples: Vec<_> = rows()
        .into_iter()
        .enumerate()
        .map(|(n, row)| (format!("{n}.bin"), row))
        .collect();
    assert_eq!(samples.len(), 2);
    golden::check("ledger", &samples, |bytes| {
        let (hash, entry) = bytes.split_first_chunk().ok_or("too short")?;
        let entry = AuditEntry::from_bytes(entry).map_err(|e| e.to_string())?;
        let bytes = entry.to_bytes();
        (Hash::of(&bytes) == Hash(*hash))
            .then(|| [&hash[..], &bytes].concat())
            .ok_or_else(|| "not what its hash says".to_owned())
    });
    assert_eq!(Hash::of(&samples[1].1[32..]), head);
    let report = verify(&path).unwrap();
    assert_eq!((report.entries, report.head), (2, head));
    assert!(report.bad.is_none());
}
