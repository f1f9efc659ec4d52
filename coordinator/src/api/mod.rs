//! The HTTP API: its messages, its server and its client.
