//! The key and the certificates on disk.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use protocol::NodeId;
use protocol::limits::CREDENTIALS_MAX_BYTES;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use webpki::EndEntityCert;

use super::IdentityError;

/// Reads an ed25519 key from PKCS#8 PEM; refuses a file that others may read.
pub fn load_key(path: &Path) -> Result<SigningKey, IdentityError> {
    refuse_exposed(path)?;
    let pem = read(path)?;
    SigningKey::from_pkcs8_pem(&pem).map_err(|_| malformed(path, "an ed25519 key (PKCS#8 PEM)"))
}

/// Writes an ed25519 key as PKCS#8 PEM, mode 0600, atomically; durable on return.
pub fn save_key(path: &Path, key: &SigningKey) -> Result<(), IdentityError> {
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .expect("an ed25519 key is plain data");
    write(path, pem.as_bytes())
}

pub(crate) fn load_chain(
    path: &Path,
    key: &SigningKey,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let what = "certificates (PEM, leaf first)";
    let pem = read(path)?;
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| malformed(path, what))?;
    let leaf = chain.first().ok_or_else(|| malformed(path, what))?;
    let found = node_of_certificate(leaf);
    let node = NodeId(key.verifying_key().to_bytes());
    if found == Some(node) {
        return Ok(chain);
    }
    Err(IdentityError::WrongKey {
        path: path.to_owned(),
        found: found.map_or_else(|| "none".to_owned(), |node| node.to_string()),
        key: node,
    })
}

pub(super) fn save_chain(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), IdentityError> {
    write(path, pem(chain).as_bytes())
}

/// The node whose ed25519 key is the certificate's subject key; says nothing about who signed it.
/// For peers whose chain TLS has already admitted (`quinn::Connection::peer_identity`).
pub fn node_of_certificate(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    ed25519_subject(&EndEntityCert::try_from(certificate).ok()?).map(NodeId)
}

/// The subject key of a certificate, if it is an ed25519 key.
pub(super) fn ed25519_subject(certificate: &EndEntityCert<'_>) -> Option<[u8; 32]> {
    // RFC 8410: SEQUENCE { SEQUENCE { 1.3.101.112 }, BIT STRING of 32 bytes }
    const PREFIX: [u8; 12] = [
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    let spki = certificate.subject_public_key_info();
    spki.as_ref().strip_prefix(&PREFIX)?.try_into().ok()
}

pub(super) fn pem(chain: &[CertificateDer<'_>]) -> String {
    let mut out = String::new();
    for certificate in chain {
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = BASE64.encode(certificate);
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(64));
            out.push_str(line);
            out.push('\n');
            rest = tail;
        }
        out.push_str("-----END CERTIFICATE-----\n");
    }
    out
}

fn read(path: &Path) -> Result<String, IdentityError> {
    use io::Read;
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| {
            file.take(2 * CREDENTIALS_MAX_BYTES as u64)
                .read_to_string(&mut text)
        })
        .map_err(|source| IdentityError::File {
            path: path.to_owned(),
            source,
        })?;
    Ok(text)
}

/// Writes beside the target and renames, so that a crash leaves the old file or the new one.
/// The temporary file has mode 0600 from the start.
fn write(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let inner = || -> io::Result<()> {
        let dir = path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(dir)?.sync_all()
    };
    inner().map_err(|source| IdentityError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(unix)]
fn refuse_exposed(path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt;
    let meta = fs::metadata(path).map_err(|source| IdentityError::File {
        path: path.to_owned(),
        source,
    })?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(IdentityError::Exposed {
            path: path.to_owned(),
            mode,
        })
    }
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path) -> Result<(), IdentityError> {
    Ok(())
}

fn malformed(path: &Path, what: &'static str) -> IdentityError {
    IdentityError::Malformed {
        path: path.to_owned(),
        what,
    }
}
