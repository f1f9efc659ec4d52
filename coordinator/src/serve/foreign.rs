//! Machines that are no nodes and report: their door, and what is remembered of them, in the store beside
//! the ledger. They get a verdict; nothing of the fleet is made of what they say.

use std::net::IpAddr;
use std::sync::Arc;

use protocol::foreign::{ForeignInventory, ForeignReply, ForeignReport, ForeignVerdict, complies};
use protocol::limits::{FOREIGN_MAX, TEXT_MAX_BYTES};
use protocol::trust::Statement as _;
use protocol::{NodeId, SiteId, Time};
use redb::{
    ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
};
use serde::{Deserialize, Serialize};

use super::House;
use super::desk::Insight;
use super::enrolment::{EnrolmentError, check_fleet, off_thread};
use super::store::{Store, StoreError, TokenKind, failed};
use super::waiting::Asker;
use crate::api::messages::ForeignView;

/// By key: a [`ForeignRow`] as JSON.
pub(super) const FOREIGN: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("foreign-1");
/// When each was heard last, and its key: who is forgotten first.
pub(super) const FOREIGN_HEARD: TableDefinition<'_, (u64, [u8; 32]), ()> =
    TableDefinition::new("foreign-heard-1");

/// What is kept of one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct ForeignRow {
    inventory: ForeignInventory,
    address: IpAddr,
    token: String,
    /// The site that the token was made for.
    meant: Option<SiteId>,
    first: Time,
    last: Time,
    times: u64,
}

impl Store {
    /// Remembers what a machine said. Of too many the one that was not heard for longest is forgotten.
    fn keep_foreign(&self, machine: NodeId, mut row: ForeignRow) -> Result<(), StoreError> {
        let txn = self.db.begin_write().map_err(failed)?;
        {
            let mut rows = txn.open_table(FOREIGN).map_err(failed)?;
            let mut heard = txn.open_table(FOREIGN_HEARD).map_err(failed)?;
            let held = rows.get(machine.0).map_err(failed)?;
            let held = held.map(|held| serde_json::from_slice::<ForeignRow>(held.value()));
            if let Some(held) = held {
                let held = held.map_err(|e| StoreError::other(&e))?;
                (row.first, row.times) = (held.first, held.times.saturating_add(1));
                heard.remove((held.last.0, machine.0)).map_err(failed)?;
            } else if rows.len().map_err(failed)? >= FOREIGN_MAX as u64 {
                let oldest = heard.pop_first().map_err(failed)?;
                let oldest = oldest.map(|(key, _)| key.value().1);
                if let Some(oldest) = oldest {
                    rows.remove(oldest).map_err(failed)?;
                }
            }
            heard.insert((row.last.0, machine.0), ()).map_err(failed)?;
            let bytes = serde_json::to_vec(&row).expect("a row is plain data");
            rows.insert(machine.0, bytes.as_slice()).map_err(failed)?;
        }
        txn.commit().map_err(failed)
    }

    /// All of them, the one heard last first.
    fn foreign(&self) -> Result<Vec<(NodeId, ForeignRow)>, StoreError> {
        let txn = self.db.begin_read().map_err(failed)?;
        let rows = txn.open_table(FOREIGN).map_err(failed)?;
        let mut all = Vec::new();
        for entry in rows.iter().map_err(failed)? {
            let (machine, bytes) = entry.map_err(failed)?;
            let row = serde_json::from_slice::<ForeignRow>(bytes.value());
            all.push((
                NodeId(machine.value()),
                row.map_err(|e| StoreError::other(&e))?,
            ));
        }
        all.sort_by_key(|(_, row)| std::cmp::Reverse(row.last));
        Ok(all)
    }
}

