//! What the coordinator keeps beside its ledger, in redb: enrolment tokens (hashed), which blobs were
//! uploaded, recalls that wait for signatures, tokens for the API, foreign machines,
//! machines that wait to be let in. Losing it loses no rollout; open tokens become void.

use std::net::IpAddr;
use std::path::Path;

use coordinator_core::contract::TokenTerms;
use protocol::envelope::Envelope;
use protocol::limits::{ENROLMENTS_WAITING_MAX, TOKENS_MAX};
use protocol::{BlobRef, Hash, NodeId, RolloutId, SiteId, Span, Time};
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};
use serde::{Deserialize, Serialize};

use super::api_tokens::API_TOKENS;
use super::foreign::{FOREIGN, FOREIGN_HEARD};
use super::waiting::{Asker, WAITING, is_admitted};

/// By token id: a [`TokenRow`] as JSON.
pub(super) const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens-1");
/// By token id and node: when. A node that asks again with the same token uses it once.
const TOKEN_USES: TableDefinition<'_, (&str, [u8; 32]), u64> = TableDefinition::new("token-uses-1");
/// By root and length: when.
const UPLOADS: TableDefinition<'_, ([u8; 32], u64), u64> = TableDefinition::new("uploads-1");
/// By rollout: envelopes as JSON, oldest first.
const RECALLS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("recalls-1");

/// The database refused.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator's store.redb cannot be used: {0}")]
pub struct StoreError(String);

/// Why a token does not serve.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No such token, or not its secret; an asker learns not which.
    #[error("the token is not known here; ask for a new one (`tidegate token`)")]
    Unknown,
    /// Too late.
    #[error("the token expired {} ago; ask for a new one (`tidegate token`)", human(*.0))]
    Expired(Span),
    /// It opens another door.
    #[error("the token is for {0}; ask for another one ({make})", make = .0.making())]
    Kind(TokenKind),
    /// All its uses are gone.
    #[error("the token has served all of its {0} nodes; ask for a new one (`tidegate token`)")]
    Used(u32),
    /// It asks from outside the token's subnets.
    #[error("the token is not for machines at {0}; ask for another one (`tidegate token`)")]
    Elsewhere(IpAddr),
    /// An operator lets each machine in.
    #[error(
        "node {0} waits until an operator lets it in (`tidegate nodes admit {0}`); then run this again"
    )]
    Waiting(NodeId),
    /// Too many wait.
    #[error(
        "{ENROLMENTS_WAITING_MAX} machines wait to be let in, and that is the limit; an operator has to look at `tidegate nodes --waiting`"
    )]
    WaitingFull,
    /// Too many tokens.
    #[error("{TOKENS_MAX} tokens are open, and that is the limit; wait until some expire")]
    TooMany,
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a token is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// Machines become nodes with it.
    #[default]
    Nodes,
    /// Machines that are no nodes report with it.
    Foreign,
}

impl TokenKind {
    /// How to come by one of the other kind.
    fn making(self) -> &'static str {
        match self {
            TokenKind::Nodes => "`tidegate token --foreign`",
            TokenKind::Foreign => "`tidegate token`",
        }
    }
}

impl std::fmt::Display for TokenKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TokenKind::Nodes => "machines that become nodes (`tidegate-node enroll`)",
            TokenKind::Foreign => {
                "foreign machines, which report (`tidegate-node report`) and are no nodes"
            }
        })
    }
}

/// A token as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenRow {
    /// BLAKE3 of the secret's text.
    pub secret: Hash,
    /// Nodes that it was made for.
    pub uses: u32,
    /// Nodes that used it.
    pub used: u32,
    /// It serves until then.
    pub expires: Time,
    /// The site that it was made for.
    pub site: Option<SiteId>,
    /// What it is good for; nodes in rows that do not say.
    #[serde(default)]
    pub kind: TokenKind,
    /// What else it asks for.
    #[serde(default)]
    pub terms: TokenTerms,
}

/// The database.
pub struct Store {
    pub(super) db: Database,
}

pub(super) fn failed(e: impl Into<redb::Error>) -> StoreError {
    StoreError(e.into().to_string())
}

