//! A coordinator out of a table: it signs with test keys and answers over a real control plane.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use node::net::control::{Control, ControlConfig, ControlEvent};
use node::net::identity::{Admission, Identity};
use protocol::envelope::Envelope;
use protocol::feed::Seal;
use protocol::fixtures;
use protocol::orders::{Mark, OrderBody};
use protocol::status::NodeStatus;
use protocol::versioned::Versioned;
use protocol::wire::{Contact, ControlReply, ControlRequest, Presence};
use protocol::{Hash, NodeId, RolloutId, Seq};
use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};

use super::TestFleet;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The newest status of each node for each rollout.
pub type Registers = BTreeMap<(NodeId, RolloutId), NodeStatus>;

/// A coordinator under the test's thumb.
#[derive(Clone)]
pub struct FakeCoordinator {
    fleet: Arc<TestFleet>,
    contact: Contact,
    table: Arc<Mutex<Table>>,
    registers: watch::Receiver<Registers>,
    pushes: mpsc::UnboundedSender<Envelope>,
}

struct Table {
    roots: Vec<Envelope>,
    documents: BTreeMap<Hash, Vec<u8>>,
    orders: BTreeMap<Seq, Envelope>,
    present: BTreeMap<NodeId, Presence>,
    registers: watch::Sender<Registers>,
}

impl FakeCoordinator {
    /// Starts it on 127.0.0.1.
    pub async fn start(fleet: Arc<TestFleet>) -> FakeCoordinator {
        let key = fixtures::key("coordinator endpoint", 1);
        let node = NodeId(key.verifying_key().to_bytes());
        let der = |hex: &String| {
            CertificateDer::from(data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap())
        };
        let chain = fleet.reply(node).certificates.iter().map(der).collect();
        let admission = Arc::new(Admission::new(vec![fleet.ca.certificate().clone()]).unwrap());
        let identity = Arc::new(Identity::new(key, chain, admission));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = ControlConfig::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let (control, events) = Control::start(config, identity).await.unwrap();
        let addresses = control
            .listen_addrs()
            .iter()
            .map(ToString::to_string)
            .collect();
        let (registers, watched) = watch::channel(Registers::new());
        let (pushes, pushed) = mpsc::unbounded_channel();
        let table = Table {
            roots: fleet.roots.clone(),
            documents: BTreeMap::new(),
            orders: BTreeMap::new(),
            present: BTreeMap::new(),
            registers,
        };
        let coordinator = FakeCoordinator {
            contact: Contact {
                node,
                control: addresses,
                data: None,
            },
            table: Arc::new(Mutex::new(table)),
            registers: watched,
            pushes,
            fleet,
        };
        tokio::spawn(coordinator.clone().answer(control, events, pushed));
        coordinator
    }

    /// Where delegates report.
    pub fn contact(&self) -> Contact {
        self.contact.clone()
    }

    /// Keeps a statement to hand out.
    pub fn publish(&self, envelope: &Envelope) {
        self.table
            .lock()
            .unwrap()
            .documents
            .insert(envelope.digest(), envelope.to_json());
    }

    /// Keeps a revocation list to hand out.
    pub fn publish_revocations(&self, der: &[u8]) {
        let mut table = self.table.lock().unwrap();
        table.documents.insert(Hash::of(der), der.to_vec());
    }

    /// Hands out one more root.
    pub fn publish_root(&self, root: Envelope) {
        self.table.lock().unwrap().roots.push(root);
    }

    /// Signs order number `n` and pushes it to whoever was introduced.
    pub fn order(&self, n: u64, body: OrderBody) {
        let order = self.fleet.fleet.order(n, body);
        self.table
            .lock()
            .unwrap()
            .orders
            .insert(order.seq, order.envelope().clone());
        self.pushes.send(order.envelope().clone()).unwrap();
    }

