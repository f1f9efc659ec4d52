//! The online key: it signs orders and receipts, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ed25519_dalek::SigningKey;
use protocol::envelope::Envelope;
use protocol::limits::ORDERS_MAX;
use protocol::orders::{Mark, Order, Receipt};
use protocol::trust::Statement as _;
use protocol::{FleetId, Seq};

/// Signs, and remembers the envelopes of orders that are asked for again and again. ed25519 gives
/// the same bytes each time, so forgetting one costs only time.
pub struct Signer {
    fleet: FleetId,
    key: Mutex<SigningKey>,
    orders: Mutex<BTreeMap<Seq, Envelope>>,
}

impl Signer {
    /// A signer with the coordinator role's key.
    pub fn new(fleet: FleetId, key: SigningKey) -> Signer {
        Signer {
            fleet,
            key: Mutex::new(key),
            orders: Mutex::default(),
        }
    }

    /// From now on signs with this key; what was signed with another is signed anew when it is asked for.
    pub fn set_key(&self, key: SigningKey) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key;
        orders.clear();
    }

    /// Adds the online key's signature.
    pub fn sign(&self, envelope: &mut Envelope) {
        envelope.sign(&self.key.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Signed orders, rising, as many as fit into `max_bytes` on the wire.
    pub fn orders(&self, orders: &[Order], max_bytes: usize) -> Vec<Envelope> {
        let mut held = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut signed, mut bytes) = (Vec::new(), 0);
        for order in orders {
            let envelope = held.entry(order.seq).or_insert_with(|| {
                let mut envelope = order.to_envelope();
                self.sign(&mut envelope);
                envelope
            });
            bytes += wire_bytes(envelope);
            if bytes > max_bytes {
                break;
            }
            signed.push(envelope.clone());
        }
        while held.len() > ORDERS_MAX {
            held.pop_first();
        }
        signed
    }

    /// A receipt for statuses that are durable.
    pub fn receipt(&self, marks: Vec<Mark>) -> Envelope {
        let mut envelope = Receipt {
            spec_version: 1,
            fleet: self.fleet,
            marks,
        }
        .to_envelope();
        self.sign(&mut envelope);
        envelope
    }
}

/// More than an envelope takes in a control message.
fn wire_bytes(envelope: &Envelope) -> usize {
    envelope.payload.len() + envelope.payload_type.len() + envelope.signatures.len() * 128 + 32
}
