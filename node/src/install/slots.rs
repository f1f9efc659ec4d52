//! What stands where below a product's directory, and the few renames that change it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use node_core::contract::Failure;
use protocol::manifest::ReleaseManifest;
use protocol::{Hash, SiteId, Verified};
use serde::{Deserialize, Serialize};

use super::{io_failure, lasting_failure};
use crate::disk::{Change, Disk};

/// The directory of one product.
#[derive(Clone, Debug)]
pub(super) struct Places {
    disk: Disk,
    product: PathBuf,
}

/// Says which release a slot holds. It is written before the slot appears and removed before the slot
/// goes, so a slot with its marker is complete.
#[derive(Serialize, Deserialize)]
struct Marker {
    version: u32,
    release: Hash,
}

const MARKER_VERSION: u32 = 1;
/// A marker is a short line.
const MARKER_MAX_BYTES: u64 = 4096;

impl Places {
    pub fn new(disk: &Disk, root: &Path, product: &SiteId) -> Places {
        Places {
            disk: disk.clone(),
            product: root.join(product.as_str()),
        }
    }

    /// What changes it.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The product's directory.
    pub fn product(&self) -> &Path {
        &self.product
    }

    /// The slot of a version.
    pub fn slot(&self, version: &SiteId) -> PathBuf {
        self.versions().join(version.as_str())
    }

    pub fn versions(&self) -> PathBuf {
        self.product.join("versions")
    }

    /// The link to the slot that is in use.
    pub fn current(&self) -> PathBuf {
        self.product.join("current")
    }

    pub fn markers(&self) -> PathBuf {
        self.product.join("releases")
    }

    /// Where slots are written and removed.
    pub fn workshop(&self) -> PathBuf {
        self.product.join("slots")
    }

    /// Where command recipes are unpacked.
    pub fn stagings(&self) -> PathBuf {
        self.product.join("staging")
    }

    fn marker(&self, version: &SiteId) -> PathBuf {
        self.markers().join(format!("{version}.json"))
    }

