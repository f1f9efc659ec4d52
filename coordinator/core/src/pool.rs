//! Values that many nodes have in common, held once.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Values held once each.
pub(crate) struct Pool<T>(BTreeSet<Arc<T>>);

impl<T> Default for Pool<T> {
    fn default() -> Pool<T> {
        Pool(BTreeSet::new())
    }
}

impl<T: Ord + Clone> Pool<T> {
    /// The one that equals `value`.
    pub fn share(&mut self, value: &T) -> Arc<T> {
        if let Some(held) = self.0.get(value) {
            return held.clone();
        }
        let shared = Arc::new(value.clone());
        self.0.insert(shared.clone());
        shared
    }
}
