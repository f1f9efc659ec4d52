//! After a restore: nodes are asked for what they have and the ledger does not.
//!
//! The conductor says whom to ask ([`Conductor::asks_for`]); here the questions are put, and the answers
//! verified. Roots come first, because the keys in them decide about everything else.
//!
//! [`Conductor::asks_for`]: coordinator_core::Conductor::asks_for

use std::sync::Arc;

use coordinator_core::contract::{Enrolled, Event, Testimony};
use node::net::control::Control;
use protocol::envelope::Envelope;
use protocol::limits::{ROOT_WALK_MAX, TESTIMONY_PAGES_MAX, WITNESSES_MAX};
use protocol::orders::{Bulletin, Order, OrderBody, RolloutHead};
use protocol::plan::Recall;
use protocol::trust::{Statement, Trust};
use protocol::versioned::Versioned as _;
use protocol::wire::{Contact, ControlReply, ControlRequest};
use protocol::{Hash, NodeId, Seq, Verified};
use tokio::sync::{Semaphore, mpsc, watch};

use super::certificates::RESTORED;
use super::desk::{DeskError, Insight};
use super::{House, roots};

/// A node to be asked, and after which order.
type Ask = (Contact, Seq);
/// The way to whoever asks.
pub(crate) type Asks = mpsc::Sender<Ask>;

/// The queue of nodes to be asked; who finds no place is asked at its next report.
pub(super) fn asks() -> (Asks, mpsc::Receiver<Ask>) {
    mpsc::channel(WITNESSES_MAX)
}

/// Has a node that reported asked, if it may know what the ledger does not.
pub(super) async fn ask(
    house: &House,
    contact: Option<Contact>,
    head: Seq,
) -> Result<(), DeskError> {
    let asks = house.desk.view(move |i| i.conductor.asks_for(head)).await?;
    if let Some((contact, since)) = contact.zip(asks) {
        let _ = house.witnesses.try_send((contact, since));
    }
    Ok(())
}

/// Takes a node in again that was enrolled in a time that the ledger lost: its certificate, which opened
/// the door to it, is proof. What else it is, it tells with its inventory.
pub(super) async fn readmit(house: &House, node: NodeId) {
    let lost = house.desk.view(move |i| i.certificates.lost(&node)).await;
    if let Some(serial) = lost.ok().flatten().filter(|_| !is_own(house, node)) {
        let _ = take_in(house, node, serial).await;
    }
}

/// Puts a certificate of the lost time on record, so that a revocation list can have it.
pub(super) async fn take_in(house: &House, node: NodeId, serial: u64) -> Result<(), DeskError> {
    let look = move |i: &Insight<'_>| i.certificates.enrolments(&node) > 0;
    let serial = format!("{serial:016x}");
    if house.desk.view(look).await? {
        return house.desk.tell(Event::Renewed { node, serial }).await;
    }
    let enrolled = Enrolled {
        node,
        hostname: node.short().to_string(),
        os: String::new(),
        arch: String::new(),
        labels: Default::default(),
        site: None,
        serial,
        token: RESTORED.into(),
    };
    let line = format!("{node} was enrolled before the restore, and is taken in again");
    house.log.note(house.clock.now().wall, "regained", &line);
    house.desk.tell(Event::Enrolled(enrolled)).await
}

fn is_own(house: &House, node: NodeId) -> bool {
    node == house.settings.origin || node == house.settings.coordinator
}

/// Asks until told to stop, [`WITNESSES_MAX`] at the same time.
pub(super) async fn listen(
    house: Arc<House>,
    control: Control,
    mut asks: mpsc::Receiver<Ask>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(WITNESSES_MAX));
    loop {
        let ask = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            ask = asks.recv() => ask,
        };
        let Some((contact, since)) = ask else { return };
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let (house, control, mut stop) = (house.clone(), control.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = hear(&house, Witness { control, contact }, since) => {}
            }
            drop(place);
        });
    }
}

/// A node that is asked.
struct Witness {
    control: Control,
    contact: Contact,
}

impl Witness {
    async fn ask(&self, request: ControlRequest) -> Option<ControlReply> {
        let bytes = request.to_bytes();
        let reply = self.control.request(self.contact.clone(), bytes).await;
        ControlReply::from_bytes(&reply.ok()?).ok()
    }

    async fn document(&self, digest: Hash) -> Option<Vec<u8>> {
        match self.ask(ControlRequest::PullDocument { digest }).await? {
            ControlReply::Document(bytes) => bytes.filter(|bytes| !bytes.is_empty()),
            _ => None,
        }
    }

    /// A statement that its role's keys signed.
    async fn statement<T: Statement>(&self, trust: &Trust, digest: Hash) -> Option<Verified<T>> {
        let envelope = Envelope::from_json(&self.document(digest).await?).ok()?;
        let believed = trust.verify::<T>(&envelope).ok()?;
        (believed.digest() == digest).then_some(believed)
    }
}

