//! The data plane: quinn, mutual TLS, bao-verified ranges.
