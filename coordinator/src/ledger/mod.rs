//! The append-only, hash-chained ledger in redb.
