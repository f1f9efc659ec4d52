//! How a machine becomes a node: the token, the pinned server, the pinned root.
