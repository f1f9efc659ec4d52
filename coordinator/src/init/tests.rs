use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use protocol::envelope::Envelope;
use protocol::trust::{Role, Trust};

use super::*;
use crate::keys;
use crate::ledger::Ledger;

fn trust(dir: &Directory, fleet: FleetId) -> Trust {
    let roots: Vec<Envelope> = serde_json::from_slice(&fs::read(dir.root_file()).unwrap()).unwrap();
    Trust::pin(roots[0].clone(), fleet).unwrap()
}

#[test]
fn a_new_fleet_has_all_that_it_needs_and_its_root_holds() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Directory::new(temp.path().join("fleet"));
    let fleet = init(dir.path(), &Options::default()).unwrap();

    let trust = trust(&dir, fleet);
    let plans = trust.root().role(Role::Plans).unwrap();
    assert_eq!((plans.keys.len(), plans.threshold), (3, 2));
    let alice = keys::load_public(&dir.keys_dir().join("alice.pem")).unwrap();
    assert!(plans.keys.contains(&alice));
    let online = trust.root().role(Role::Coordinator).unwrap();
    assert_eq!(online.keys.len(), 1);

    let settings = dir.settings().unwrap();
    assert_eq!(settings.fleet, fleet);
    let ports: BTreeSet<u16> = [
        settings.api,
        settings.control,
        settings.origin_control,
        settings.origin_data,
    ]
    .map(|a| a.port())
    .into();
    assert!(ports.len() >= 3 && !ports.contains(&0), "{ports:?}");
    for secret in [
        dir.api_token_file(),
        dir.online_key_file(),
        dir.ca_key_file(),
        dir.server_key_file(),
        dir.keys_dir().join("root.pem"),
    ] {
        assert_eq!(
            fs::metadata(&secret).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            secret.display()
        );
    }
    assert_eq!(Ledger::open(&dir.ledger_file()).unwrap().entries(), 1);
    let origin = node::config::NodeConfig::load(&dir.origin_dir()).unwrap();
    assert_eq!((origin.node, origin.fleet), (settings.origin, fleet));
    assert!(!dir.origin_dir().join("keys").exists());
}

#[test]
fn a_directory_that_is_taken_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let fleet = init(temp.path(), &Options::default()).unwrap();
    let before = fs::read(Directory::new(temp.path()).settings_file()).unwrap();
    let error = init(temp.path(), &Options::default()).unwrap_err();
    assert!(
        matches!(&error, InitError::OtherFleet { fleet: f, .. } if *f == fleet),
        "{error}"
    );
    assert_eq!(
        fs::read(Directory::new(temp.path()).settings_file()).unwrap(),
        before
    );

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("thesis.txt"), "mine").unwrap();
    let error = init(other.path(), &Options::default()).unwrap_err();
    assert!(matches!(error, InitError::NotEmpty(_)), "{error}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn offline_keys_may_lie_elsewhere_under_passphrases() {
    let temp = tempfile::tempdir().unwrap();
    let stick = temp.path().join("stick");
    let with = |name: &str| KeySpec {
        name: name.into(),
        passphrase: Some(format!("pass {name}")),
    };
    let options = Options {
        root: vec![with("root-a"), with("root-b")],
        root_threshold: 2,
        keys: Some(stick.clone()),
        ..Options::default()
    };
    let dir = Directory::new(temp.path().join("fleet"));
    let fleet = init(dir.path(), &options).unwrap();
    assert!(!dir.keys_dir().exists());
    assert_eq!(
        trust(&dir, fleet)
            .root()
            .role(Role::Root)
            .unwrap()
            .threshold,
        2
    );
    let path = stick.join("root-b.pem");
    assert!(keys::is_encrypted(&path).unwrap());
    keys::load(&path, || Ok("pass root-b".into())).unwrap();
    // The same stick for a second fleet: its keys are not overwritten, and nothing half-made stays.
    let second = temp.path().join("second");
    let error = init(&second, &options).unwrap_err();
    assert!(
        matches!(error, InitError::Key(KeyError::Exists(_))),
        "{error}"
    );
    assert!(!second.exists());
}

#[test]
fn options_that_do_not_fit_together_make_nothing() {
    let check = |change: fn(&mut Options), line: &str| {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("fleet");
        let mut options = Options::default();
        change(&mut options);
        let error = init(&path, &options).unwrap_err().to_string();
        assert!(error.contains(line), "{error}");
        assert!(!path.exists());
    };
    check(|o| o.plans_threshold = 3, "the proposer's never counts");
    check(|o| o.plans_threshold = 0, "cannot sign for operators");
    check(|o| o.releases_threshold = 2, "cannot sign for releases");
    check(|o| o.operators.push(KeySpec::plain("root")), "stands twice");
    check(|o| o.operators[0].name = "../x".into(), "not a key name");
    check(|o| o.fleet_name.clear(), "a fleet's name");
    check(|o| o.api.set_ip([0, 0, 0, 0].into()), "unspecified");
    check(
        |o| o.origin_data.set_ip([127, 0, 0, 2].into()),
        "same address",
    );
}
