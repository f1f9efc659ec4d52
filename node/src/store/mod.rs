//! What a node keeps on disk.

pub mod blobs;
pub mod records;
