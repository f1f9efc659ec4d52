//! Tokens for the API, in the store beside the ledger: hashed, for a role, revocable.
//!
//! A token's text is `tga1.ID.SECRET`. Of the secret only the hash is kept. The directory's own token,
//! in the file `api-token`, is none of these.

use std::collections::BTreeSet;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use protocol::limits::{API_TOKEN_LIFE_MAX, API_TOKENS_MAX, TEXT_MAX_BYTES};
use protocol::{Hash, SiteId, Span, Time};
use redb::{
    ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
};
use serde::{Deserialize, Serialize};

use super::House;
use super::store::{Store, StoreError, failed};
use crate::api::access::{Grant, Role};
use crate::api::messages::{AccessMade, AccessView, NewAccess};
use crate::keys::random_32;

/// By id: an [`ApiTokenRow`] as JSON.
pub(super) const API_TOKENS: TableDefinition<'_, &str, &[u8]> =
    TableDefinition::new("api-tokens-1");

/// What every token's text begins with.
const PREFIX: &str = "tga1.";

/// Why a token for the API was not made or not revoked. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A number or text out of its range.
    #[error("{0}")]
    Malformed(String),
    /// No such token.
    #[error("there is no token {0}; `tidegate access list` names them")]
    Unknown(String),
    /// Too many.
    #[error("there are {API_TOKENS_MAX} tokens, and that is the limit; revoke some")]
    TooMany,
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A token as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct ApiTokenRow {
    /// BLAKE3 of the secret's text.
    secret: Hash,
    name: String,
    role: Role,
    /// The fleet, if none are named.
    sites: BTreeSet<SiteId>,
    made: Time,
    expires: Time,
}

impl Store {
    fn add_api_token(&self, id: &str, row: &ApiTokenRow) -> Result<(), AccessError> {
        let txn = self.db.begin_write().map_err(failed)?;
        {
            let mut tokens = txn.open_table(API_TOKENS).map_err(failed)?;
            let now = row.made;
            let live = |bytes: &[u8]| {
                serde_json::from_slice::<ApiTokenRow>(bytes).is_ok_and(|row| now < row.expires)
            };
            tokens.retain(|_, bytes| live(bytes)).map_err(failed)?;
            if tokens.len().map_err(failed)? >= API_TOKENS_MAX as u64 {
                return Err(AccessError::TooMany);
            }
            let bytes = serde_json::to_vec(row).expect("a row is plain data");
            tokens.insert(id, bytes.as_slice()).map_err(failed)?;
        }
        txn.commit().map_err(failed)?;
        Ok(())
    }

    /// Whose token a text is; `None` if nobody's, not the secret, or past its end.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn grant(&self, text: &str, now: Time) -> Result<Option<Grant>, StoreError> {
        let parts = text.strip_prefix(PREFIX).and_then(|t| t.split_once('.'));
        let Some((id, secret)) = parts else {
            return Ok(None);
        };
        let txn = self.db.begin_read().map_err(failed)?;
        let tokens = txn.open_table(API_TOKENS).map_err(failed)?;
        let row = tokens.get(id).map_err(failed)?;
        let row = row.and_then(|row| serde_json::from_slice::<ApiTokenRow>(row.value()).ok());
        // blake3's own comparison takes the same time whatever differs.
        let shown = blake3::hash(secret.as_bytes());
        let holds = |row: &ApiTokenRow| {
            blake3::Hash::from_bytes(row.secret.0) == shown && now < row.expires
        };
        Ok(row.filter(holds).map(|row| Grant {
            name: row.name,
            role: row.role,
            sites: row.sites,
        }))
    }

    fn api_tokens(&self) -> Result<Vec<AccessView>, StoreError> {
        let txn = self.db.begin_read().map_err(failed)?;
        let tokens = txn.open_table(API_TOKENS).map_err(failed)?;
        let mut views = Vec::new();
        for entry in tokens.iter().map_err(failed)? {
            let (id, bytes) = entry.map_err(failed)?;
            let row: ApiTokenRow =
                serde_json::from_slice(bytes.value()).map_err(|e| StoreError::other(&e))?;
            views.push(AccessView {
                id: id.value().to_owned(),
                name: row.name,
                role: row.role,
                sites: row.sites,
                made: row.made,
                expires: row.expires,
            });
        }
        views.sort_by_key(|view| view.made);
        Ok(views)
    }

    fn drop_api_token(&self, id: &str) -> Result<bool, StoreError> {
        let txn = self.db.begin_write().map_err(failed)?;
        let found = {
            let mut tokens = txn.open_table(API_TOKENS).map_err(failed)?;
            tokens.remove(id).map_err(failed)?.is_some()
        };
        txn.commit().map_err(failed)?;
        Ok(found)
    }
}

/// Makes a token. It is shown this once.
///
/// # Errors
/// When the wishes are out of range, there are too many, or the disk fails.
pub async fn new_access(
    house: &Arc<House>,
    by: &Grant,
    ask: NewAccess,
) -> Result<AccessMade, AccessError> {
    let malformed = |why: &str| Err(AccessError::Malformed(why.to_owned()));
    if ask.name.is_empty() || ask.name.len() > TEXT_MAX_BYTES {
        return malformed("a token needs a name of its holder, and not a long one");
    }
    if ask.life == Span::ZERO || ask.life > API_TOKEN_LIFE_MAX {
        return malformed("a token lives for at least a moment and at most a year");
    }
    let now = house.clock.now().wall;
    let id = BASE64URL_NOPAD.encode(&random_32()[..9]);
    let secret = BASE64URL_NOPAD.encode(&random_32());
    let row = ApiTokenRow {
        secret: Hash::of(secret.as_bytes()),
        name: ask.name,
        role: ask.role,
        sites: ask.sites,
        made: now,
        expires: now + ask.life,
    };
    let line = format!("{} made token {id} for {}, {}", by.name, row.name, row.role);
    let (store, key) = (house.store.clone(), id.clone());
    off_thread(move || store.add_api_token(&key, &row)).await?;
    house.log.note(now, "access", &line);
    Ok(AccessMade {
        token: format!("{PREFIX}{id}.{secret}"),
        id,
    })
}

/// All tokens, oldest first.
///
/// # Errors
/// When the disk fails.
pub async fn accesses(house: &Arc<House>) -> Result<Vec<AccessView>, AccessError> {
    let store = house.store.clone();
    off_thread(move || Ok(store.api_tokens()?)).await
}

/// Takes a token away; from now on it opens nothing.
///
/// # Errors
/// When there is none, or the disk fails.
pub async fn revoke_access(house: &Arc<House>, by: &Grant, id: String) -> Result<(), AccessError> {
    let (store, key) = (house.store.clone(), id.clone());
    if !off_thread(move || Ok(store.drop_api_token(&key)?)).await? {
        return Err(AccessError::Unknown(id));
    }
    let line = format!("{} revoked token {id}", by.name);
    house.log.note(house.clock.now().wall, "access", &line);
    Ok(())
}

/// redb waits for the disk; the runtime's threads do not.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AccessError> + Send + 'static,
) -> Result<T, AccessError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(StoreError::other(&e).into()))
}