impl StoreError {
    /// Something else than the database itself.
    pub(super) fn other(e: &dyn std::error::Error) -> StoreError {
        StoreError(e.to_string())
    }
}

impl Store {
    /// Opens it, or makes it.
    ///
    /// # Errors
    /// When the file is no database of ours, in use, or the disk fails.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let db = Database::builder()
            .set_check_integrity_on_open(true)
            .create(path)
            .map_err(failed)?;
        let txn = db.begin_write().map_err(failed)?;
        txn.open_table(TOKENS).map_err(failed)?;
        txn.open_table(TOKEN_USES).map_err(failed)?;
        txn.open_table(UPLOADS).map_err(failed)?;
        txn.open_table(RECALLS).map_err(failed)?;
        txn.open_table(API_TOKENS).map_err(failed)?;
        txn.open_table(WAITING).map_err(failed)?;
        txn.open_table(FOREIGN).map_err(failed)?;
        txn.open_table(FOREIGN_HEARD).map_err(failed)?;
        txn.commit().map_err(failed)?;
        Ok(Store { db })
    }

    /// Keeps a new token; drops those that have expired.
    ///
    /// # Errors
    /// When too many are open, or the disk fails.
    pub fn add_token(&self, id: &str, row: &TokenRow, now: Time) -> Result<(), TokenError> {
        let txn = self.db.begin_write().map_err(failed)?;
        {
            let mut tokens = txn.open_table(TOKENS).map_err(failed)?;
            let mut uses = txn.open_table(TOKEN_USES).map_err(failed)?;
            let dead = |bytes: &[u8]| {
                serde_json::from_slice::<TokenRow>(bytes).is_ok_and(|row| row.expires <= now)
            };
            let mut gone = Vec::new();
            for entry in tokens.iter().map_err(failed)? {
                let (id, bytes) = entry.map_err(failed)?;
                if dead(bytes.value()) {
                    gone.push(id.value().to_owned());
                }
            }
            for id in gone {
                tokens.remove(id.as_str()).map_err(failed)?;
                let nodes = (id.as_str(), [0; 32])..=(id.as_str(), [255; 32]);
                uses.retain_in(nodes, |_, _| false).map_err(failed)?;
            }
            if tokens.len().map_err(failed)? >= TOKENS_MAX as u64 {
                return Err(TokenError::TooMany);
            }
            let bytes = serde_json::to_vec(row).expect("a row is plain data");
            tokens.insert(id, bytes.as_slice()).map_err(failed)?;
        }
        txn.commit().map_err(failed)?;
        Ok(())
    }

    /// Uses a token for a node: checked and counted in one durable step.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn redeem(
        &self,
        id: &str,
        secret: &str,
        kind: TokenKind,
        asker: &Asker,
        now: Time,
    ) -> Result<TokenRow, TokenError> {
        // Looked up by reading first: whoever guesses waits for nobody and keeps nobody waiting.
        self.authentic(id, secret)?;
        let node = asker.node;
        let waits;
        let txn = self.db.begin_write().map_err(failed)?;
        let row = {
            let mut tokens = txn.open_table(TOKENS).map_err(failed)?;
            let mut uses = txn.open_table(TOKEN_USES).map_err(failed)?;
            let mut row = read_token(tokens.get(id).map_err(failed)?)?;
            if row.kind != kind {
                return Err(TokenError::Kind(row.kind));
            }
            if row.expires <= now {
                return Err(TokenError::Expired(now.since(row.expires)));
            }
            if !row.terms.admit(asker.address) {
                return Err(TokenError::Elsewhere(asker.address));
            }
            let first = uses.get((id, node.0)).map_err(failed)?.is_none();
            waits = first && row.terms.by_hand && !is_admitted(&txn, id, &row, asker, now)?;
            if first && !waits {
                if row.used >= row.uses {
                    return Err(TokenError::Used(row.uses));
                }
                row.used += 1;
                uses.insert((id, node.0), now.0).map_err(failed)?;
                let bytes = serde_json::to_vec(&row).expect("a row is plain data");
                tokens.insert(id, bytes.as_slice()).map_err(failed)?;
            }
            row
        };
        txn.commit().map_err(failed)?;
        if waits {
            return Err(TokenError::Waiting(node));
        }
        Ok(row)
    }

    fn authentic(&self, id: &str, secret: &str) -> Result<(), TokenError> {
        let txn = self.db.begin_read().map_err(failed)?;
        let tokens = txn.open_table(TOKENS).map_err(failed)?;
        let row = read_token(tokens.get(id).map_err(failed)?)?;
        // blake3's own comparison takes the same time whatever differs.
        match blake3::Hash::from_bytes(row.secret.0) == blake3::hash(secret.as_bytes()) {
            true => Ok(()),
            false => Err(TokenError::Unknown),
        }
    }

    /// Notes that a blob was uploaded whole, or (`false`) that it was not after all.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn set_uploaded(&self, blob: BlobRef, whole: bool, now: Time) -> Result<(), StoreError> {
        let txn = self.db.begin_write().map_err(failed)?;
        {
            let mut uploads = txn.open_table(UPLOADS).map_err(failed)?;
            let key = (blob.root.0, blob.length);
            if whole {
                uploads.insert(key, now.0).map_err(failed)?;
            } else {
                uploads.remove(key).map_err(failed)?;
            }
        }
        txn.commit().map_err(failed)
    }

    /// Whether a blob was uploaded whole.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn was_uploaded(&self, blob: BlobRef) -> Result<bool, StoreError> {
        let txn = self.db.begin_read().map_err(failed)?;
        let uploads = txn.open_table(UPLOADS).map_err(failed)?;
        Ok(uploads
            .get((blob.root.0, blob.length))
            .map_err(failed)?
            .is_some())
    }

    /// Statements about a subject that wait for signatures, oldest first. A recall's subject is the id of
    /// its rollout, a lift's is [`lift_subject`].
    ///
    /// # Errors
    /// When the disk fails.
    pub fn waiting(&self, subject: &str) -> Result<Vec<Envelope>, StoreError> {
        let txn = self.db.begin_read().map_err(failed)?;
        let recalls = txn.open_table(RECALLS).map_err(failed)?;
        let row = recalls.get(subject).map_err(failed)?;
        row.map_or(Ok(Vec::new()), |row| {
            serde_json::from_slice(row.value()).map_err(|e| StoreError(e.to_string()))
        })
    }

    /// Replaces the statements about a subject that wait for signatures.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn set_waiting(&self, subject: &str, waiting: &[Envelope]) -> Result<(), StoreError> {
        let txn = self.db.begin_write().map_err(failed)?;
        {
            let mut recalls = txn.open_table(RECALLS).map_err(failed)?;
            if waiting.is_empty() {
                recalls.remove(subject).map_err(failed)?;
            } else {
                let bytes = serde_json::to_vec(waiting).expect("envelopes are plain data");
                recalls.insert(subject, bytes.as_slice()).map_err(failed)?;
            }
        }
        txn.commit().map_err(failed)
    }
}

