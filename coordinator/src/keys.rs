//! Keys of people and roles: ed25519 as PKCS#8 PEM, one file each, with the public half beside it.
//!
//! `NAME.pem` holds the private key, encrypted under a passphrase (scrypt and AES-256-CBC) or plain with mode 0600; `NAME.pub` holds the public key as 64 hex digits.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use pkcs8::LineEnding;
use protocol::limits;
use protocol::{PublicKey, SiteId};
use zeroize::Zeroizing;

const ENCRYPTED_MARK: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

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
    /// An empty passphrase protects nothing.
    #[error("the passphrase for {0} is empty; give one, or ask for a plain key")]
    EmptyPassphrase(String),
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
    SigningKey::from_bytes(&Zeroizing::new(random_32()))
}

/// 32 bytes from the system's randomness: for keys, salts and secrets.
pub fn random_32() -> [u8; 32] {
    let mut bytes = [0; 32];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut bytes).expect("the system has randomness");
    bytes
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
    dir: &Path,
    name: &str,
    key: &SigningKey,
    passphrase: Option<&str>,
) -> Result<PathBuf, KeyError> {
    if name.parse::<SiteId>().is_err() {
        return Err(KeyError::Name(name.to_owned()));
    }
    let (private, open) = (
        dir.join(format!("{name}.pem")),
        dir.join(format!("{name}.pub")),
    );
    for path in [&private, &open] {
        if path.exists() {
            return Err(KeyError::Exists(path.clone()));
        }
    }
    let encode = |why: pkcs8::Error| KeyError::Malformed {
        path: private.clone(),
        why: why.to_string(),
    };
    let pem = match passphrase {
        Some("") => return Err(KeyError::EmptyPassphrase(name.to_owned())),
        Some(passphrase) => key.to_pkcs8_encrypted_pem(passphrase, LineEnding::LF),
        None => key.to_pkcs8_pem(LineEnding::LF),
    };
    create(&private, pem.map_err(encode)?.as_bytes(), 0o600)?;
    create(&open, format!("{}\n", public(key)).as_bytes(), 0o644)?;
    Ok(private)
}

/// Writes a new file: whole and durable, or not at all, and never over another.
fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    let failed = |source| KeyError::Io {
        path: path.to_owned(),
        source,
    };
    let dir = node::config::directory_of(path);
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))
        .map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path)
        .map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists(path.to_owned()),
            _ => failed(e.error),
        })?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)
}

/// Whether reading the key takes a passphrase.
///
/// # Errors
/// When the file is missing or no key.
pub fn is_encrypted(path: &Path) -> Result<bool, KeyError> {
    Ok(read(path)?.0.contains(ENCRYPTED_MARK))
}

/// Reads a private key. `passphrase` is asked only if the file is encrypted.
///
/// # Errors
/// When the file is missing, no key, plain and readable by others, or the passphrase is wrong.
pub fn load(
    path: &Path,
    passphrase: impl FnOnce() -> io::Result<String>,
) -> Result<SigningKey, KeyError> {
    let (text, mode) = read(path)?;
    if text.contains(ENCRYPTED_MARK) {
        let phrase = passphrase().map_err(|source| KeyError::Io {
            path: path.to_owned(),
            source,
        })?;
        let phrase = Zeroizing::new(phrase);
        return SigningKey::from_pkcs8_encrypted_pem(&text, phrase.as_bytes())
            .map_err(|_| KeyError::Passphrase(path.to_owned()));
    }
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    SigningKey::from_pkcs8_pem(&text).map_err(|e| KeyError::Malformed {
        path: path.to_owned(),
        why: e.to_string(),
    })
}

/// Reads a public key: a `.pub` file, or a `.pem` file with its `.pub` beside it.
///
/// # Errors
/// When the file is missing or no key.
pub fn load_public(path: &Path) -> Result<PublicKey, KeyError> {
    let path = path.with_extension("pub");
    let (text, _) = read(&path)?;
    text.trim()
        .parse()
        .map_err(|e: protocol::ids::ParseIdError| KeyError::Malformed {
            path,
            why: e.to_string(),
        })
}

/// The file's text and its permission bits, both of the same open file.
fn read(path: &Path) -> Result<(Zeroizing<String>, u32), KeyError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing(path.to_owned()),
        io::ErrorKind::InvalidData => KeyError::Malformed {
            path: path.to_owned(),
            why: "it is not text".into(),
        },
        _ => KeyError::Io {
            path: path.to_owned(),
            source,
        },
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(limits::KEY_FILE_MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok((text, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> io::Result<String> {
        panic!("a plain key needs no passphrase")
    }

    #[test]
    fn a_plain_key_comes_back_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let key = generate();
        let path = save(dir.path(), "alice", &key, None).unwrap();
        assert!(!is_encrypted(&path).unwrap());
        assert_eq!(load(&path, nobody).unwrap(), key);
        assert_eq!(load_public(&path).unwrap(), public(&key));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );

        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load(&path, nobody).unwrap_err();
            assert!(matches!(error, KeyError::Exposed { .. }), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn an_encrypted_key_wants_its_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let key = generate();
        let path = save(dir.path(), "bob", &key, Some("correct horse")).unwrap();
        assert!(is_encrypted(&path).unwrap());
        assert_eq!(load(&path, || Ok("correct horse".into())).unwrap(), key);
        let error = load(&path, || Ok("battery staple".into())).unwrap_err();
        assert!(matches!(error, KeyError::Passphrase(_)), "{error}");
        // An encrypted key may lie about: its passphrase protects it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load(&path, || Ok("correct horse".into())).unwrap(), key);
        let error = save(dir.path(), "carol", &key, Some("")).unwrap_err();
        assert!(matches!(error, KeyError::EmptyPassphrase(_)), "{error}");
    }

    #[test]
    fn keys_are_never_overwritten_and_names_stay_inside_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = generate();
        let path = save(dir.path(), "root", &first, None).unwrap();
        let error = save(dir.path(), "root", &generate(), None).unwrap_err();
        assert!(matches!(error, KeyError::Exists(_)), "{error}");
        assert_eq!(load(&path, nobody).unwrap(), first);
        for name in ["../evil", "", "a/b", "Upper"] {
            let error = save(dir.path(), name, &first, None).unwrap_err();
            assert!(matches!(error, KeyError::Name(_)), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("junk.pem");
        assert!(matches!(load(&path, nobody), Err(KeyError::Missing(_))));
        for junk in [
            &b"hello"[..],
            b"",
            b"\xff\xfe\x00",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            fs::write(&path, junk).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(
                load(&path, nobody),
                Err(KeyError::Malformed { .. })
            ));
        }
    }
}
