//! The swarm: which bytes to fetch, from whom, and when.
