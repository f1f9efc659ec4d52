//! Who may say what: root metadata, roles, thresholds, and the one way from foreign bytes to
//! [`Verified`].
//!
//! Roles follow TUF. The root names each role's keys and threshold and is itself signed by the
//! threshold of the old root and of the new one. What is not here: version counters of the other
//! statements and expiry. Those need memory and are kept by the cores.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::delegations::{self, Delegation};
use crate::envelope::{Envelope, EnvelopeError};
use crate::ids::{FleetId, Hash, PublicKey, SiteId};
use crate::limits::{ISSUING_CAS_MAX, ROLE_KEYS_MAX};
use crate::time::Time;

/// A role of the root metadata.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Signs root metadata; offline.
    Root,
    /// Signs releases; offline, m of n.
    Releases,
    /// Signs rollout plans and recalls; operators, m of n. A plan's proposer never counts.
    Plans,
    /// Signs the topology.
    Topology,
    /// Signs orders and receipts; online.
    Coordinator,
}

/// A role's keys and how many of them must sign.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoleKeys {
    /// The role.
    pub role: Role,
    /// Its keys, each once.
    pub keys: Vec<PublicKey>,
    /// Distinct keys that must sign.
    pub threshold: u32,
}

/// Root metadata.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Root {
    /// Format version, 1.
    pub spec_version: u32,
    /// A name for people.
    pub fleet_name: String,
    /// None in version 1, whose digest is the fleet's id; from version 2 on that id.
    pub fleet: Option<FleetId>,
    /// Rises by one with every root.
    pub version: u64,
    /// After this, new installs are refused.
    pub expires: Time,
    /// Keys and thresholds of every role.
    pub roles: Vec<RoleKeys>,
    /// DER of the certificates that may issue node certificates, hex. The last one is in use: nodes of the
    /// others move to it.
    pub issuing_cas: Vec<String>,
    /// Who else signs releases of some products.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delegations: Vec<Delegation>,
}

/// What every [`Statement`] of ours begins with: fields `spec_version` (1) and `fleet`.
macro_rules! header {
    ($payload_type:literal, $role:ident) => {
        const PAYLOAD_TYPE: &'static str = $payload_type;
        const ROLE: $crate::trust::Role = $crate::trust::Role::$role;
        const SPEC_VERSION: u32 = 1;

        fn spec_version(&self) -> u32 {
            self.spec_version
        }
        fn fleet(&self) -> $crate::ids::FleetId {
            self.fleet
        }
    };
}
pub(crate) use header;

/// Something that is signed under a role.
pub trait Statement: Serialize + DeserializeOwned {
    /// DSSE payload type.
    const PAYLOAD_TYPE: &'static str;
    /// The role whose threshold must sign.
    const ROLE: Role;
    /// The newest `spec_version` that is understood.
    const SPEC_VERSION: u32;

    /// The format version that the statement carries.
    fn spec_version(&self) -> u32;
    /// The fleet that it is for.
    fn fleet(&self) -> FleetId;
    /// Keys whose signature does not count, such as a plan's proposer.
    fn excluded(&self) -> Vec<PublicKey> {
        Vec::new()
    }
    /// Who must have signed with a key of the role whatever the threshold says. Somebody who is named
    /// but did not sign would lend a place among those that count to whoever named him.
    fn signs_too(&self) -> Option<PublicKey> {
        None
    }
    /// The product that it is about, if the keys of a delegation may sign it in the place of the role.
    fn delegable(&self) -> Option<&SiteId> {
        None
    }
    /// Rules inside the statement, checked after its signatures.
    ///
    /// # Errors
    /// A sentence on what is wrong.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// An unsigned envelope around this statement.
    fn to_envelope(&self) -> Envelope {
        Envelope::unsigned(
            Self::PAYLOAD_TYPE,
            serde_json::to_vec(self).expect("a statement is plain data"),
        )
    }
}

