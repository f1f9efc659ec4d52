//! Decoders that meet foreign bytes, each as one call that a fuzzer makes and a test repeats.
//!
//! A call says whether the bytes were taken. It panics when the decoder is at fault: it fell over, or what
//! it read means something else once it is written and read again. `tests/fuzz` has a target and a corpus
//! of the name of each.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::LazyLock;

use coordinator::backup::Backup;
use node::net::identity::Admission;
use node_core::guard::GuardRecord;
use node_core::handover::{Ask, Said};
use protocol::audit::AuditEntry;
use protocol::carrier::FrameTable;
use protocol::enroll::{
    EnrollReply, EnrollRequest, RejoinRequest, RenewReply, RenewRequest, Token,
};
use protocol::envelope::Envelope;
use protocol::feed::Stages;
use protocol::filter::Filter;
use protocol::foreign::{ForeignReply, ForeignReport, ForeignVerdict};
use protocol::hours::Hours;
use protocol::ids::FleetId;
use protocol::index::Index;
use protocol::inventory::NodeInventory;
use protocol::lift::Lift;
use protocol::manifest::ReleaseManifest;
use protocol::merkle::{AuditProof, LedgerHead};
use protocol::orders::{Order, Receipt};
use protocol::plan::{Proposal, RolloutPlan};
use protocol::relations::Requirement;
use protocol::revocation::{self, MassRevocation};
use protocol::status::NodeStatus;
use protocol::topology::Topology;
use protocol::trust::{Root, Trust};
use protocol::versioned::Versioned;
use protocol::wire::{ControlReply, ControlRequest, DataRequest, Notice, Referral, SiteMessage};
use protocol::witness::WitnessWord;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A decoder by its target's name.
pub type Decoder = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const DECODERS: [Decoder; 11] = [
    ("certificate", certificate),
    ("control", control),
    ("envelope", envelope),
    ("handover", handover),
    ("index", index),
    ("request", request),
    ("revocations", revocations),
    ("root", root),
    ("site", site),
    ("statement", statement),
    ("text", text),
];

/// The issuing certificate that the corpus' certificates and lists are judged by.
static AUTHORITY: LazyLock<Admission> = LazyLock::new(|| {
    let der = include_bytes!("../fuzz/corpus/certificate/authority.der");
    Admission::new(vec![CertificateDer::from(der.as_slice())]).expect("committed and sound")
});

/// A certificate as a node shows it, and as a root lists it.
pub fn certificate(bytes: &[u8]) -> bool {
    let der = CertificateDer::from(bytes);
    let leaf = AUTHORITY.admit(std::slice::from_ref(&der)).is_ok();
    let issuer = Admission::new(vec![der.clone().into_owned()]);
    issuer.is_ok_and(|own| own.admit(&[der]).is_err()) || leaf
}

/// What comes over a control connection.
pub fn control(bytes: &[u8]) -> bool {
    versioned::<ControlRequest>(bytes) || versioned::<ControlReply>(bytes)
}

/// The envelope around everything that is signed.
pub fn envelope(bytes: &[u8]) -> bool {
    let Ok(envelope) = Envelope::from_json(bytes) else {
        return false;
    };
    let again = Envelope::from_json(&envelope.to_json());
    assert_eq!(again.as_ref(), Ok(&envelope), "it means one thing");
    true
}

/// What a node without privileges and its installer say to each other, and what the latter remembers.
pub fn handover(bytes: &[u8]) -> bool {
    versioned::<Ask>(bytes) || versioned::<Said>(bytes) || versioned::<GuardRecord>(bytes)
}

/// What tells how a release's files lie in its blobs, and what is kept beside them.
pub fn index(bytes: &[u8]) -> bool {
    if let Ok(Ok(index)) = Index::from_bytes(bytes).map(Index::check) {
        for chunk in 0..index.chunks.len() as u32 {
            assert!(index.chunk_range(chunk).end <= index.pack.length);
        }
    }
    if let Ok(table) = FrameTable::from_bytes(bytes)
        && table.check(bytes.len() as u64, table.plain).is_ok()
    {
        assert!((0..table.coded.len() as u32).all(|f| !table.plain_range(f).is_empty()));
    }
    versioned::<Index>(bytes) || versioned::<FrameTable>(bytes) || versioned::<AuditEntry>(bytes)
}

