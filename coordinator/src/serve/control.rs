//! The coordinator on the control plane: delegates report here and take their orders.
//!
//! Everything that a peer says is bounded and verified before it comes to the desk. Requests are
//! answered from what the desk shows; nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use coordinator_core::contract::{Event, Ticket, Uplink};
use node::net::control::peers::ip_of;
use node::net::control::{Control, ControlEvent};
use protocol::envelope::Envelope;
use protocol::feed::{Batch, Roster, Seal, SignedStages};
use protocol::inventory::SignedInventory;
use protocol::limits;
use protocol::limits::{CONTROL_MAX_BYTES, UPLINK_STATUSES_MAX};
use protocol::orders::Mark;
use protocol::status::StatusError;
use protocol::versioned::Versioned as _;
use protocol::wire::{Contact, ControlReply, ControlRequest, Presence};
use protocol::witness::SignedWord;
use protocol::{Hash, NodeId, Seq};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::House;
use super::desk::{DeskError, Push};
use super::witnesses;

/// Bytes of orders in one reply.
const ORDERS_MAX_BYTES: usize = CONTROL_MAX_BYTES / 2;

/// Delegates by their last report.
#[derive(Default)]
struct Delegates {
    connected: BTreeSet<NodeId>,
    reported: BTreeMap<NodeId, Delegate>,
}

struct Delegate {
    contact: Contact,
    /// Whether it carries its site's feed.
    carries: bool,
    /// Orders that wait to be pushed.
    waiting: Vec<Arc<Envelope>>,
    /// Whether somebody is at it.
    busy: bool,
}

/// Answers the control plane until told to stop; returns once the plane is closed.
pub async fn listen(
    house: Arc<House>,
    control: Control,
    mut events: mpsc::Receiver<ControlEvent>,
    mut pushes: mpsc::Receiver<Push>,
    mut stop: watch::Receiver<bool>,
) {
    let delegates = Arc::new(Mutex::new(Delegates::default()));
    let requests = Arc::new(Semaphore::new(limits::UPLINKS_MAX));
    let sending = Arc::new(Semaphore::new(limits::PUSHES_MAX));
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            event = events.recv() => match event {
                None => return,
                Some(ControlEvent::Connected(node)) => {
                    lock(&delegates).connected.insert(node);
                }
                Some(ControlEvent::Disconnected(node)) => {
                    lock(&delegates).connected.remove(&node);
                }
                Some(ControlEvent::Request { from, bytes, reply }) => {
                    let Ok(permit) = requests.clone().try_acquire_owned() else { continue };
                    let (house, delegates) = (house.clone(), delegates.clone());
                    tokio::spawn(async move {
                        let answer = answer(&house, &delegates, from, &bytes).await;
                        let _ = reply.send(answer.to_bytes());
                        drop(permit);
                    });
                }
                Some(ControlEvent::Refused { peer, address, reason, knock, .. }) => {
                    if let (Some(_), Some(ip)) = (knock, ip_of(&address)) {
                        house.sightings.note(peer, ip, &reason, house.clock.now().wall);
                    }
                    house.log.note(house.clock.now().wall, "refused", &format!("{address}: {reason}"));
                }
                Some(ControlEvent::Gossip { .. } | ControlEvent::Discovered(_)) => {}
            },
            order = pushes.recv() => {
                let Some(order) = order else { return };
                push(&control, &delegates, &sending, &order);
            }
        }
    }
    lock(&delegates).connected.clear();
    drop(control);
    while events.recv().await.is_some() {}
}

/// Sends a new order to the delegates that are connected, one after the other to each.
fn push(
    control: &Control,
    delegates: &Arc<Mutex<Delegates>>,
    sending: &Arc<Semaphore>,
    push: &Push,
) {
    let mut held = lock(delegates);
    let Delegates {
        connected,
        reported,
    } = &mut *held;
    for (node, delegate) in reported {
        if !connected.contains(node) || !(push.to_all || delegate.carries) {
            continue;
        }
        if delegate.waiting.len() >= limits::PUSHES_WAITING_MAX {
            delegate.waiting.remove(0);
        }
        delegate.waiting.push(push.order.clone());
        if !std::mem::replace(&mut delegate.busy, true) {
            let (control, delegates) = (control.clone(), delegates.clone());
            tokio::spawn(send(control, delegates, sending.clone(), *node));
        }
    }
}

