//! Sockets: who is admitted, how nodes talk, how bytes move.

pub mod control;
pub mod data;
pub mod identity;
mod knocks;