/// Why a statement is not believed. The names are those of typed events (`signature`, `threshold`, …).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TrustError {
    /// Not an envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// An envelope of another kind.
    #[error("wrong_target: payload type is {found:?}, expected {expected:?}")]
    PayloadType {
        /// As found.
        found: String,
        /// As asked for.
        expected: &'static str,
    },
    /// No signature of the role holds.
    #[error("signature: no valid signature of the {0:?} role")]
    Signature(Role),
    /// Too few distinct keys signed.
    #[error("threshold: {valid} of {needed} keys of the {role:?} role signed")]
    Threshold {
        /// The role.
        role: Role,
        /// Distinct keys that signed and count.
        valid: u32,
        /// Keys that must.
        needed: u32,
    },
    /// Signed by a delegation that reaches not so far, or a root whose delegations are no tree.
    #[error("delegation: {0}")]
    Delegation(String),
    /// The one who asks for it must sign it with a key of the role.
    #[error("signature: key {0} asks for it but did not sign it with a key of its role")]
    Proposer(PublicKey),
    /// The signed payload does not parse or breaks its own rules.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A format that this program does not know.
    #[error("spec_version {0} is not known to this program")]
    SpecVersion(u32),
    /// Signed for another fleet.
    #[error("scope: signed for fleet {0}, not for this one")]
    Fleet(FleetId),
    /// Not the root that was pinned.
    #[error("root digest is {found}, but {pinned} was pinned")]
    RootDigest {
        /// As found.
        found: FleetId,
        /// As given at enrolment.
        pinned: FleetId,
    },
    /// Root versions must follow one another.
    #[error("root_gap: root version {found} cannot follow {trusted}")]
    RootGap {
        /// The version offered.
        found: u64,
        /// The version trusted.
        trusted: u64,
    },
}

impl TrustError {
    /// The short name of the event that a node records.
    pub fn event(&self) -> &'static str {
        match self {
            TrustError::Envelope(EnvelopeError::TooLong(_)) => "too_long",
            TrustError::Envelope(_) | TrustError::Malformed(_) => "malformed",
            TrustError::PayloadType { .. } => "wrong_target",
            TrustError::Signature(_) | TrustError::Proposer(_) => "signature",
            TrustError::Threshold { .. } => "threshold",
            TrustError::SpecVersion(_) => "spec_version",
            TrustError::Fleet(_) => "scope",
            TrustError::Delegation(_) => "delegation",
            TrustError::RootDigest { .. } => "root_digest",
            TrustError::RootGap { .. } => "root_gap",
        }
    }
}

/// A statement whose signatures held, with the envelope to hand on. There is no other way to make
/// one than [`Trust::verify`] and its siblings in this crate. Clones share what they say: a topology
/// of thousands of sites is kept once, however many rooms hold it.
#[derive(PartialEq, Eq, Debug)]
pub struct Verified<T> {
    said: std::sync::Arc<Said<T>>,
}

#[derive(PartialEq, Eq, Debug)]
struct Said<T> {
    value: T,
    digest: Hash,
    envelope: Envelope,
}

impl<T> Clone for Verified<T> {
    fn clone(&self) -> Verified<T> {
        Verified {
            said: self.said.clone(),
        }
    }
}

impl<T> Verified<T> {
    pub(crate) fn new(value: T, envelope: Envelope) -> Verified<T> {
        let digest = envelope.digest();
        Verified {
            said: std::sync::Arc::new(Said {
                value,
                digest,
                envelope,
            }),
        }
    }
    /// The digest of the payload: the statement's name.
    pub fn digest(&self) -> Hash {
        self.said.digest
    }
    /// The envelope, to store or to hand on.
    pub fn envelope(&self) -> &Envelope {
        &self.said.envelope
    }
}

impl<T> core::ops::Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.said.value
    }
}

impl Root {
    /// DSSE payload type of root metadata.
    pub const PAYLOAD_TYPE: &'static str = "application/vnd.tidegate.root+json";

