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
//! prints the base64 of the ed25519 signature, 64 bytes. What it prints is verified before it is used. It
//! has a minute, or the `patience_s` seconds of the file, up to ten minutes (somebody may have to touch a
//! token); then it is ended.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use protocol::PublicKey;
use protocol::envelope::{Envelope, KeySignature, pre_authentication_encoding, verify};
use protocol::limits::{
    KEY_FILE_MAX_BYTES, SIGNER_PATIENCE, SIGNER_PATIENCE_MAX, SIGNER_REPLY_MAX_BYTES,
};
use serde::{Deserialize, Serialize};

use crate::keys;

/// A command whose output has ended is looked at this often until it has ended, too.
const LOOK: Duration = Duration::from_millis(10);

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
    /// Seconds that it may take [default: [`SIGNER_PATIENCE`]].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience_s: Option<u32>,
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
    /// It did not end in time.
    #[error(
        "signer {program} gave no signature within {seconds} s and was ended; if it needs longer, say so in its `patience_s`"
    )]
    Slow {
        /// The program.
        program: String,
        /// Seconds that it had.
        seconds: u64,
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
            } if command.is_empty() => Err(refuse("its command is empty".into())),
            SignerFile {
                spec_version: 1, ..
            } if signer.patience() > SIGNER_PATIENCE_MAX.as_duration() => Err(refuse(format!(
                "its patience_s is over {}",
                SIGNER_PATIENCE_MAX.as_duration().as_secs()
            ))),
            SignerFile {
                spec_version: 1, ..
            } => Ok(Signer::Command(signer)),
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
    fn patience(&self) -> Duration {
        let said = self.patience_s.map(|s| Duration::from_secs(s.into()));
        said.unwrap_or(SIGNER_PATIENCE.as_duration())
    }

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
        // Written and read beside, so that a command that neither reads nor ends blocks nobody; whether it
        // read all shows in its signature.
        std::thread::spawn(move || stdin.map(|mut to| to.write_all(&line)));
        let (done, reply) = mpsc::channel();
        std::thread::spawn(move || {
            let mut reply = String::new();
            let from = stdout.map(|from| from.take(SIGNER_REPLY_MAX_BYTES));
            let read = from.map(|mut from| from.read_to_string(&mut reply));
            // Whoever asked may have given up.
            let _ = done.send(matches!(read, Some(Ok(_))).then_some(reply));
        });
        let deadline = Instant::now() + self.patience();
        let slow = || SignError::Slow {
            program: program.clone(),
            seconds: self.patience().as_secs(),
        };
        let Ok(reply) = reply.recv_timeout(self.patience()) else {
            end(&mut child);
            return Err(slow());
        };
        let status = ended(&mut child, deadline).map_err(|e| failed(e.to_string()))?;
        let status = status.ok_or_else(slow)?;
        if !status.success() {
            return Err(failed(format!("it ended with {status}")));
        }
        let sig = reply.and_then(|reply| BASE64.decode(reply.trim().as_bytes()).ok());
        let holds = |sig: &Vec<u8>| verify(self.public, &message, sig);
        sig.filter(holds).ok_or(SignError::Signature {
            program,
            public: self.public,
        })
    }
}

/// How a command ended; `None` if it had to be ended.
fn ended(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            end(child);
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn end(child: &mut Child) {
    // One that ended by itself meanwhile is no failure.
    let _ = child.kill();
    let _ = child.wait();
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
            patience_s: None,
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
            patience_s: None,
        };
        let error = Signer::Command(missing).sign(&mut unsigned()).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
    /// A signer that hung used to hang whoever had asked it, for ever.
    #[test]
    fn a_command_that_hangs_is_ended() {
        let public = keys::public(&key("hsm", 1));
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let note = format!("echo $$ > {}", pid.display());
        // It says nothing; it says nothing more and does not end.
        for rest in ["exec sleep 1000", "exec >&-; exec sleep 1000"] {
            let Signer::Command(mut file) = signer(public, &format!("{note}; {rest}")) else {
                unreachable!("it is a command");
            };
            file.patience_s = Some(1);
            let mut envelope = unsigned();
            let error = Signer::Command(file).sign(&mut envelope).unwrap_err();
            assert!(matches!(error, SignError::Slow { .. }), "{error}");
            assert!(envelope.signatures.is_empty());
            let pid = std::fs::read_to_string(&pid).unwrap();
            let alive = Path::new("/proc").join(pid.trim());
            assert!(!alive.exists(), "{rest}: it was ended and waited for");
        }
        // Nobody may ask for more patience than there is.
        let path = dir.path().join("hsm.signer");
        let said =
            format!(r#"{{"spec_version":1,"public":"{public}","command":["x"],"patience_s":601}}"#);
        std::fs::write(&path, said).unwrap();
        let error = Signer::from_file(&path).err().unwrap().to_string();
        assert!(error.contains("patience_s is over 600"), "{error}");
    }
}
