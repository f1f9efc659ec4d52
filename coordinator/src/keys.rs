//! Keys of people and roles: ed25519 as PKCS#8 PEM, one file each, with the public half beside it.
//!
//! `NAME.pem` holds the private key, encrypted under a passphrase (scrypt and AES-256, readable by
//! OpenSSL) or plain with mode 0600; `NAME.pub` holds the public key as 64 hex digits.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use protocol::PublicKey;

/// Why a key is not written or read. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Never overwritten.
    #[error("{0} exists already, and keys are never overwritten; choose another name")]
    Exists(PathBuf),
    /// Not a name.
    #[error("{0:?} is not a key name (1 to 63 of a-z, 0-9, '-', '_', '.')")]
    Name(String),
    /// Not there.
    #[error("{0} does not exist; give the path of a key file such as keys/alice.pem")]
    Missing(PathBuf),
    /// Others may read a plain key.
    #[error(
        "{path} is not encrypted and has mode {mode:03o}, so others can read it; run `chmod 600 {path}`"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Encrypted, and no or a wrong passphrase.
    #[error("{0} cannot be decrypted: the passphrase is wrong")]
    Passphrase(PathBuf),
    /// Not a key.
    #[error("{path} is not an ed25519 key in PKCS#8 PEM: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The disk.
    #[error("{path} cannot be accessed: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A new key from the system's randomness.
pub fn generate() -> SigningKey {
    unimplemented!()
}

/// The public half.
pub fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

/// Writes `DIR/NAME.pem` (0600) and `DIR/NAME.pub`, atomically. Gives the path of the private half.
///
/// # Errors
/// When the name is taken or the disk fails.
pub fn save(
    _dir: &Path,
    _name: &str,
    _key: &SigningKey,
    _passphrase: Option<&str>,
) -> Result<PathBuf, KeyError> {
    unimplemented!()
}

/// Whether reading the key takes a passphrase.
///
/// # Errors
/// When the file is missing or no key.
pub fn is_encrypted(_path: &Path) -> Result<bool, KeyError> {
    unimplemented!()
}

/// Reads a private key. `passphrase` is asked only if the file is encrypted.
///
/// # Errors
/// When the file is missing, no key, plain and readable by others, or the passphrase is wrong.
pub fn load(
    _path: &Path,
    _passphrase: impl FnOnce() -> std::io::Result<String>,
) -> Result<SigningKey, KeyError> {
    unimplemented!()
}

/// Reads a public key: a `.pub` file, or a `.pem` file with its `.pub` beside it.
///
/// # Errors
/// When the file is missing or no key.
pub fn load_public(_path: &Path) -> Result<PublicKey, KeyError> {
    unimplemented!()
}
