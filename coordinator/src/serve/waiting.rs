//! Machines that hold a token by which an operator lets each one in by hand, in the store beside the ledger.

use std::net::IpAddr;
use std::sync::Arc;

use coordinator_core::contract::Event;
use protocol::limits::ENROLMENTS_WAITING_MAX;
use protocol::{NodeId, SiteId, Time};
use redb::{
    ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::House;
use super::enrolment::{EnrolmentError, off_thread};
use super::store::{Store, TOKENS, TokenError, TokenRow, failed};
use crate::api::messages::WaitingView;

/// By key and token id: a [`WaitingRow`] as JSON.
pub(super) const WAITING: TableDefinition<'_, ([u8; 32], &str), &[u8]> =
    TableDefinition::new("enrolments-waiting-1");

/// Who asks with a token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asker {
    /// Its key.
    pub node: NodeId,
    /// Where the question came from.
    pub address: IpAddr,
    /// What it calls itself.
    pub hostname: String,
    /// Its operating system, by its own word.
    pub os: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct WaitingRow {
    asker: Asker,
    site: Option<SiteId>,
    since: Time,
    until: Time,
    admitted: bool,
}

/// Whether an operator let this machine in. If not, it is put down as one that waits.
pub(super) fn is_admitted(
    txn: &WriteTransaction,
    id: &str,
    token: &TokenRow,
    asker: &Asker,
    now: Time,
) -> Result<bool, TokenError> {
    let mut rows = txn.open_table(WAITING).map_err(failed)?;
    let key = (asker.node.0, id);
    let before = rows
        .get(key)
        .map_err(failed)?
        .and_then(|row| read(row.value()));
    if before.as_ref().is_some_and(|row| row.admitted) {
        return Ok(true);
    }
    if before.is_none() && rows.len().map_err(failed)? >= ENROLMENTS_WAITING_MAX as u64 {
        rows.retain(|_, row| read(row).is_some_and(|row| now < row.until))
            .map_err(failed)?;
        if rows.len().map_err(failed)? >= ENROLMENTS_WAITING_MAX as u64 {
            return Err(TokenError::WaitingFull);
        }
    }
    let row = WaitingRow {
        since: before.map_or(now, |before| before.since),
        asker: asker.clone(),
        site: token.site.clone(),
        until: token.expires,
        admitted: false,
    };
    let bytes = serde_json::to_vec(&row).expect("a row is plain data");
    rows.insert(key, bytes.as_slice()).map_err(failed)?;
    Ok(false)
}

fn read(bytes: &[u8]) -> Option<WaitingRow> {
    serde_json::from_slice(bytes).ok()
}

impl Store {
    /// Those that wait with a token that still serves, the one that waits longest first.
    fn who_waits(&self, now: Time) -> Result<Vec<WaitingView>, TokenError> {
        let txn = self.db.begin_read().map_err(failed)?;
        let rows = txn.open_table(WAITING).map_err(failed)?;
        let mut all = Vec::new();
        for entry in rows.iter().map_err(failed)? {
            let (key, row) = entry.map_err(failed)?;
            let waits = |row: &WaitingRow| !row.admitted && now < row.until;
            if let Some(row) = read(row.value()).filter(waits) {
                all.push(WaitingView {
                    node: row.asker.node,
                    hostname: row.asker.hostname,
                    os: row.asker.os,
                    address: row.asker.address,
                    token: key.value().1.to_owned(),
                    site: row.site,
                    since: row.since,
                });
            }
        }
        all.sort_by_key(|view| view.since);
        Ok(all)
    }

    /// Lets a machine in, by each token with which it waits.
    fn admit(&self, node: NodeId, now: Time) -> Result<(), TokenError> {
        let waits: Vec<WaitingView> = self.who_waits(now)?;
        let txn = self.db.begin_write().map_err(failed)?;
        {
            let mut rows = txn.open_table(WAITING).map_err(failed)?;
            let tokens = txn.open_table(TOKENS).map_err(failed)?;
            for view in waits.iter().filter(|view| view.node == node) {
                let key = (node.0, view.token.as_str());
                let row = rows.get(key).map_err(failed)?;
                let row = row.and_then(|row| read(row.value()));
                let serves = tokens.get(view.token.as_str()).map_err(failed)?.is_some();
                if let Some(row) = row.filter(|_| serves) {
                    let row = WaitingRow {
                        admitted: true,
                        ..row
                    };
                    let bytes = serde_json::to_vec(&row).expect("a row is plain data");
                    rows.insert(key, bytes.as_slice()).map_err(failed)?;
                }
            }
        }
        txn.commit().map_err(failed)?;
        Ok(())
    }
}

/// Machines that wait.
///
/// # Errors
/// When the disk fails.
pub async fn waiting(house: &Arc<House>) -> Result<Vec<WaitingView>, EnrolmentError> {
    let (store, now) = (house.store.clone(), house.clock.now().wall);
    off_thread(move || store.who_waits(now)).await
}

/// Lets a machine in that waits; it becomes a node when it asks again. The ledger has who did it.
///
/// # Errors
/// When it does not wait, or the disk fails.
pub async fn admit(house: &Arc<House>, by: &str, node: NodeId) -> Result<(), EnrolmentError> {
    let waits = waiting(house).await?;
    let tokens: Vec<String> = waits
        .into_iter()
        .filter(|view| view.node == node)
        .map(|view| view.token)
        .collect();
    if tokens.is_empty() {
        return Err(EnrolmentError::NotWaiting(node));
    }
    let by = by.to_owned();
    house
        .desk
        .tell(Event::Admitted { node, by, tokens })
        .await?;
    let (store, now) = (house.store.clone(), house.clock.now().wall);
    off_thread(move || store.admit(node, now)).await
}
