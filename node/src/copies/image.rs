//! Images: a directory whose copies each enrol by themselves at their first start.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::remove;
use crate::config::{ConfigError, ListenAsked, NodeConfig, write_durably};
use crate::enroll::{EnrollError, InstallerFile, enroll};
use crate::net::identity::{CERTIFICATES_FILE, KEY_FILE};
use crate::run::{RunError, lock};

/// The longest file that is read.
const SEALED_MAX_BYTES: u64 = 64 << 10;

/// How the copies of an image enrol: `sealed.json` in the image's directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedImage {
    /// Format version, 1.
    pub spec_version: u32,
    /// The coordinator, a token that serves as many times as there will be copies, the root's digest.
    pub installer: InstallerFile,
    /// Labels of the copies.
    pub labels: Vec<(String, String)>,
    /// Where they listen.
    pub listen: ListenAsked,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("sealed.json")
}

impl SealedImage {
    fn load(dir: &Path) -> Result<Option<SealedImage>, ConfigError> {
        let path = path(dir);
        if !path.exists() {
            return Ok(None);
        }
        let malformed = |why: String| ConfigError::Malformed {
            path: path.clone(),
            why,
        };
        let failed = |source| ConfigError::Io {
            path: path.clone(),
            source,
        };
        if fs::metadata(&path).map_err(failed)?.len() > SEALED_MAX_BYTES {
            return Err(malformed("it is too long".into()));
        }
        let bytes = fs::read(&path).map_err(failed)?;
        let sealed: SealedImage =
            serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        match sealed.spec_version {
            1 => Ok(Some(sealed)),
            newer => Err(malformed(format!(
                "its version {newer} is newer than this program"
            ))),
        }
    }
}

/// Makes an image of `dir`: key, certificates and everything that was said in the node's name go; blobs and
/// installed software stay. With `sealed` its copies enrol themselves at their first start.
///
/// # Errors
/// When a node runs there, or the directory cannot be written.
pub fn seal(dir: &Path, sealed: Option<&SealedImage>) -> Result<(), RunError> {
    NodeConfig::load(dir)?;
    let held = lock(dir)?;
    if let Some(sealed) = sealed {
        let json = serde_json::to_vec_pretty(sealed).expect("plain data");
        write_durably(&path(dir), &json, 0o600)?;
    }
    // Without the key first: whatever happens then, no copy speaks for this machine.
    let store = Path::new("store").join("store.redb");
    for file in [
        Path::new(KEY_FILE),
        Path::new("node.json"),
        Path::new(CERTIFICATES_FILE),
        Path::new("api.json"),
        store.as_path(),
    ] {
        remove(&dir.join(file))?;
    }
    drop(held);
    Ok(())
}

/// Enrols the copy of an image, if `dir` is one.
///
/// # Errors
/// One line, with the culprit and the next step.
pub async fn enroll_sealed(dir: &Path) -> Result<(), EnrollError> {
    match NodeConfig::load(dir) {
        Err(ConfigError::NotEnrolled(_)) => {}
        _ => return Ok(()),
    }
    let Some(sealed) = SealedImage::load(dir)? else {
        return Ok(());
    };
    let options = sealed.installer.options(sealed.labels, sealed.listen);
    let options = options.map_err(|why| ConfigError::Malformed {
        path: path(dir),
        why,
    })?;
    let config = enroll(dir, options).await?;
    // The token is not for whoever reads this directory later.
    remove(&path(dir))?;
    tracing::info!(
        event = "enrolled",
        "this copy of an image is node {}",
        config.node.short()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::sample;

    #[test]
    fn an_image_holds_no_key_and_says_how_its_copies_enrol() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        sample(dir).store(dir).unwrap();
        for file in [KEY_FILE, CERTIFICATES_FILE, "api.json", "blob"] {
            fs::write(dir.join(file), b"x").unwrap();
        }
        let sealed = SealedImage {
            spec_version: 1,
            installer: InstallerFile {
                spec_version: InstallerFile::VERSION,
                coordinator: "https://127.0.0.1:7443".into(),
                token: "token".into(),
                root_digest: "00".repeat(32),
            },
            labels: vec![("room".into(), "12".into())],
            listen: ListenAsked::default(),
        };
        let running = lock(dir).unwrap();
        assert!(seal(dir, Some(&sealed)).is_err(), "a node runs there");
        assert!(dir.join(KEY_FILE).exists());
        drop(running);
        seal(dir, Some(&sealed)).unwrap();
        for file in [KEY_FILE, CERTIFICATES_FILE, "api.json", "node.json"] {
            assert!(!dir.join(file).exists(), "{file}");
        }
        assert!(dir.join("blob").exists());
        let samples = [("1.json".to_owned(), fs::read(path(dir)).unwrap())];
        crate::golden::check("sealed", &samples, |bytes| {
            fs::write(path(dir), bytes).unwrap();
            let read = SealedImage::load(dir).map_err(|e| e.to_string())?;
            Ok(serde_json::to_vec_pretty(&read.expect("there")).expect("plain data"))
        });
        assert!(seal(dir, None).is_err(), "it is no node any more");
    }
}
