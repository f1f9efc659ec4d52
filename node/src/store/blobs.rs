//! Blobs on disk: a data file, an outboard file, and a claim once both are durable.
