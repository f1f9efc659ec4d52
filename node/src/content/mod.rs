//! From files to index, pack and carrier, and back.
//!
//! [`build`] is the way in: a directory becomes three blobs. The way out has three rooms: [`frames`]
//! unfolds a carrier into the pack, [`reuse`] copies what older packs already hold, and [`tree`]
//! writes the files. [`read_index`] stands between them: whatever comes from the network passes
//! `Index::check` there before anything relies on it.

pub mod build;
mod chunks;
mod cutter;
pub mod frames;
mod index;
mod links;
mod packer;
pub mod reuse;
pub mod tree;
mod walk;

#[cfg(test)]
pub(crate) mod tests;

pub use index::{ReadError, read_index};
