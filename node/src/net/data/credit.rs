//! What a peer is trusted with: how many bytes may come from it before they are verified, and who is left
//! alone as a source.
//!
//! A peer that lies is found out at its first wrong group; what it costs is all that was read from it and
//! not verified by then, over all its streams. So bytes are read on credit: a stream takes what the next
//! groups need before it reads them and gives it back once they are verified, and the credit of a peer grows
//! with what it gave rightly. To one that gave nothing yet a single group is asked for at first. When one
//! stream shows that a peer lies, all of them end.
//!
//! Whoever is barred is no source any more. It is served, heard and connected to like anybody: its disk may
//! be damaged, and a halt must reach it and pass through it all the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use protocol::NodeId;
use protocol::limits::{
    BAN, CREDIT_GROWTH, CREDIT_MAX_BYTES, CREDITED_PEERS_MAX, RETRY_FIRST, UNVERIFIED_MAX_BYTES,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Bytes that came from one peer and were of no use, by what became of the fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wasted {
    /// They, or others that came beside them, did not verify.
    pub lies: u64,
    /// The peer was too slow to complete a group.
    pub stalls: u64,
    /// The connection broke within a group.
    pub breaks: u64,
    /// This node did not want them any more, or could not write them.
    pub dropped: u64,
}

impl Wasted {
    /// All of them.
    pub fn bytes(&self) -> u64 {
        self.lies + self.stalls + self.breaks + self.dropped
    }
}

/// All peers that were asked.
#[derive(Debug, Default)]
pub(super) struct Credits(Mutex<HashMap<NodeId, Account>>);

#[derive(Debug)]
struct Account {
    credit: Arc<Credit>,
    wasted: Wasted,
    barred_until: Option<Instant>,
    used: Instant,
}

impl Account {
    fn new() -> Account {
        Account {
            credit: Arc::new(Credit::new()),
            wasted: Wasted::default(),
            barred_until: None,
            used: Instant::now(),
        }
    }

    fn is_barred(&self) -> bool {
        self.barred_until
            .is_some_and(|until| until > Instant::now())
    }
}

impl Credits {
    fn accounts(&self) -> MutexGuard<'_, HashMap<NodeId, Account>> {
        self.0.lock().expect("no panic under this lock")
    }

    /// Does something with a peer's account. Where there are too many, one that nobody uses goes, an honest
    /// one first.
    fn with<T>(&self, node: NodeId, with: impl FnOnce(&mut Account) -> T) -> T {
        let mut accounts = self.accounts();
        if accounts.len() >= CREDITED_PEERS_MAX && !accounts.contains_key(&node) {
            let unused = accounts
                .iter()
                .filter(|(_, account)| Arc::strong_count(&account.credit) == 1);
            let oldest = unused.min_by_key(|(_, account)| {
                (account.is_barred(), account.wasted.lies > 0, account.used)
            });
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                accounts.remove(&oldest);
            }
        }
        let account = accounts.entry(node).or_insert_with(Account::new);
        account.used = Instant::now();
        with(account)
    }

    /// A peer's credit; none if it is barred.
    pub(super) fn of(&self, node: NodeId) -> Option<Arc<Credit>> {
        self.with(node, |account| {
            (!account.is_barred()).then(|| account.credit.clone())
        })
    }

    /// Bytes of a peer were of no use.
    pub(super) fn waste(&self, node: NodeId, count: impl FnOnce(&mut Wasted)) {
        self.with(node, |account| count(&mut account.wasted));
    }

    /// A peer sent wrong bytes on this credit: whatever else is under way on it ends. The peer begins anew, but
    /// not at once: the brain is to say first what it makes of it.
    pub(super) fn spoil(&self, node: NodeId, credit: &Arc<Credit>) {
        self.with(node, |account| {
            if Arc::ptr_eq(&account.credit, credit) {
                account.credit = Arc::new(Credit::new());
                let soon = Instant::now() + RETRY_FIRST.as_duration();
                account.barred_until = account.barred_until.max(Some(soon));
            }
        });
        credit.spoil();
    }

    /// Nothing is taken from a peer any more, for [`BAN`].
    pub(super) fn bar(&self, node: NodeId) {
        let until = Instant::now() + BAN.as_duration();
        let credit = self.with(node, |account| {
            account.barred_until = Some(until);
            account.credit.clone()
        });
        self.spoil(node, &credit);
    }

    /// Whether nothing that came from a peer verified yet.
    pub(super) fn is_new(&self, node: &NodeId) -> bool {
        let accounts = self.accounts();
        accounts
            .get(node)
            .is_none_or(|account| account.credit.is_new())
    }

    /// What was of no use, by peer.
    pub(super) fn wasted(&self) -> BTreeMap<NodeId, Wasted> {
        let accounts = self.accounts();
        let some = accounts
            .iter()
            .filter(|(_, account)| account.wasted != Wasted::default());
        some.map(|(node, account)| (*node, account.wasted))
            .collect()
    }
}