/// Pushes what waits for a delegate until nothing does. Whoever misses a push asks with its uplink.
async fn send(
    control: Control,
    delegates: Arc<Mutex<Delegates>>,
    sending: Arc<Semaphore>,
    node: NodeId,
) {
    let mut tries = 0;
    loop {
        let (contact, orders) = {
            let mut held = lock(&delegates);
            let connected = held.connected.contains(&node);
            let Some(delegate) = held.reported.get_mut(&node) else {
                return;
            };
            if !connected || tries >= limits::PUSH_TRIES {
                delegate.waiting.clear();
            }
            if delegate.waiting.is_empty() {
                delegate.busy = false;
                return;
            }
            let orders = std::mem::take(&mut delegate.waiting);
            (delegate.contact.clone(), orders)
        };
        let bytes = ControlRequest::Push {
            orders: orders.iter().map(|order| (**order).clone()).collect(),
        }
        .to_bytes();
        if bytes.len() > CONTROL_MAX_BYTES {
            continue;
        }
        let permit = sending.acquire().await;
        let request = control.request(contact, bytes);
        let sent = timeout(limits::PUSH_PATIENCE.as_duration(), request).await;
        drop(permit);
        if sent.is_ok_and(|sent| sent.is_ok()) {
            tries = 0;
            continue;
        }
        tries += 1;
        if let Some(delegate) = lock(&delegates).reported.get_mut(&node) {
            delegate.waiting.splice(0..0, orders);
        }
        tokio::time::sleep(limits::PUSH_AGAIN.as_duration()).await;
    }
}

async fn answer(
    house: &Arc<House>,
    delegates: &Mutex<Delegates>,
    from: NodeId,
    bytes: &[u8],
) -> ControlReply {
    let request = match ControlRequest::from_bytes(bytes) {
        Ok(request) => request,
        Err(e) => return ControlReply::Refused(e.to_string()),
    };
    if matches!(
        request,
        ControlRequest::Uplink { .. } | ControlRequest::Inventory(_) | ControlRequest::Guide { .. }
    ) {
        witnesses::readmit(house, from).await;
    }
    let answered = match request {
        ControlRequest::PullOrders { after } => {
            orders_after(house, after).await.map(ControlReply::Orders)
        }
        ControlRequest::PullDocument { digest } => {
            document(house, digest).await.map(ControlReply::Document)
        }
        ControlRequest::PullRoot { version } => {
            // Version 1 stands at place 0.
            let place = usize::try_from(version.wrapping_sub(1)).unwrap_or(usize::MAX);
            Ok(ControlReply::Document(
                house
                    .roots
                    .now()
                    .envelopes
                    .get(place)
                    .map(Envelope::to_json),
            ))
        }
        ControlRequest::Locate { me }
        | ControlRequest::Guide { me, .. }
        | ControlRequest::Uplink { me: Some(me), .. }
            if me.contact.node != from =>
        {
            Ok(ControlReply::Refused(format!(
                "node {} speaks for {}",
                from.short(),
                me.contact.node.short()
            )))
        }
        ControlRequest::Locate { me } => locate(house, me).await,
        ControlRequest::Inventory(inventory) => take_inventory(house, from, &inventory).await,
        ControlRequest::Guide { me, addresses } => guide(house, me, addresses).await,
        ControlRequest::Uplink {
            me,
            roster,
            statuses,
            stages,
            after,
        } => {
            let known = remember(delegates, from, me.as_ref(), roster.is_some());
            let contact = lock(delegates)
                .reported
                .get(&from)
                .map(|d| d.contact.clone());
            let brought = Brought {
                from,
                contact,
                me,
                roster,
                stages,
            };
            uplink(house, known, brought, statuses, after).await
        }
        ControlRequest::Strangers(seen) => {
            house.sightings.told(from, &seen, house.clock.now().wall);
            Ok(ControlReply::Done)
        }
        ControlRequest::Witness(words) => take_words(house, from, &words).await,
        ControlRequest::Report { .. } => Ok(ControlReply::Refused(
            "nodes report to the delegates of their site".into(),
        )),
        ControlRequest::Push { .. } => Ok(ControlReply::Refused(
            "orders come from the coordinator".into(),
        )),
        ControlRequest::Greet { .. } => Ok(ControlReply::Refused(
            "the coordinator is in no site".into(),
        )),
    };
    answered.unwrap_or_else(|e| ControlReply::Refused(e.to_string()))
}

