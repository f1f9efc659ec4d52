//! Signed envelopes: DSSE with ed25519 over JSON payloads.
//!
//! The signature covers the pre-authentication encoding of payload type and payload
//! (<https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>); a digest is over the
//! payload's bytes, never over the envelope, so adding a signature changes no name.

use data_encoding::BASE64;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::ids::{Hash, PublicKey};
use crate::limits::{ENVELOPE_MAX_BYTES, SIGNATURES_MAX, STATEMENT_MAX_BYTES};
use crate::terse;

/// A payload with its signatures. Nothing in it has been checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// What the payload is, e.g. `application/vnd.tidegate.release+json`.
    #[serde(rename = "payloadType", with = "short_text")]
    pub payload_type: String,
    /// The payload's bytes; base64 in JSON, else in their [`crate::terse`] form.
    #[serde(with = "short_bytes")]
    pub payload: Vec<u8>,
    /// Who signed.
    pub signatures: Vec<KeySignature>,
}

/// One signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySignature {
    /// The key that signed.
    pub keyid: PublicKey,
    /// ed25519 signature of 64 bytes; base64 in JSON.
    #[serde(with = "base64_bytes")]
    pub sig: Vec<u8>,
}

mod base64_bytes {
    use super::BASE64;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.serialize_str(&BASE64.encode(bytes))
        } else {
            bytes.serialize(s)
        }
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        if d.is_human_readable() {
            let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
            BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
        } else {
            Vec::deserialize(d)
        }
    }
}

mod short_bytes {
    use super::{STATEMENT_MAX_BYTES, base64_bytes, terse};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            base64_bytes::serialize(bytes, s)
        } else {
            terse::pack(bytes).serialize(s)
        }
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        if d.is_human_readable() {
            return base64_bytes::deserialize(d);
        }
        let short = Vec::<u8>::deserialize(d)?;
        terse::unpack(&short, STATEMENT_MAX_BYTES)
            .ok_or_else(|| D::Error::custom("not a short form of a statement"))
    }
}

mod short_text {
    use super::short_bytes;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(text: &str, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.serialize_str(text)
        } else {
            short_bytes::serialize(text.as_bytes(), s)
        }
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
        if d.is_human_readable() {
            return String::deserialize(d);
        }
        String::from_utf8(short_bytes::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// An envelope that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Over its limit.
    #[error("envelope of {0} bytes is over its limit")]
    TooLong(usize),
    /// Not an envelope.
    #[error("envelope is malformed: {0}")]
    Malformed(String),
    /// More signatures than are looked at.
    #[error("envelope has {0} signatures, more than {SIGNATURES_MAX}")]
    TooManySignatures(usize),
}

/// DSSE's pre-authentication encoding: what is really signed.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    out.extend_from_slice(payload);
    out
}

impl Envelope {
    /// An envelope without signatures.
    pub fn unsigned(payload_type: &str, payload: Vec<u8>) -> Envelope {
        Envelope {
            payload_type: payload_type.to_owned(),
            payload,
            signatures: Vec::new(),
        }
    }

    /// The digest of the payload: the statement's name.
    pub fn digest(&self) -> Hash {
        Hash::of(&self.payload)
    }

    /// Adds `key`'s signature; an older one of the same key is replaced.
    pub fn sign(&mut self, key: &SigningKey) {
        let keyid = PublicKey(key.verifying_key().to_bytes());
        let sig = key.sign(&pre_authentication_encoding(
            &self.payload_type,
            &self.payload,
        ));
        self.signatures.retain(|s| s.keyid != keyid);
        self.signatures.push(KeySignature {
            keyid,
            sig: sig.to_bytes().to_vec(),
        });
    }

    /// The distinct keys whose signature over this payload holds (`verify_strict`).
    pub fn valid_signers(&self) -> Vec<PublicKey> {
        let message = pre_authentication_encoding(&self.payload_type, &self.payload);
        let mut signers: Vec<PublicKey> = Vec::new();
        for KeySignature { keyid, sig } in self.signatures.iter().take(SIGNATURES_MAX) {
            if !signers.contains(keyid) && verify(*keyid, &message, sig) {
                signers.push(*keyid);
            }
        }
        signers
    }

    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an envelope is plain data")
    }

    /// From JSON, within limits.
    ///
    /// # Errors
    /// When it is too long or not an envelope.
    pub fn from_json(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
        if bytes.len() > ENVELOPE_MAX_BYTES {
            return Err(EnvelopeError::TooLong(bytes.len()));
        }
        let envelope: Envelope =
            serde_json::from_slice(bytes).map_err(|e| EnvelopeError::Malformed(e.to_string()))?;
        envelope.within_limits()?;
        Ok(envelope)
    }

    /// Whether an envelope that came inside another message keeps to the limits.
    ///
    /// # Errors
    /// When it does not.
    pub fn within_limits(&self) -> Result<(), EnvelopeError> {
        if self.payload.len() > STATEMENT_MAX_BYTES {
            return Err(EnvelopeError::TooLong(self.payload.len()));
        }
        if self.signatures.len() > SIGNATURES_MAX {
            return Err(EnvelopeError::TooManySignatures(self.signatures.len()));
        }
        Ok(())
    }
}

/// Whether `sig` is `key`'s ed25519 signature over `message`, by the strict rules (no small-order
/// keys, canonical encodings).
pub fn verify(key: PublicKey, message: &[u8], sig: &[u8]) -> bool {
    let (Ok(key), Ok(sig)) = (VerifyingKey::from_bytes(&key.0), Signature::from_slice(sig)) else {
        return false;
    };
    key.verify_strict(message, &sig).is_ok()
}