/// What may be read from one peer before it is verified.
#[derive(Debug)]
pub(super) struct Credit {
    room: Arc<Semaphore>,
    first: Arc<Semaphore>,
    proved: AtomicU64,
    spoiled: watch::Sender<bool>,
}

/// Bytes of a credit that are taken, given back when this is dropped.
pub(super) type Taken = OwnedSemaphorePermit;

impl Credit {
    pub(super) fn new() -> Credit {
        Credit {
            room: Arc::new(Semaphore::new(UNVERIFIED_MAX_BYTES as usize)),
            first: Arc::new(Semaphore::new(1)),
            proved: AtomicU64::new(0),
            spoiled: watch::Sender::new(false),
        }
    }

    /// Whether nothing that came from the peer verified yet.
    pub(super) fn is_new(&self) -> bool {
        self.proved.load(Ordering::Relaxed) == 0
    }

    /// Waits for the turn to ask a peer that is new; none once it is not.
    pub(super) async fn first(&self) -> Option<OwnedSemaphorePermit> {
        if !self.is_new() {
            return None;
        }
        // It is closed when the peer is not new any more.
        self.first.clone().acquire_owned().await.ok()
    }

    /// Takes so many bytes, if there is room now.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Taken> {
        let bytes = u32::try_from(bytes).ok()?;
        self.room.clone().try_acquire_many_owned(bytes).ok()
    }

    /// Waits until there is room for so many bytes, no more than a group with its proof. None: the peer lies.
    pub(super) async fn take(&self, bytes: usize) -> Option<Taken> {
        let bytes = u32::try_from(bytes).ok()?;
        self.room.clone().acquire_many_owned(bytes).await.ok()
    }

    /// So many payload bytes of the peer verified.
    pub(super) fn prove(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let before = self.proved.fetch_add(bytes, Ordering::Relaxed);
        let growth = |proved: u64| (proved / CREDIT_GROWTH).min(CREDIT_MAX_BYTES);
        let more = growth(before + bytes) - growth(before);
        if more > 0 {
            self.room.add_permits(more as usize);
        }
        self.first.close();
    }

    fn spoil(&self) {
        self.spoiled.send_replace(true);
        self.room.close();
        self.first.close();
    }

    /// Waits until the peer is shown to lie.
    pub(super) async fn spoiled(&self) {
        // The sender lives as long as this.
        let _ = self.spoiled.subscribe().wait_for(|spoiled| *spoiled).await;
    }

    /// Whether it is.
    pub(super) fn is_spoiled(&self) -> bool {
        *self.spoiled.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = UNVERIFIED_MAX_BYTES as usize;

    #[tokio::test]
    async fn a_credit_grows_with_what_verified_and_is_gone_when_something_did_not() {
        let credits = Credits::default();
        let peer = NodeId([7; 32]);
        let credit = credits.of(peer).unwrap();
        assert!(credit.is_new() && credit.try_take(MOST + 1).is_none());
        let all = credit.try_take(MOST).unwrap();
        assert!(credit.try_take(1).is_none());
        drop(all);
        credit.prove(CREDIT_GROWTH * 1_000);
        assert!(!credit.is_new() && credit.first().await.is_none());
        assert!(credit.try_take(MOST + 1_001).is_none());
        let held = credit.try_take(MOST + 1_000).unwrap();
        let waiting = tokio::spawn({
            let credit = credit.clone();
            async move { credit.take(1).await.is_none() }
        });
        credits.spoil(peer, &credit);
        credit.spoiled().await;
        assert!(waiting.await.unwrap() && credit.is_spoiled());
        drop(held);
        assert!(
            credits.of(peer).is_none(),
            "it is asked nothing more right now"
        );
        assert!(credits.is_new(&peer), "and then begins anew");
        credits.bar(peer);
        assert!(credits.of(peer).is_none());
        assert!(credits.of(NodeId([8; 32])).is_some());
    }

    #[tokio::test]
    async fn a_credit_has_a_limit_and_so_has_the_number_of_peers() {
        let credit = Credit::new();
        credit.prove(u64::MAX / 2);
        assert!(credit.try_take(MOST + CREDIT_MAX_BYTES as usize).is_some());
        let credits = Credits::default();
        let id = |n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            NodeId(id)
        };
        credits.bar(id(0));
        for n in 0..=CREDITED_PEERS_MAX as u32 {
            credits.waste(id(n), |wasted| wasted.stalls += 1);
        }
        assert_eq!(credits.wasted().len(), CREDITED_PEERS_MAX);
        assert!(credits.of(id(0)).is_none(), "who is barred is remembered");
    }

    #[tokio::test]
    async fn the_first_request_goes_alone_and_the_others_follow_when_it_proved_something() {
        let credit = Arc::new(Credit::new());
        let turn = credit.first().await.unwrap();
        let others: Vec<_> = (0..3)
            .map(|_| {
                let credit = credit.clone();
                tokio::spawn(async move { credit.first().await.is_none() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(others.iter().all(|other| !other.is_finished()));
        credit.prove(1);
        for other in others {
            assert!(other.await.unwrap());
        }
        drop(turn);
    }
}
