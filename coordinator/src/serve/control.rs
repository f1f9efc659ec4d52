//! The coordinator on the control plane: delegates report here and take their orders.
//!
//! Everything that a peer says is bounded and verified before it comes to the desk. Requests are
//! answered from what the desk shows; nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use coordinator_core::contract::Event;
use node::net::control::{Control, ControlEvent};
use protocol::envelope::Envelope;
use protocol::limits;
use protocol::limits::{CONTROL_MAX_BYTES, MEMBERS_MAX, UPLINK_STATUSES_MAX};
use protocol::status::SignedStatus;
use protocol::versioned::Versioned as _;
use protocol::wire::{Contact, ControlReply, ControlRequest, Presence};
use protocol::{Hash, NodeId, Seq};
use tokio::sync::{Semaphore, mpsc, watch};

use super::House;
use super::desk::DeskError;

/// Bytes of orders in one reply.
const ORDERS_MAX_BYTES: usize = CONTROL_MAX_BYTES / 2;

/// Delegates by their last report.
#[derive(Default)]
struct Delegates {
    connected: BTreeSet<NodeId>,
    reported: BTreeMap<NodeId, Contact>,
}

/// Answers the control plane until told to stop; returns once the plane is closed.
pub async fn listen(
    house: Arc<House>,
    control: Control,
    mut events: mpsc::Receiver<ControlEvent>,
    mut pushes: mpsc::Receiver<Envelope>,
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
                    let mut delegates = lock(&delegates);
                    delegates.connected.remove(&node);
                    delegates.reported.remove(&node);
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
                Some(ControlEvent::Refused { address, reason, .. }) => {
                    house.log.note(house.clock.now().wall, "refused", &format!("{address}: {reason}"));
                }
                Some(ControlEvent::Gossip { .. } | ControlEvent::Discovered(_)) => {}
            },
            order = pushes.recv() => {
                let Some(order) = order else { return };
                let mut orders = vec![order];
                while let Ok(more) = pushes.try_recv() {
                    orders.push(more);
                }
                push(&control, &delegates, &sending, orders);
            }
        }
    }
    drop(control);
    while events.recv().await.is_some() {}
}

/// Sends new orders to the delegates that are connected. Whoever misses them asks with its uplink.
fn push(
    control: &Control,
    delegates: &Mutex<Delegates>,
    sending: &Arc<Semaphore>,
    orders: Vec<Envelope>,
) {
    let bytes = ControlRequest::Push { orders }.to_bytes();
    if bytes.len() > CONTROL_MAX_BYTES {
        return;
    }
    let targets: Vec<Contact> = {
        let delegates = lock(delegates);
        delegates
            .reported
            .iter()
            .filter(|(node, _)| delegates.connected.contains(node))
            .map(|(_, contact)| contact.clone())
            .collect()
    };
    for contact in targets {
        let Ok(permit) = sending.clone().try_acquire_owned() else {
            return;
        };
        let (control, bytes) = (control.clone(), bytes.clone());
        tokio::spawn(async move {
            let _ = control.request(contact, bytes).await;
            drop(permit);
        });
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
                house.roots.get(place).map(Envelope::to_json),
            ))
        }
        ControlRequest::Locate { me } | ControlRequest::Uplink { me, .. }
            if me.contact.node != from =>
        {
            Ok(ControlReply::Refused(format!(
                "node {} speaks for {}",
                from.short(),
                me.contact.node.short()
            )))
        }
        ControlRequest::Locate { me } => locate(house, me).await,
        ControlRequest::Uplink {
            me,
            members,
            statuses,
            after,
        } => {
            remember(delegates, from, &me.contact);
            uplink(house, me, members, statuses, after).await
        }
        ControlRequest::Push { .. } => Ok(ControlReply::Refused(
            "orders come from the coordinator".into(),
        )),
        ControlRequest::Greet { .. } => Ok(ControlReply::Refused(
            "the coordinator is in no site".into(),
        )),
    };
    answered.unwrap_or_else(|e| ControlReply::Refused(e.to_string()))
}

fn remember(delegates: &Mutex<Delegates>, node: NodeId, contact: &Contact) {
    let mut delegates = lock(delegates);
    if delegates.reported.len() < limits::DELEGATES_MAX || delegates.reported.contains_key(&node) {
        delegates.reported.insert(node, contact.clone());
    }
}

async fn uplink(
    house: &Arc<House>,
    me: Presence,
    mut members: Vec<NodeId>,
    statuses: Vec<SignedStatus>,
    after: Seq,
) -> Result<ControlReply, DeskError> {
    if me.contact.node == house.settings.origin {
        // It follows orders like any node, but is no part of the fleet that it serves.
        let orders = orders_after(house, after).await?;
        return Ok(ControlReply::Uplink {
            orders,
            receipt: None,
        });
    }
    members.truncate(MEMBERS_MAX);
    let brought = !statuses.is_empty();
    let mut verified = Vec::new();
    for status in statuses.iter().take(UPLINK_STATUSES_MAX) {
        match status.verify(house.settings.fleet) {
            Ok(status) => verified.push(status),
            Err(e) => {
                let line = format!(
                    "dropped a status that {} brought: {e}",
                    me.contact.node.short()
                );
                house.log.note(house.clock.now().wall, "status", &line);
            }
        }
    }
    let done = house.desk.uplink(me, members, verified).await?;
    let orders = orders_after(house, after).await?;
    let receipt = brought.then(|| house.signer.receipt(done.site, done.marks));
    Ok(ControlReply::Uplink { orders, receipt })
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

async fn orders_after(house: &Arc<House>, after: Seq) -> Result<Vec<Envelope>, DeskError> {
    let orders = house
        .desk
        .view(move |i| i.conductor.orders_after(after))
        .await?;
    Ok(house.signer.orders(&orders, ORDERS_MAX_BYTES))
}

/// A statement, root or revocation list by its digest.
async fn document(house: &Arc<House>, digest: Hash) -> Result<Option<Vec<u8>>, DeskError> {
    if let Some(root) = house.roots.iter().find(|root| root.digest() == digest) {
        return Ok(Some(root.to_json()));
    }
    house
        .desk
        .view(move |i| {
            let list = i.certificates.list().filter(|list| list.digest == digest);
            list.map(|list| list.der.to_vec())
                .or_else(|| i.conductor.document(&digest).map(Envelope::to_json))
        })
        .await
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
