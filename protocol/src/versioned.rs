//! Binary formats: four bytes of magic, one of version, then postcard. One way in and out for all.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A binary format's name and version.
pub trait Versioned: Serialize + DeserializeOwned {
    /// Four bytes that name the format.
    const MAGIC: [u8; 4];
    /// The version that is written, and the newest that is read.
    const VERSION: u8;
    /// The longest encoding that is read.
    const MAX_BYTES: usize;

    /// Encodes `self` behind its magic and version.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&Self::MAGIC);
        out.push(Self::VERSION);
        postcard::to_extend(self, out).expect("encoding into memory does not fail")
    }

    /// Decodes all of `bytes`.
    ///
    /// # Errors
    /// When the bytes are too long, of another format or version, truncated, or followed by more.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = core::any::type_name::<Self>()
            .rsplit("::")
            .next()
            .unwrap_or("value");
        if bytes.len() > Self::MAX_BYTES {
            return Err(DecodeError::TooLong {
                what,
                length: bytes.len(),
                max: Self::MAX_BYTES,
            });
        }
        let body = bytes
            .strip_prefix(&Self::MAGIC)
            .ok_or(DecodeError::Magic { what })?;
        let (&version, body) = body.split_first().ok_or(DecodeError::Malformed { what })?;
        if version != Self::VERSION {
            return Err(DecodeError::Version { what, version });
        }
        match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok(_) | Err(_) => Err(DecodeError::Malformed { what }),
        }
    }
}

/// Bytes that are not what they should be. The culprit is whoever sent or stored them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the format allows.
    #[error("{what} of {length} bytes is over its limit of {max}")]
    TooLong {
        /// The type that was expected.
        what: &'static str,
        /// The length that came.
        length: usize,
        /// The longest that is read.
        max: usize,
    },
    /// Another format.
    #[error("not a {what}")]
    Magic {
        /// The type that was expected.
        what: &'static str,
    },
    /// A version that this program does not know.
    #[error("{what} has version {version}, which this program does not know")]
    Version {
        /// The type that was expected.
        what: &'static str,
        /// The version that came.
        version: u8,
    },
    /// Truncated, garbled, or followed by more bytes.
    #[error("{what} is malformed")]
    Malformed {
        /// The type that was expected.
        what: &'static str,
    },
}