    /// The keys and threshold of a role.
    pub fn role(&self, role: Role) -> Option<&RoleKeys> {
        self.roles.iter().find(|r| r.role == role)
    }

    /// Whether `next` takes a key of the role away. What such a key may have signed counts no more, so
    /// whoever remembers numbers that the role gave forgets them: a thief who planted a number near the
    /// end of all numbers would else stop the honest for ever (TUF's recovery from fast-forward attacks).
    pub fn retires(&self, next: &Root, role: Role) -> bool {
        let kept = next.role(role).map_or(&[][..], |keys| &keys.keys);
        let own = self.role(role).map_or(&[][..], |keys| &keys.keys);
        own.iter().any(|key| !kept.contains(key))
            || role == Role::Releases && delegations::retired(&self.delegations, &next.delegations)
    }

    /// An unsigned envelope around this root.
    pub fn to_envelope(&self) -> Envelope {
        Envelope::unsigned(
            Self::PAYLOAD_TYPE,
            serde_json::to_vec(self).expect("a root is plain data"),
        )
    }

    fn parse(envelope: &Envelope) -> Result<Root, TrustError> {
        envelope.within_limits()?;
        if envelope.payload_type != Self::PAYLOAD_TYPE {
            return Err(TrustError::PayloadType {
                found: envelope.payload_type.clone(),
                expected: Self::PAYLOAD_TYPE,
            });
        }
        let root: Root = serde_json::from_slice(&envelope.payload)
            .map_err(|e| TrustError::Malformed(e.to_string()))?;
        if root.spec_version != 1 {
            return Err(TrustError::SpecVersion(root.spec_version));
        }
        for role in [
            Role::Root,
            Role::Releases,
            Role::Plans,
            Role::Topology,
            Role::Coordinator,
        ] {
            let mut found = root.roles.iter().filter(|r| r.role == role);
            let (Some(keys), None) = (found.next(), found.next()) else {
                return Err(TrustError::Malformed(format!(
                    "role {role:?} must stand exactly once"
                )));
            };
            let mut unique = keys.keys.clone();
            unique.sort_unstable();
            unique.dedup();
            let fine = unique.len() == keys.keys.len()
                && keys.keys.len() <= ROLE_KEYS_MAX
                && keys.threshold >= 1
                && keys.threshold as usize <= keys.keys.len();
            if !fine {
                return Err(TrustError::Malformed(format!(
                    "role {role:?} has no sound keys and threshold"
                )));
            }
        }
        if root.issuing_cas.len() > ISSUING_CAS_MAX {
            return Err(TrustError::Malformed(format!(
                "{} issuing CAs are over {ISSUING_CAS_MAX}",
                root.issuing_cas.len()
            )));
        }
        delegations::check(&root.delegations).map_err(TrustError::Delegation)?;
        Ok(root)
    }
}

/// The trusted root of one fleet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trust {
    fleet: FleetId,
    root: Verified<Root>,
}

impl Trust {
    /// Trusts version 1 of a fleet's root because its digest was given by other means.
    ///
    /// # Errors
    /// When the digest differs or the root is not signed by its own threshold.
    pub fn pin(envelope: Envelope, pinned: FleetId) -> Result<Trust, TrustError> {
        let found = FleetId(envelope.digest().0);
        if found != pinned {
            return Err(TrustError::RootDigest { found, pinned });
        }
        let root = Root::parse(&envelope)?;
        if root.version != 1 || root.fleet.is_some() {
            return Err(TrustError::RootGap {
                found: root.version,
                trusted: 0,
            });
        }
        count_signers(&envelope, &root, Role::Root, &[])?;
        Ok(Trust {
            fleet: pinned,
            root: Verified::new(root, envelope),
        })
    }

