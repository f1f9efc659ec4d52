//! Records and documents in redb.
