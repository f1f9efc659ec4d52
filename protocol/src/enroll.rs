//! Enrolment: the token that an operator hands out, and the two messages over HTTPS.
//!
//! The token pins the coordinator's server certificate; the root's digest is given apart from it and
//! the node accepts no other root. The node proves that it holds its key by signing the request.

use core::fmt;
use core::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::ids::{FleetId, Hash, NodeId, SiteId};
use crate::time::Time;
use crate::wire::Contact;

/// What an operator hands out, as text: `tgt1.` and base64url of its JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Names the token at the coordinator.
    pub id: String,
    /// 32 random bytes, base64url.
    pub secret: String,
    /// BLAKE3 of the DER of the certificate that the server must show.
    pub server_pin: Hash,
    /// The coordinator refuses it after this; here so that the node can say so at once.
    pub expires: Time,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).expect("a token is plain data");
        write!(f, "tgt1.{}", BASE64URL_NOPAD.encode(&json))
    }
}

impl FromStr for Token {
    type Err = String;
    fn from_str(text: &str) -> Result<Token, String> {
        let refuse = || "this is not an enrolment token (it starts with 'tgt1.')".to_owned();
        if text.len() > 4096 {
            return Err(refuse());
        }
        let body = text.trim().strip_prefix("tgt1.").ok_or_else(refuse)?;
        let json = BASE64URL_NOPAD
            .decode(body.as_bytes())
            .map_err(|_| refuse())?;
        serde_json::from_slice(&json).map_err(|_| refuse())
    }
}

/// A node asks to be enrolled: `POST /v1/enroll`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EnrollRequest {
    /// Format version, 1.
    pub spec_version: u32,
    /// The token's id.
    pub token_id: String,
    /// The token's secret.
    pub token_secret: String,
    /// The new node's key.
    pub node: NodeId,
    /// For people.
    pub hostname: String,
    /// Operating system, as `std::env::consts::OS` has it.
    pub os: String,
    /// Architecture, as `std::env::consts::ARCH` has it.
    pub arch: String,
    /// Labels as the installer set them.
    pub labels: Vec<(String, String)>,
    /// ed25519 signature by the node's key over [`EnrollRequest::signing_bytes`], hex.
    pub proof: String,
}

impl EnrollRequest {
    /// What the proof signs: everything else.
    pub fn signing_bytes(&self) -> Vec<u8> {
        let proof = String::new();
        let bare = EnrollRequest {
            proof,
            ..self.clone()
        };
        proof::signing_bytes("enroll", &bare)
    }

    /// Sets the proof.
    pub fn prove(&mut self, key: &SigningKey) {
        self.proof = proof::make(key, &self.signing_bytes());
    }

    /// Whether the asker holds the key that it names.
    pub fn proven(&self) -> bool {
        proof::holds(&self.proof, self.node, &self.signing_bytes())
    }
}

/// What an enrolled node gets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EnrollReply {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet.
    pub fleet: FleetId,
    /// Root metadata from version 1 to the newest, rising.
    pub roots: Vec<Envelope>,
    /// The node's certificate and the issuing CA's, DER, hex, leaf first.
    pub certificates: Vec<String>,
    /// The site that the token was made for, for people; the topology decides.
    pub site: Option<SiteId>,
    /// Labels that the token gives the node, whatever it says of itself under the same keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// Where delegates report.
    pub coordinators: Vec<Contact>,
    /// Nodes that hold every blob from the start.
    pub origins: Vec<Contact>,
    /// The order counter's epoch that the node's own register starts in.
    pub epoch: u32,
}

/// A node asks for the next certificate: `POST /v1/renew`. The old one proves who it is, also when its
/// time is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RenewRequest {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet.
    pub fleet: FleetId,
    /// Who asks.
    pub node: NodeId,
    /// Its newest certificate, DER, hex.
    pub certificate: String,
    /// ed25519 signature by the node's key over [`RenewRequest::signing_bytes`], hex.
    pub proof: String,
}

impl RenewRequest {
    /// What the proof signs: everything else.
    pub fn signing_bytes(&self) -> Vec<u8> {
        let proof = String::new();
        let bare = RenewRequest {
            proof,
            ..self.clone()
        };
        proof::signing_bytes("renew", &bare)
    }

    /// Sets the proof.
    pub fn prove(&mut self, key: &SigningKey) {
        self.proof = proof::make(key, &self.signing_bytes());
    }

    /// Whether the asker holds the key that it names.
    pub fn proven(&self) -> bool {
        proof::holds(&self.proof, self.node, &self.signing_bytes())
    }
}

/// A directory that was copied to another machine asks to be a node of its own: `POST /v1/rejoin`.
/// Answered with an [`EnrollReply`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RejoinRequest {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet.
    pub fleet: FleetId,
    /// The node whose directory was copied.
    pub copy_of: NodeId,
    /// Its newest certificate, DER, hex.
    pub certificate: String,
    /// The new node, proven by its own key; it names no token.
    pub enroll: EnrollRequest,
    /// ed25519 signature by the copied key over [`RejoinRequest::signing_bytes`], hex.
    pub proof: String,
}

impl RejoinRequest {
    /// What the proof signs: everything else.
    pub fn signing_bytes(&self) -> Vec<u8> {
        let proof = String::new();
        let bare = RejoinRequest {
            proof,
            ..self.clone()
        };
        proof::signing_bytes("rejoin", &bare)
    }

    /// Sets the proof.
    pub fn prove(&mut self, key: &SigningKey) {
        self.proof = proof::make(key, &self.signing_bytes());
    }

    /// Whether both keys signed it, and are two.
    pub fn proven(&self) -> bool {
        let copied = proof::holds(&self.proof, self.copy_of, &self.signing_bytes());
        copied && self.enroll.node != self.copy_of && self.enroll.proven()
    }
}

/// What it gets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RenewReply {
    /// Format version, 1.
    pub spec_version: u32,
    /// The node's certificate and the issuing CA's, DER, hex, leaf first.
    pub certificates: Vec<String>,
}

/// What a node gets that meets certificates of an issuing CA which it does not know: `POST /v1/roots`, with the
/// same request as for its next certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RootsReply {
    /// Format version, 1.
    pub spec_version: u32,
    /// Root metadata from version 1 to the newest, rising.
    pub roots: Vec<Envelope>,
}

/// How a request proves that its asker holds a key.
pub(crate) mod proof {
    use data_encoding::HEXLOWER;
    use ed25519_dalek::{Signer, SigningKey};
    use serde::Serialize;

    use crate::envelope::verify;
    use crate::ids::NodeId;

    /// What is signed: the kind of the request, and the request without its proof.
    pub fn signing_bytes(kind: &str, bare: &impl Serialize) -> Vec<u8> {
        let mut out = format!("tidegate {kind} v1\0").into_bytes();
        out.extend(serde_json::to_vec(bare).expect("a request is plain data"));
        out
    }

    pub fn make(key: &SigningKey, bytes: &[u8]) -> String {
        HEXLOWER.encode(&key.sign(bytes).to_bytes())
    }

    pub fn holds(proof: &str, node: NodeId, bytes: &[u8]) -> bool {
        HEXLOWER
            .decode(proof.as_bytes())
            .is_ok_and(|signature| verify(node.into(), bytes, &signature))
    }
}
