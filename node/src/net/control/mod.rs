//! The control plane: one libp2p swarm, behind admission.
