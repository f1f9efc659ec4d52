//! From files to index, pack and carrier, and back.