    /// Which release the slot of `version` holds completely, if any.
    pub fn holds(&self, version: &SiteId) -> Result<Option<Hash>, Failure> {
        if !self.slot(version).is_dir() {
            return Ok(None);
        }
        let path = self.marker(version);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= MARKER_MAX_BYTES => {}
            Ok(_) => return Ok(None),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_failure(&path)(e)),
        }
        let text = fs::read(&path).map_err(io_failure(&path))?;
        let marker = serde_json::from_slice::<Marker>(&text).ok();
        Ok(marker
            .filter(|m| m.version == MARKER_VERSION)
            .map(|m| m.release))
    }

    /// Whether the slot of the release's version holds exactly that release.
    pub fn holds_release(&self, release: &Verified<ReleaseManifest>) -> Result<bool, Failure> {
        Ok(self.holds(&release.version)? == Some(release.digest()))
    }

    /// The version that `current` leads to, if it leads to a slot.
    pub fn current_version(&self) -> Result<Option<SiteId>, Failure> {
        let path = self.current();
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == ErrorKind::InvalidInput => {
                let path = path.display();
                return Err(lasting_failure(format!(
                    "{path} is not a link of ours; move it away"
                )));
            }
            Err(e) => return Err(io_failure(&path)(e)),
        };
        let version = target.strip_prefix("versions").ok().and_then(Path::to_str);
        Ok(version.and_then(|version| version.parse().ok()))
    }

    /// Makes `current` lead to the slot of `version` in one step, durably.
    pub fn point_current(&self, version: &SiteId, install_id: &Hash) -> Result<(), Failure> {
        let current = self.current();
        if self.current_version()?.as_ref() != Some(version) {
            let new = self
                .product
                .join(format!(".current.{}", install_id.short()));
            self.disk.clear(&new).map_err(io_failure(&new))?;
            let target = format!("versions/{version}");
            self.disk
                .make_link(&new, Path::new(&target))
                .map_err(io_failure(&new))?;
            self.disk
                .rename(&new, &current)
                .map_err(io_failure(&current))?;
        }
        // Also if it led there before: a crash may have come between rename and flush.
        self.disk
            .sync_dir(&self.product)
            .map_err(io_failure(&self.product))
    }

    /// Removes `current`, durably.
    pub fn drop_current(&self) -> Result<(), Failure> {
        let current = self.current();
        match self.disk.remove(&current) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(io_failure(&current)(e)),
            _ => self
                .disk
                .sync_dir(&self.product)
                .map_err(io_failure(&self.product)),
        }
    }

    /// Puts a complete tree that lies at `made` into the slot of the release's version. Only the same
    /// release may stand there already: it may be in use, so the two change places in one step.
    pub fn put(&self, made: &Path, release: &Verified<ReleaseManifest>) -> Result<(), Failure> {
        let slot = self.slot(&release.version);
        let versions = self.versions();
        self.disk
            .make_dirs(&versions)
            .map_err(io_failure(&versions))?;
        self.mark(&release.version, release.digest())?;
        if slot.symlink_metadata().is_ok() {
            let (one, other) = (made, slot.as_path());
            self.disk
                .change(Change::Exchange { one, other })
                .map_err(io_failure(&slot))?;
        } else {
            self.disk.rename(made, &slot).map_err(io_failure(&slot))?;
        }
        self.disk
            .sync_dir(&versions)
            .map_err(io_failure(&versions))?;
        self.disk.clear(made).map_err(io_failure(made))
    }

    /// Removes the slot of a version: first its marker, then its name, then its files.
    pub fn drop_slot(&self, version: &SiteId) -> Result<(), Failure> {
        self.unmark(version)?;
        let slot = self.slot(version);
        let workshop = self.workshop();
        self.disk
            .make_dirs(&workshop)
            .map_err(io_failure(&workshop))?;
        let going = workshop.join(format!("{version}.going"));
        self.disk.clear(&going).map_err(io_failure(&going))?;
        match self.disk.rename(&slot, &going) {
            Ok(()) => self
                .disk
                .sync_dir(&self.versions())
                .map_err(io_failure(&slot))?,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(io_failure(&slot)(e)),
        }
        self.disk.clear(&going).map_err(io_failure(&going))
    }

    fn mark(&self, version: &SiteId, release: Hash) -> Result<(), Failure> {
        let path = self.marker(version);
        let new = self.markers().join(format!(".{version}.new"));
        let text = serde_json::to_vec(&Marker {
            version: MARKER_VERSION,
            release,
        })
        .expect("a marker is plain JSON");
        let write = || -> io::Result<()> {
            self.disk.make_dirs(&self.markers())?;
            self.disk.clear(&new)?;
            let file = self.disk.make_file(new.as_path().into(), 0o666)?;
            self.disk.write_at(&file, &text, 0)?;
            self.disk.sync(&file)?;
            self.disk.rename(&new, &path)?;
            self.disk.sync_dir(&self.markers())?;
            self.disk.sync_dir(&self.product)
        };
        write().map_err(io_failure(&path))
    }

    /// Takes back that the slot of a version is complete, durably.
    fn unmark(&self, version: &SiteId) -> Result<(), Failure> {
        let path = self.marker(version);
        match self.disk.remove(&path) {
            Ok(()) => self
                .disk
                .sync_dir(&self.markers())
                .map_err(io_failure(&path)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io_failure(&path)(e)),
        }
    }
}

/// The names in a directory; none if it is not there.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let fail = io_failure(directory);
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail(e)),
    };
    listed
        .map(|entry| {
            Ok(entry
                .map_err(&fail)?
                .file_name()
                .to_string_lossy()
                .into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_and_written_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let version: SiteId = "1.2.3".parse().unwrap();
        let places = Places::new(&Disk::default(), dir.path(), &"app".parse().unwrap());
        fs::create_dir_all(places.slot(&version)).unwrap();
        let write = |release| {
            places.mark(&version, release).unwrap();
            fs::read(places.marker(&version)).unwrap()
        };
        let sample = write(Hash::of(b"release"));
        crate::golden::check("marker", &[("1.json".into(), sample)], |bytes| {
            fs::write(places.marker(&version), bytes).unwrap();
            let release = places.holds(&version).map_err(|e| e.reason)?;
            release.map(write).ok_or("no marker".to_owned())
        });
    }
}