/// Keeps where a delegate is reached; false if that is not known.
fn remember(
    delegates: &Mutex<Delegates>,
    node: NodeId,
    me: Option<&Presence>,
    carries: bool,
) -> bool {
    let mut delegates = lock(delegates);
    let room = delegates.reported.len() < limits::DELEGATES_MAX;
    match (delegates.reported.get_mut(&node), me) {
        (Some(delegate), me) => {
            delegate.carries = carries;
            if let Some(me) = me {
                delegate.contact.clone_from(&me.contact);
            }
            true
        }
        (None, Some(me)) if room => {
            let delegate = Delegate {
                contact: me.contact.clone(),
                carries,
                waiting: Vec::new(),
                busy: false,
            };
            delegates.reported.insert(node, delegate);
            true
        }
        // Without room it is not pushed to, and has its orders by its uplinks.
        (None, me) => me.is_some(),
    }
}

/// What an uplink brings beside statuses.
struct Brought {
    from: NodeId,
    /// Where it is reached, if that is known.
    contact: Option<Contact>,
    me: Option<Presence>,
    roster: Option<Roster>,
    stages: Option<SignedStages>,
}

async fn uplink(
    house: &Arc<House>,
    known: bool,
    brought: Brought,
    batch: Batch,
    after: Seq,
) -> Result<ControlReply, DeskError> {
    let contact = match brought.from == house.settings.origin {
        true => Some(house.settings.origin_contact()),
        false => brought.contact,
    };
    if brought.from == house.settings.origin {
        witnesses::ask(house, contact, after).await?;
        // It follows orders like any node, but is no part of the fleet that it serves.
        let orders = orders_after(house, after).await?;
        return Ok(ControlReply::Uplink {
            orders,
            receipt: None,
            known,
        });
    }
    let (fleet, from) = (house.settings.fleet, brought.from);
    let refused = |what: &str, e: StatusError| {
        let line = format!("dropped {what} that {} brought: {e}", from.short());
        house.log.note(house.clock.now().wall, "status", &line);
    };
    let mut marks = Vec::with_capacity(batch.len().min(UPLINK_STATUSES_MAX));
    let mut statuses = Vec::new();
    for signed in batch.unpack(fleet, UPLINK_STATUSES_MAX) {
        let verified = signed.map(|signed| signed.verify(fleet));
        let verified = verified.transpose().map_err(|e| refused("a status", e));
        let status = verified.ok().flatten();
        marks.push(status.as_ref().map(|status| Mark::of(status)));
        statuses.extend(status);
    }
    let stages = brought.stages.map(|stages| stages.verify(fleet, from));
    let stages = stages.transpose().map_err(|e| refused("counts", e));
    let done = house
        .desk
        .uplink(Uplink {
            ticket: Ticket(0),
            from,
            me: brought.me,
            roster: brought.roster,
            statuses,
            stages: stages.ok().flatten(),
        })
        .await?;
    witnesses::ask(house, contact, after).await?;
    let orders = orders_after(house, after).await?;
    if marks
        .iter()
        .flatten()
        .any(|mark| is_behind(mark, &done.marks))
    {
        // A seal can only name the numbers that came. Whoever said more than it remembers has to see the
        // higher one; the orders come with its next call.
        return Ok(ControlReply::Receipt(house.signer.receipt(done.marks)));
    }
    let receipt = (!batch.is_empty()).then(|| seal(house, batch.len(), marks, &done.marks));
    Ok(ControlReply::Uplink {
        orders,
        receipt,
        known: known && done.known,
    })
}

/// Whether a register is held at a higher number than the one that was brought.
fn is_behind(brought: &Mark, durable: &[Mark]) -> bool {
    let same = |d: &&Mark| d.node == brought.node && d.rollout == brought.rollout;
    durable
        .iter()
        .find(same)
        .is_some_and(|d| d.seq > brought.seq)
}