/// What comes over a connection for content.
pub fn request(bytes: &[u8]) -> bool {
    versioned::<DataRequest>(bytes) || versioned::<Referral>(bytes) || versioned::<Notice>(bytes)
}

/// A list of certificates that are not to be admitted any more.
pub fn revocations(bytes: &[u8]) -> bool {
    // A restored coordinator reads the list that a node kept, before it believes any of it.
    let (list, _) = revocation::parts(bytes);
    let listed = AUTHORITY.listed(&list).is_ok();
    let taken = AUTHORITY.set_revocations(&list).is_ok();
    assert!(listed || !taken, "what is taken can be listed");
    taken
}

/// A root, which is read before anything is believed.
pub fn root(bytes: &[u8]) -> bool {
    let Ok(envelope) = Envelope::from_json(bytes) else {
        return json::<Root>(bytes);
    };
    json::<Root>(&envelope.payload);
    let fleet = FleetId(envelope.digest().0);
    Trust::pin(envelope, fleet).is_ok_and(|trust| trust.fleet() == fleet)
}

/// What a site's nodes tell one another, and what of it is handed on.
pub fn site(bytes: &[u8]) -> bool {
    versioned::<SiteMessage>(bytes)
        || versioned::<NodeStatus>(bytes)
        || versioned::<NodeInventory>(bytes)
        || versioned::<Stages>(bytes)
        || versioned::<AuditProof>(bytes)
        || versioned::<WitnessWord>(bytes)
}

/// What is signed, as it lies in its envelope, what enrols and renews, and the list of a backup.
pub fn statement(bytes: &[u8]) -> bool {
    let payload = Envelope::from_json(bytes).map(|envelope| envelope.payload);
    let bytes = payload.as_deref().unwrap_or(bytes);
    [
        json::<ReleaseManifest>,
        json::<RolloutPlan>,
        json::<Proposal>,
        json::<Order>,
        json::<Receipt>,
        json::<Topology>,
        json::<Lift>,
        json::<MassRevocation>,
        json::<LedgerHead>,
        json::<EnrollRequest>,
        json::<EnrollReply>,
        json::<RenewRequest>,
        json::<RenewReply>,
        json::<RejoinRequest>,
        json::<ForeignReport>,
        json::<ForeignReply>,
        json::<ForeignVerdict>,
        json::<Backup>,
    ]
    .iter()
    .any(|read| read(bytes))
}

/// What people write: filters, hours, tokens and requirements.
pub fn text(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    // A product's name alone is a filter too: each of them reads it.
    let requirement = written::<Requirement>(text);
    written::<Filter>(text) || written::<Hours>(text) || written::<Token>(text) || requirement
}

fn versioned<T: Versioned>(bytes: &[u8]) -> bool {
    let Ok(value) = T::from_bytes(bytes) else {
        return false;
    };
    let once = value.to_bytes();
    let twice = T::from_bytes(&once).expect("what was written is read");
    assert!(twice.to_bytes() == once, "it means one thing");
    true
}

fn json<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else {
        return false;
    };
    let once = serde_json::to_vec(&value).expect("what was read is written");
    let twice: T = serde_json::from_slice(&once).expect("what was written is read");
    let again = serde_json::to_vec(&twice).expect("as above");
    assert!(again == once, "it means one thing");
    true
}

fn written<T: FromStr + Display>(text: &str) -> bool {
    let Ok(value) = text.parse::<T>() else {
        return false;
    };
    let once = value.to_string();
    let twice = once.parse::<T>();
    assert!(
        twice.is_ok_and(|value| value.to_string() == once),
        "it means one thing"
    );
    true
}
