//! The loop that ties the brain to sockets and disks.