/// Signs for what is durable of a batch: of these registers, those that are durable at their number or
/// a higher one.
fn seal(house: &House, brought: usize, marks: Vec<Option<Mark>>, durable: &[Mark]) -> Seal {
    let (mut kept, mut except) = (Vec::new(), Vec::new());
    let mut marks = marks.into_iter();
    for place in 0..brought.min(usize::from(u16::MAX)) {
        let is_durable = |mark: &Mark| {
            let same = |d: &Mark| d.node == mark.node && d.rollout == mark.rollout;
            durable.iter().any(|d| same(d) && d.seq >= mark.seq)
        };
        match marks.next().flatten().filter(is_durable) {
            Some(mark) => kept.push(mark),
            None => except.extend(u16::try_from(place).ok()),
        }
    }
    Seal::of(&house.signer.receipt(kept), except)
}

async fn locate(house: &Arc<House>, me: Presence) -> Result<ControlReply, DeskError> {
    let (node, site) = (me.contact.node, me.site.clone());
    house.desk.tell(Event::Located(me)).await?;
    let Some(site) = site else {
        return Ok(ControlReply::Members(Vec::new()));
    };
    let mut members = house
        .desk
        .view(move |i| i.conductor.members_of(&site))
        .await?;
    members.retain(|member| member.contact.node != node);
    members.truncate(limits::MEMBERS_TOLD_MAX);
    let members = members.into_iter().map(Arc::new).collect();
    Ok(ControlReply::Members(members))
}

/// Takes in what a node says of itself, once it is durable.
async fn take_inventory(
    house: &Arc<House>,
    from: NodeId,
    inventory: &SignedInventory,
) -> Result<ControlReply, DeskError> {
    let inventory = match inventory.verify(house.settings.fleet) {
        Ok(inventory) if inventory.node == from => inventory,
        Ok(_) => {
            let why = "a node tells its own inventory only".to_owned();
            return Ok(ControlReply::Refused(why));
        }
        Err(e) => return Ok(ControlReply::Refused(e.to_string())),
    };
    house.desk.tell(Event::Inventory(inventory)).await?;
    Ok(ControlReply::Done)
}

/// Takes in what members of a site say of one another; who brings it does not matter.
async fn take_words(
    house: &Arc<House>,
    from: NodeId,
    words: &[SignedWord],
) -> Result<ControlReply, DeskError> {
    for word in words.iter().take(limits::WITNESS_WORDS_MAX) {
        match word.verify(house.settings.fleet) {
            Ok(word) => house.desk.tell(Event::Witnessed(word)).await?,
            Err(e) => {
                let line = format!("dropped a word that {} brought: {e}", from.short());
                house.log.note(house.clock.now().wall, "status", &line);
            }
        }
    }
    Ok(ControlReply::Done)
}

async fn guide(
    house: &Arc<House>,
    me: Presence,
    addresses: Vec<IpAddr>,
) -> Result<ControlReply, DeskError> {
    let node = me.contact.node;
    let event = Event::Newcomer {
        me,
        addresses: addresses.clone(),
    };
    house.desk.tell(event).await?;
    let guides = house
        .desk
        .view(move |i| i.conductor.guides(&node, &addresses))
        .await?;
    let guides = guides.into_iter().map(Arc::new).collect();
    Ok(ControlReply::Members(guides))
}

async fn orders_after(house: &Arc<House>, after: Seq) -> Result<Vec<Envelope>, DeskError> {
    let orders = house
        .desk
        .view(move |i| i.conductor.orders_after(after))
        .await?;
    Ok(house.signer.orders(&orders, ORDERS_MAX_BYTES))
}

/// A statement, root or revocation list by its digest.
async fn document(house: &Arc<House>, digest: Hash) -> Result<Option<Vec<u8>>, DeskError> {
    let chain = house.roots.now();
    if let Some(root) = chain.envelopes.iter().find(|root| root.digest() == digest) {
        return Ok(Some(root.to_json()));
    }
    house
        .desk
        .view(move |i| {
            let list = i.certificates.list().filter(|list| list.digest == digest);
            list.map(|list| list.bytes.to_vec())
                .or_else(|| i.conductor.document(&digest).map(Envelope::to_json))
        })
        .await
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
