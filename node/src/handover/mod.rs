//! Two processes in the place of one: [`Courier`] has the steps of an installation taken by another process,
//! [`serve`] is that process. What they say to each other, and what may be done, is
//! [`node_core::handover`]'s and [`node_core::guard`]'s.

mod bytes;
mod courier;
mod frames;
mod office;
mod settings;
#[cfg(test)]
mod tests;

pub use courier::Courier;
pub use frames::{read, write};
pub use office::{HandoverError, serve};
pub use settings::{InstallerSettings, SetUp};
