//! Who signs for a person or a role: a key file, or a command that asks an HSM, a smart card or a key
//! service.
//!
//! A command stands in a file `NAME.signer` beside or instead of `NAME.pem`:
//!
//! ```json
//! {"spec_version": 1, "public": "64 hex digits", "command": ["/usr/local/bin/hsm-sign", "slot-3"]}
//! ```
//!
//! It gets one line of JSON on standard input, `{"version":1,"public":…,"payload_type":…,"message":…}`,
//! where `message` is the base64 of the very bytes to be signed (DSSE's pre-authentication encoding), and
//! prints the base64 of the ed25519 signature, 64 bytes. What it prints is verified before it is used.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use protocol::PublicKey;
use protocol::envelope::{Envelope, KeySignature, pre_authentication_encoding, verify};
use protocol::limits::{KEY_FILE_MAX_BYTES, SIGNER_REPLY_MAX_BYTES};
use serde::{Deserialize, Serialize};

use crate::keys;

/// Signs envelopes under one key, wherever that key lies.
pub enum Signer {
    /// A key of this process; wiped from memory when it is dropped.
    Key(SigningKey),
    /// A command that holds the key or asks who does.
    Command(SignerFile),
}

/// What a `.signer` file says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerFile {
    /// Format version, 1.
    pub spec_version: u32,
    /// Whose signatures it gives.
    pub public: PublicKey,
    /// Program and arguments; no shell.
    pub command: Vec<String>,
}

#[derive(Serialize)]
struct Request<'a> {
    version: u32,
    public: PublicKey,
    payload_type: &'a str,
    message: String,
}

/// Why there is no signature. Messages are one line, and none holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// Not a signer's file.
    #[error("{path} is no signer: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The command did not run or failed.
    #[error("signer {program} failed: {why}")]
    Failed {
        /// The program.
        program: String,
        /// Why.
        why: String,
    },
    /// What it printed is no signature of its key over the message.
    #[error("signer {program} gave no valid signature of key {}; look at its `public`", .public.short())]
    Signature {
        /// The program.
        program: String,
        /// The key that was named.
        public: PublicKey,
    },
}

impl From<SigningKey> for Signer {
    fn from(key: SigningKey) -> Signer {
        Signer::Key(key)
    }
}

impl Signer {
    /// Reads a `.signer` file.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn from_file(path: &Path) -> Result<Signer, SignError> {
        let refuse = |why: String| SignError::File {
            path: path.to_owned(),
            why,
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| refuse(e.to_string()))?;
        let read = file.take(KEY_FILE_MAX_BYTES).read_to_end(&mut bytes);
        read.map_err(|e| refuse(e.to_string()))?;
        let signer: SignerFile =
            serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
        match signer {
            SignerFile {
                spec_version: 1,
                ref command,
                ..
            } if !command.is_empty() => Ok(Signer::Command(signer)),
            SignerFile {
                spec_version: 1, ..
            } => Err(refuse("its command is empty".into())),
            other => {
                let version = other.spec_version;
                Err(refuse(format!(
                    "spec_version {version} is not known to this program"
                )))
            }
        }
    }

    /// Whose signatures it gives.
    pub fn public(&self) -> PublicKey {
        match self {
            Signer::Key(key) => keys::public(key),
            Signer::Command(signer) => signer.public,
        }
    }

    /// Adds its signature; an older one of the same key is replaced.
    ///
    /// # Errors
    /// When a command fails or gives something else than a signature.
    pub fn sign(&self, envelope: &mut Envelope) -> Result<(), SignError> {
        match self {
            Signer::Key(key) => envelope.sign(key),
            Signer::Command(signer) => {
                let sig = signer.ask(envelope)?;
                envelope.signatures.retain(|s| s.keyid != signer.public);
                envelope.signatures.push(KeySignature {
                    keyid: signer.public,
                    sig,
                });
            }
        }
        Ok(())
    }
}

impl SignerFile {
    fn ask(&self, envelope: &Envelope) -> Result<Vec<u8>, SignError> {
        let program = self.command.first().cloned().unwrap_or_default();
        let failed = |why: String| SignError::Failed {
            program: program.clone(),
            why,
        };
        let message = pre_authentication_encoding(&envelope.payload_type, &envelope.payload);
        let request = Request {
            version: 1,
            public: self.public,
            payload_type: &envelope.payload_type,
            message: BASE64.encode(&message),
        };
        let mut line = serde_json::to_vec(&request).expect("plain data");
        line.push(b'\n');
        let mut child = Command::new(&program)
            .args(self.command.iter().skip(1))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // Written beside, so that a command that does not read blocks nobody; whether it read all shows
        // in its signature.
        let writer = std::thread::spawn(move || stdin.map(|mut to| to.write_all(&line)));
        let mut reply = String::new();
        let read = stdout.map(|from| from.take(SIGNER_REPLY_MAX_BYTES).read_to_string(&mut reply));
        let status = child.wait().map_err(|e| failed(e.to_string()))?;
        drop(writer.join());
        if !status.success() {
            return Err(failed(format!("it ended with {status}")));
        }
        let sig = BASE64.decode(reply.trim().as_bytes()).ok();
        let sig = sig.filter(|_| matches!(read, Some(Ok(_))));
        let holds = |sig: &Vec<u8>| verify(self.public, &message, sig);
        sig.filter(holds).ok_or(SignError::Signature {
            program,
            public: self.public,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{Fleet, key};

    fn signer(public: PublicKey, script: &str) -> Signer {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hsm.signer");
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let file = SignerFile {
            spec_version: 1,
            public,
            command,
        };
        std::fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
        Signer::from_file(&path).unwrap()
    }

    fn unsigned() -> Envelope {
        let fleet = Fleet::new(1);
        let mut envelope = fleet.sign(&fleet.topology(1, 1));
        envelope.signatures.clear();
        envelope
    }

    #[test]
    fn a_command_signs_as_its_key_would() {
        let key = key("hsm", 1);
        let mut by_key = unsigned();
        by_key.sign(&key);
        let sig = BASE64.encode(&by_key.signatures[0].sig);
        let mut by_command = unsigned();
        let command = signer(keys::public(&key), &format!("cat >/dev/null; echo {sig}"));
        assert_eq!(command.public(), keys::public(&key));
        command.sign(&mut by_command).unwrap();
        assert_eq!(by_command, by_key);
        // It is told the bytes to sign.
        let message = pre_authentication_encoding(&by_key.payload_type, &by_key.payload);
        let wanted = BASE64.encode(&message);
        let check = format!("grep -qF '{wanted}' && echo {sig}");
        let mut again = unsigned();
        signer(keys::public(&key), &check).sign(&mut again).unwrap();
        assert_eq!(again, by_key);
    }

    #[test]
    fn whatever_is_no_signature_is_refused_and_nothing_is_added() {
        let public = keys::public(&key("hsm", 1));
        let scripts = [
            "exit 1",
            "true",
            "echo AAAA",
            "echo not-base64",
            "yes",
            "printf '\\377\\376'",
        ];
        for script in scripts {
            let mut envelope = unsigned();
            let error = signer(public, script).sign(&mut envelope).unwrap_err();
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
            assert!(envelope.signatures.is_empty(), "{script}");
        }
        let missing = SignerFile {
            spec_version: 1,
            public,
            command: vec!["/no/such/program".into()],
        };
        let error = Signer::Command(missing).sign(&mut unsigned()).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