/// The subject of statements that lift the halt of a rollout, or of everything. No rollout is called so.
pub fn lift_subject(rollout: Option<&RolloutId>) -> String {
    format!("lift/{}", rollout.map_or("", RolloutId::as_str))
}

fn read_token(row: Option<redb::AccessGuard<'_, &[u8]>>) -> Result<TokenRow, TokenError> {
    let row = row.map(|bytes| serde_json::from_slice(bytes.value()));
    row.and_then(Result::ok).ok_or(TokenError::Unknown)
}

fn human(span: Span) -> String {
    match span.0 / 1000 {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s @ 7200..=172_799 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1_000_000);

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn asker(n: u8) -> Asker {
        Asker {
            node: node(n),
            address: [10, 1, 0, n].into(),
            hostname: format!("n{n}"),
            os: "linux".into(),
        }
    }

    fn row(uses: u32, expires: Time) -> TokenRow {
        TokenRow {
            secret: Hash::of(b"secret"),
            uses,
            used: 0,
            expires,
            site: None,
            kind: TokenKind::Nodes,
            terms: TokenTerms::default(),
        }
    }

    #[test]
    fn a_token_serves_as_many_nodes_as_it_says_and_each_once_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let store = Store::open(&path).unwrap();
        store
            .add_token("t", &row(2, NOW + Span::from_secs(60)), NOW)
            .unwrap();
        assert!(matches!(
            store.redeem("t", "wrong", TokenKind::Nodes, &asker(1), NOW),
            Err(TokenError::Unknown)
        ));
        assert!(matches!(
            store.redeem("other", "secret", TokenKind::Nodes, &asker(1), NOW),
            Err(TokenError::Unknown)
        ));
        store
            .redeem("t", "secret", TokenKind::Nodes, &asker(1), NOW)
            .unwrap();
        // The reply was lost, and the node asks again.
        store
            .redeem("t", "secret", TokenKind::Nodes, &asker(1), NOW)
            .unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(
            store
                .redeem("t", "secret", TokenKind::Nodes, &asker(2), NOW)
                .unwrap()
                .used,
            2
        );
        assert!(matches!(
            store.redeem("t", "secret", TokenKind::Nodes, &asker(3), NOW),
            Err(TokenError::Used(2))
        ));
        store
            .redeem("t", "secret", TokenKind::Nodes, &asker(2), NOW)
            .unwrap();
    }

    #[test]
    fn an_expired_token_serves_nobody_and_is_dropped_with_the_next_one_made() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.redb")).unwrap();
        store
            .add_token("t", &row(1, NOW), NOW - Span::from_secs(1))
            .unwrap();
        store
            .redeem(
                "t",
                "secret",
                TokenKind::Nodes,
                &asker(1),
                NOW - Span::from_secs(1),
            )
            .unwrap();
        let error = store
            .redeem(
                "t",
                "secret",
                TokenKind::Nodes,
                &asker(1),
                NOW + Span::from_secs(300),
            )
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token expired 5 min ago; ask for a new one (`tidegate token`)"
        );
        store
            .add_token("u", &row(1, NOW + Span::from_secs(9)), NOW)
            .unwrap();
        assert!(matches!(
            store.redeem("t", "secret", TokenKind::Nodes, &asker(1), NOW),
            Err(TokenError::Unknown)
        ));
    }

    #[test]
    fn a_token_of_one_kind_opens_no_door_of_the_other_and_is_not_used_by_trying() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.redb")).unwrap();
        let kinds = [TokenKind::Nodes, TokenKind::Foreign];
        for (id, kind) in ["n", "f"].into_iter().zip(kinds) {
            let row = TokenRow {
                kind,
                ..row(1, NOW + Span::from_secs(60))
            };
            store.add_token(id, &row, NOW).unwrap();
        }
        for (id, wrong) in [("n", TokenKind::Foreign), ("f", TokenKind::Nodes)] {
            let error = store
                .redeem(id, "secret", wrong, &asker(1), NOW)
                .unwrap_err();
            assert!(matches!(error, TokenError::Kind(kind) if kind != wrong));
            assert!(error.to_string().contains("tidegate token"), "{error}");
        }
        for (id, right) in ["n", "f"].into_iter().zip(kinds) {
            assert_eq!(
                store
                    .redeem(id, "secret", right, &asker(2), NOW)
                    .unwrap()
                    .used,
                1
            );
        }
        let old = r#"{"secret":"SECRET","uses":1,"used":0,"expires":1,"site":null}"#;
        let old = old.replace("SECRET", &Hash::of(b"secret").to_string());
        let old: TokenRow = serde_json::from_str(&old).unwrap();
        assert_eq!(old.kind, TokenKind::Nodes, "as before there were two");
    }

    #[test]
    fn many_at_once_do_not_use_a_token_more_often_than_it_serves() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.redb")).unwrap();
        store
            .add_token("t", &row(3, NOW + Span::from_secs(60)), NOW)
            .unwrap();
        let served = std::thread::scope(|scope| {
            let asks: Vec<_> = (0..8)
                .map(|n| {
                    scope.spawn({
                        let store = &store;
                        move || {
                            store
                                .redeem("t", "secret", TokenKind::Nodes, &asker(n), NOW)
                                .is_ok()
                        }
                    })
                })
                .collect();
            asks.into_iter()
                .filter(|_| true)
                .map(|ask| ask.join().unwrap())
                .filter(|ok| *ok)
                .count()
        });
        assert_eq!(served, 3);
    }
}
