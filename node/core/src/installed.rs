//! What is installed of each product, and what to go back to.

use std::collections::BTreeMap;

use protocol::{Hash, SiteId};

use crate::contract::{InstalledRecord, Record, RecordKey};
use crate::outbox::Outbox;

/// The releases on this machine.
#[derive(Default)]
pub(crate) struct Installed {
    products: BTreeMap<SiteId, InstalledRecord>,
}

impl Installed {
    /// A record that was remembered.
    pub(crate) fn restore(&mut self, record: InstalledRecord) {
        self.products.insert(record.product.clone(), record);
    }

    /// The release that is installed of a product.
    pub(crate) fn release(&self, product: &SiteId) -> Option<Hash> {
        self.products.get(product).map(|r| r.release)
    }

    /// Releases of a product that are on this disk.
    pub(crate) fn on_disk(&self, product: &SiteId) -> impl Iterator<Item = Hash> {
        let record = self.products.get(product);
        record
            .into_iter()
            .flat_map(|r| [Some(r.release), r.previous])
            .flatten()
    }

    /// Every release that is installed.
    pub(crate) fn current(&self) -> impl Iterator<Item = Hash> + '_ {
        self.products.values().map(|r| r.release)
    }

    /// Every release that is installed or can be gone back to.
    pub(crate) fn all(&self) -> impl Iterator<Item = Hash> + '_ {
        self.products
            .values()
            .flat_map(|r| [Some(r.release), r.previous])
            .flatten()
    }

    /// `release` is what is installed now; `previous` can be gone back to.
    pub(crate) fn commit(
        &mut self,
        product: &SiteId,
        release: Hash,
        previous: Option<Hash>,
        out: &mut Outbox,
    ) {
        let previous = previous.filter(|p| *p != release);
        let record = InstalledRecord {
            product: product.clone(),
            release,
            previous,
        };
        out.remember(Record::Installed(record.clone()));
        self.products.insert(product.clone(), record);
    }

    /// `release` was taken back to `previous`, or to nothing; no change if another is installed.
    pub(crate) fn take_back(
        &mut self,
        product: &SiteId,
        release: Hash,
        previous: Option<Hash>,
        out: &mut Outbox,
    ) -> bool {
        if self.release(product) != Some(release) {
            return false;
        }
        match previous.filter(|p| *p != release) {
            Some(previous) => self.commit(product, previous, None, out),
            None => {
                self.products.remove(product);
                out.forget(RecordKey::Installed(product.clone()));
            }
        }
        true
    }

    /// What is installed of a product, and what stood there before.
    pub(crate) fn record(&self, product: &SiteId) -> Option<&InstalledRecord> {
        self.products.get(product)
    }
}
