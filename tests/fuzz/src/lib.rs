//! The decoders alone, without the programs that the other tests run.

#[path = "../../src/decoders.rs"]
pub mod decoders;