    /// Waits until the registers are as wanted; panics with the last of them when they never are.
    pub async fn wait_for(&self, what: &str, wanted: impl Fn(&Registers) -> bool) -> Registers {
        let mut registers = self.registers.clone();
        match tokio::time::timeout(PATIENCE, registers.wait_for(|r| wanted(r))).await {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!(
                "{what} never came; last heard: {:#?}",
                self.registers.borrow().values()
            ),
        }
    }

    async fn answer(
        self,
        control: Control,
        mut events: mpsc::Receiver<ControlEvent>,
        mut pushed: mpsc::UnboundedReceiver<Envelope>,
    ) {
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    None => break,
                    Some(ControlEvent::Request { from, bytes, reply }) => {
                        let request = ControlRequest::from_bytes(&bytes).unwrap();
                        let _ = reply.send(self.reply(from, request).to_bytes());
                    }
                    Some(_) => {}
                },
                Some(order) = pushed.recv() => self.push(&control, &order),
            }
        }
        drop(control);
    }

    fn push(&self, control: &Control, order: &Envelope) {
        let push = ControlRequest::Push {
            orders: vec![order.clone()],
        };
        for presence in self.table.lock().unwrap().present.values() {
            let (control, to) = (control.clone(), presence.contact.clone());
            let bytes = push.to_bytes();
            tokio::spawn(async move { control.request(to, bytes).await });
        }
    }

    fn reply(&self, from: NodeId, request: ControlRequest) -> ControlReply {
        let mut table = self.table.lock().unwrap();
        let after = |table: &Table, after: Seq| {
            table
                .orders
                .range(after.next()..)
                .map(|(_, o)| o.clone())
                .collect()
        };
        match request {
            ControlRequest::PullOrders { after: head } => ControlReply::Orders(after(&table, head)),
            ControlRequest::PullDocument { digest } => {
                ControlReply::Document(table.documents.get(&digest).cloned())
            }
            ControlRequest::PullRoot { version } => {
                let root = table.roots.get(version as usize - 1);
                ControlReply::Document(root.map(Envelope::to_json))
            }
            ControlRequest::Guide { .. } => ControlReply::Members(Vec::new()),
            ControlRequest::Locate { me } => {
                assert_eq!(me.contact.node, from);
                let site = me.site.clone();
                table.present.insert(from, me);
                let members = table
                    .present
                    .values()
                    .filter(|p| p.site == site && p.contact.node != from);
                ControlReply::Members(members.cloned().map(Arc::new).collect())
            }
            ControlRequest::Uplink {
                me,
                statuses,
                after: head,
                ..
            } => {
                let known = me.is_some() || table.present.contains_key(&from);
                table.present.extend(me.map(|me| (from, me)));
                let mut marks = Vec::new();
                let fleet = self.fleet.fleet.id();
                for signed in statuses.unpack(fleet, 512).iter().flatten() {
                    let status = signed.verify(self.fleet.fleet.id()).unwrap();
                    marks.push(Mark {
                        node: status.node,
                        rollout: status.rollout.clone(),
                        seq: status.seq,
                    });
                    table.registers.send_modify(|registers| {
                        let register = (status.node, status.rollout.clone());
                        let newer = registers
                            .get(&register)
                            .is_none_or(|old| old.seq < status.seq);
                        if newer {
                            registers.insert(register, (*status).clone());
                        }
                    });
                }
                let receipt = (!marks.is_empty())
                    .then(|| self.fleet.fleet.receipt(marks))
                    .map(|receipt| Seal::of(receipt.envelope(), Vec::new()));
                ControlReply::Uplink {
                    orders: after(&table, head),
                    receipt,
                    known,
                }
            }
            ControlRequest::Inventory(_)
            | ControlRequest::Strangers(_)
            | ControlRequest::Witness(_) => ControlReply::Done,
            ControlRequest::Push { .. }
            | ControlRequest::Greet { .. }
            | ControlRequest::Report { .. } => {
                ControlReply::Refused("I push, others are pushed to".into())
            }
        }
    }
}
