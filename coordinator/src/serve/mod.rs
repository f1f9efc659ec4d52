//! `tidegate serve`: the running coordinator.