/// Takes a report, remembers it, and says what the rules say of it.
///
/// # Errors
/// When report, proof or token do not hold, the key is a node's, or the disk fails.
pub async fn report(
    house: &Arc<House>,
    from: IpAddr,
    report: ForeignReport,
) -> Result<ForeignReply, EnrolmentError> {
    check_fleet(house, report.spec_version, report.fleet)?;
    report
        .inventory
        .check()
        .map_err(EnrolmentError::Malformed)?;
    if [&report.token_id, &report.token_secret]
        .iter()
        .any(|text| text.len() > TEXT_MAX_BYTES)
    {
        return Err(EnrolmentError::Malformed("the token is too long".into()));
    }
    let machine = report.machine;
    if !report.proven() {
        return Err(EnrolmentError::Proof(machine));
    }
    if house.desk.view(move |i| of_fleet(i, &machine)).await? {
        return Err(EnrolmentError::OfFleet(machine));
    }
    let (now, digest) = (house.clock.now().wall, report.digest());
    let (store, inventory) = (house.store.clone(), report.inventory.clone());
    let (id, secret) = (report.token_id, report.token_secret);
    let asker = Asker {
        node: machine,
        address: from,
        hostname: String::new(),
        os: String::new(),
    };
    let meant = off_thread(move || {
        let token = store.redeem(&id, &secret, TokenKind::Foreign, &asker, now)?;
        let row = ForeignRow {
            inventory,
            address: from,
            token: id,
            meant: token.site.clone(),
            first: now,
            last: now,
            times: 1,
        };
        store.keep_foreign(machine, row)?;
        Ok(token.site)
    });
    let (meant, said) = (meant.await?, report.inventory);
    let look = move |i: &Insight<'_>| {
        let site = i.conductor.foreign_site(from, meant.as_ref());
        i.conductor.judge_foreign(site.as_ref(), &said)
    };
    let mut verdict = ForeignVerdict {
        spec_version: ForeignVerdict::SPEC_VERSION,
        fleet: house.settings.fleet,
        machine,
        report: digest,
        given: now,
        rules: house.desk.view(look).await?,
    }
    .to_envelope();
    house.signer.sign(&mut verdict);
    Ok(ForeignReply {
        spec_version: 1,
        roots: house.roots.now().envelopes.clone(),
        verdict,
    })
}

/// Whether it is a node, or was one.
fn of_fleet(insight: &Insight<'_>, machine: &NodeId) -> bool {
    let certificates = insight.certificates;
    certificates.enrolments(machine) > 0 || certificates.is_revoked(machine)
}

/// All that reported, the one heard last first, with what the rules say of them now. Who became a node
/// since is among the nodes.
///
/// # Errors
/// When the disk fails.
pub async fn machines(house: &Arc<House>) -> Result<Vec<ForeignView>, EnrolmentError> {
    let store = house.store.clone();
    let rows = off_thread(move || Ok(store.foreign()?)).await?;
    let look = move |i: &Insight<'_>| {
        let rows = rows
            .into_iter()
            .filter(|(machine, _)| !of_fleet(i, machine));
        rows.map(|(machine, row)| view(i, machine, row)).collect()
    };
    Ok(house.desk.view(look).await?)
}

fn view(insight: &Insight<'_>, machine: NodeId, row: ForeignRow) -> ForeignView {
    let conductor = insight.conductor;
    let site = conductor.foreign_site(row.address, row.meant.as_ref());
    let rules = conductor.judge_foreign(site.as_ref(), &row.inventory);
    let said = |name: &str| row.inventory.attributes.get(name).map(String::as_str);
    let system = said("os.name")
        .or(said("os"))
        .into_iter()
        .chain(said("os.version"));
    ForeignView {
        machine,
        hostname: said("hostname").unwrap_or_default().to_owned(),
        system: system.collect::<Vec<_>>().join(" "),
        address: row.address,
        site,
        token: row.token,
        first_seen: row.first,
        last_seen: row.last,
        times: row.times,
        compliant: complies(&rules),
        rules,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(n: u64) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        NodeId(id)
    }

    fn row(at: u64) -> ForeignRow {
        ForeignRow {
            inventory: ForeignInventory::default(),
            address: [10, 0, 0, 9].into(),
            token: "t".into(),
            meant: None,
            first: Time(at),
            last: Time(at),
            times: 1,
        }
    }

    #[test]
    fn who_reports_again_is_one_and_of_too_many_the_one_unheard_for_longest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let store = Store::open(&path).unwrap();
        for n in 0..FOREIGN_MAX as u64 {
            store.keep_foreign(machine(n), row(n)).unwrap();
        }
        // The oldest is heard again, so the second oldest is the one that goes.
        store.keep_foreign(machine(0), row(1_000_000)).unwrap();
        store.keep_foreign(machine(9_999), row(1_000_001)).unwrap();
        drop(store);
        let all = Store::open(&path).unwrap().foreign().unwrap();
        assert_eq!(all.len(), FOREIGN_MAX);
        let of = |n| {
            all.iter()
                .find(|(found, _)| *found == machine(n))
                .map(|(_, row)| row)
        };
        let first = of(0).expect("it was heard");
        assert_eq!(
            (first.first, first.last, first.times),
            (Time(0), Time(1_000_000), 2)
        );
        assert!(of(1).is_none() && of(2).is_some() && of(9_999).is_some());
        assert_eq!(all[0].0, machine(9_999));
    }
}