    /// Steps to the next root version: signed by both thresholds, one version further.
    ///
    /// # Errors
    /// When it does not follow; the trusted root stays.
    pub fn update(&mut self, envelope: Envelope) -> Result<(), TrustError> {
        let next = Root::parse(&envelope)?;
        if next.version != self.root.version + 1 {
            return Err(TrustError::RootGap {
                found: next.version,
                trusted: self.root.version,
            });
        }
        if next.fleet != Some(self.fleet) {
            return Err(TrustError::Fleet(next.fleet.unwrap_or(FleetId([0; 32]))));
        }
        count_signers(&envelope, &self.root, Role::Root, &[])?;
        count_signers(&envelope, &next, Role::Root, &[])?;
        self.root = Verified::new(next, envelope);
        Ok(())
    }

    /// The fleet that is trusted.
    pub fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// The newest trusted root.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// Believes a statement if its role's threshold signed it for this fleet.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify<T: Statement>(&self, envelope: &Envelope) -> Result<Verified<T>, TrustError> {
        let value = self.read::<T>(envelope)?;
        let signed = count_signers(envelope, &self.root, T::ROLE, &value.excluded());
        match (signed, value.delegable()) {
            (Err(refusal), Some(product)) => {
                let signers = envelope.valid_signers();
                delegations::signed(&self.root.delegations, product, &signers)
                    .map_err(|why| why.map_or(refusal, TrustError::Delegation))?;
            }
            (signed, _) => signed?,
        }
        let in_role = |key| {
            let role = self.root.role(T::ROLE);
            role.is_some_and(|role| role.keys.contains(key))
        };
        match value.signs_too() {
            Some(key) if !in_role(&key) || !envelope.valid_signers().contains(&key) => {
                Err(TrustError::Proposer(key))
            }
            _ => Ok(Verified::new(value, envelope.clone())),
        }
    }

    /// How many distinct keys of the role have signed so far, and how many must. For collecting
    /// approvals; believes nothing.
    ///
    /// # Errors
    /// When the payload itself is not acceptable.
    pub fn progress<T: Statement>(
        &self,
        envelope: &Envelope,
    ) -> Result<(T, Vec<PublicKey>, u32), TrustError> {
        let value = self.read::<T>(envelope)?;
        let role = self
            .root
            .role(T::ROLE)
            .ok_or(TrustError::Signature(T::ROLE))?;
        let excluded = value.excluded();
        let signers = envelope
            .valid_signers()
            .into_iter()
            .filter(|k| role.keys.contains(k) && !excluded.contains(k))
            .collect();
        Ok((value, signers, role.threshold))
    }

    fn read<T: Statement>(&self, envelope: &Envelope) -> Result<T, TrustError> {
        envelope.within_limits()?;
        if envelope.payload_type != T::PAYLOAD_TYPE {
            return Err(TrustError::PayloadType {
                found: envelope.payload_type.clone(),
                expected: T::PAYLOAD_TYPE,
            });
        }
        let value: T = serde_json::from_slice(&envelope.payload)
            .map_err(|e| TrustError::Malformed(e.to_string()))?;
        if value.spec_version() != T::SPEC_VERSION {
            return Err(TrustError::SpecVersion(value.spec_version()));
        }
        if value.fleet() != self.fleet {
            return Err(TrustError::Fleet(value.fleet()));
        }
        value.check().map_err(TrustError::Malformed)?;
        Ok(value)
    }
}

fn count_signers(
    envelope: &Envelope,
    root: &Root,
    role: Role,
    excluded: &[PublicKey],
) -> Result<(), TrustError> {
    let keys = root.role(role).ok_or(TrustError::Signature(role))?;
    let valid = envelope
        .valid_signers()
        .iter()
        .filter(|k| keys.keys.contains(k) && !excluded.contains(k))
        .count() as u32;
    match valid {
        0 => Err(TrustError::Signature(role)),
        v if v < keys.threshold => Err(TrustError::Threshold {
            role,
            valid: v,
            needed: keys.threshold,
        }),
        _ => Ok(()),
    }
}
