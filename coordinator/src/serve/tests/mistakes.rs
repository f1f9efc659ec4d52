use super::*;
use crate::ledger::Ledger;
use crate::serve::ServeError;

async fn fails(town: &Town) -> ServeError {
    match start(town.options()).await {
        Ok(_) => panic!("it started"),
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            error
        }
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_and_a_second_coordinator_is_refused() {
    let mut town = Town::new().await;
    let error = fails(&town).await;
    assert!(matches!(error, ServeError::Running { .. }), "{error}");
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    town.close().await;

    let api = town.dir().settings().unwrap().api;
    let taken = std::net::TcpListener::bind(api).unwrap();
    let error = fails(&town).await.to_string();
    assert!(
        error.contains(&api.to_string()) && error.contains("in use"),
        "{error}"
    );
    drop(taken);
    town.open().await;
    town.close().await;
}

#[tokio::test]
async fn a_directory_that_is_not_whole_is_refused_with_the_culprit() {
    let mut town = Town::new().await;
    town.close().await;
    let dir = town.dir();

    // The ledger of another fleet.
    let other = tempfile::tempdir().unwrap();
    init(other.path(), &Options::default()).unwrap();
    let ours = std::fs::read(dir.ledger_file()).unwrap();
    std::fs::copy(
        Directory::new(other.path()).ledger_file(),
        dir.ledger_file(),
    )
    .unwrap();
    let error = fails(&town).await.to_string();
    assert!(
        error.contains("ledger.redb") && error.contains(&town.fleet.to_string()),
        "{error}"
    );
    std::fs::write(dir.ledger_file(), ours).unwrap();

    // The root of another fleet.
    let ours = std::fs::read(dir.root_file()).unwrap();
    std::fs::copy(Directory::new(other.path()).root_file(), dir.root_file()).unwrap();
    let error = fails(&town).await.to_string();
    assert!(
        error.contains("root.json") && error.contains(&town.fleet.to_string()),
        "{error}"
    );
    std::fs::write(dir.root_file(), ours).unwrap();

    // An online key that the root does not name.
    let ours = std::fs::read(dir.online_key_file()).unwrap();
    std::fs::copy(
        Directory::new(other.path()).online_key_file(),
        dir.online_key_file(),
    )
    .unwrap();
    let error = fails(&town).await.to_string();
    assert!(error.contains("coordinator.key"), "{error}");
    std::fs::write(dir.online_key_file(), ours).unwrap();

    let missing = ServeOptions {
        dir: dir.path().join("nowhere"),
        ..town.options()
    };
    let error = start(missing).await.err().expect("it started").to_string();
    assert!(
        error.contains("nowhere") && error.contains("tidegate init"),
        "{error}"
    );

    // Offline keys are never read.
    std::fs::remove_dir_all(dir.keys_dir()).unwrap();
    town.open().await;
    town.close().await;
}

#[tokio::test]
async fn an_event_that_is_not_understood_names_its_entry() {
    let mut town = Town::new().await;
    town.close().await;
    let mut ledger = Ledger::open(&town.dir().ledger_file()).unwrap();
    let entry = ledger.entries();
    let mut draft = crate::ledger::events::first(town.fleet, 9, Time(1));
    draft.body = b"{\"event\":\"from the future\"}".to_vec();
    ledger.append(vec![draft]).unwrap();
    drop(ledger);
    let error = fails(&town).await.to_string();
    assert!(
        error.contains(&format!("entry {entry}")) && error.contains("not understood"),
        "{error}"
    );
}