async fn hear(house: &Arc<House>, witness: Witness, since: Seq) {
    walk_roots(house, &witness).await;
    let Some(testimony) = testify(house, &witness, since).await else {
        let line = format!("{} did not say what it has", witness.contact.node.short());
        return house.log.note(house.clock.now().wall, "witness", &line);
    };
    let _ = house.desk.tell(Event::Testimony(Box::new(testimony))).await;
}

/// Takes over roots that came into force in the lost time.
async fn walk_roots(house: &Arc<House>, witness: &Witness) {
    for _ in 0..ROOT_WALK_MAX {
        let version = house.roots.now().trust.root().version + 1;
        let reply = witness.ask(ControlRequest::PullRoot { version }).await;
        let Some(ControlReply::Document(Some(bytes))) = reply else {
            return;
        };
        let Ok(envelope) = Envelope::from_json(&bytes) else {
            return;
        };
        if let Err(e) = roots::publish(house, envelope).await {
            let line = format!("root {version} of the fleet is not taken over: {e}");
            return house.log.note(house.clock.now().wall, "root", &line);
        }
    }
}

/// What a node has; `None` if it does not answer.
async fn testify(house: &Arc<House>, witness: &Witness, since: Seq) -> Option<Testimony> {
    let trust = house.roots.now().trust.clone();
    let mut testimony = Testimony {
        from: witness.contact.node,
        orders: Vec::new(),
        recalls: Vec::new(),
        plans: Vec::new(),
        releases: Vec::new(),
        topology: None,
        revoked: Vec::new(),
        barred: None,
    };
    let mut after = since;
    for _ in 0..TESTIMONY_PAGES_MAX {
        let reply = witness.ask(ControlRequest::PullOrders { after }).await?;
        let ControlReply::Orders(page) = reply else {
            return None;
        };
        let believed = page.iter().filter_map(|e| trust.verify::<Order>(e).ok());
        let page: Vec<Verified<Order>> = believed.filter(|order| order.seq > after).collect();
        let Some(last) = page.iter().map(|order| order.seq).max() else {
            break;
        };
        after = last;
        testimony.orders.extend(page);
    }
    for order in &testimony.orders {
        if let OrderBody::Recall { statement, .. } = &order.body {
            testimony
                .recalls
                .extend(trust.verify::<Recall>(statement).ok());
        }
    }
    let bulletins = testimony
        .orders
        .iter()
        .filter_map(|order| match &order.body {
            OrderBody::Bulletin(bulletin) => Some((order.seq, bulletin.clone())),
            _ => None,
        });
    if let Some((_, bulletin)) = bulletins.max_by_key(|(seq, _)| *seq) {
        fetch_named(house, witness, &trust, &bulletin, &mut testimony).await?;
    }
    Some(testimony)
}

/// Fetches the documents that a bulletin names and the ledger lacks.
async fn fetch_named(
    house: &House,
    witness: &Witness,
    trust: &Trust,
    bulletin: &Bulletin,
    testimony: &mut Testimony,
) -> Option<()> {
    let heads = bulletin.rollouts.clone();
    let look = move |i: &Insight<'_>| {
        let lacks = |head: RolloutHead| {
            let (plan, release) = i.conductor.lacks(&head);
            (plan.then_some(head.plan), release.then_some(head.release))
        };
        let list = i.certificates.list().map(|list| list.digest);
        let topology = i.conductor.topology().map(|t| t.to_envelope().digest());
        let lacking: Vec<_> = heads.into_iter().map(lacks).collect();
        (lacking, topology, list)
    };
    let (lacking, topology, list) = house.desk.view(look).await.ok()?;
    for (plan, release) in lacking {
        if let Some(digest) = plan {
            testimony
                .plans
                .extend(witness.statement(trust, digest).await);
        }
        if let Some(digest) = release {
            testimony
                .releases
                .extend(witness.statement(trust, digest).await);
        }
    }
    if let Some(digest) = bulletin.topology.filter(|d| Some(*d) != topology) {
        testimony.topology = witness.statement(trust, digest).await;
    }
    if let Some(digest) = bulletin.revocations.filter(|d| Some(*d) != list)
        && let Some(der) = witness.document(digest).await
    {
        let read = move |i: &Insight<'_>| i.certificates.news_of(&der);
        match house.desk.view(read).await.ok()? {
            Ok(Some(news)) => {
                testimony.revoked = news.nodes;
                testimony.barred = Some((news.serials, news.number));
            }
            Ok(None) => {}
            Err(e) => house.log.note(house.clock.now().wall, "revocations", &e),
        }
    }
    Some(())
}
