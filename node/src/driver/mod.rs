//! The loop that ties the brain to sockets and disks. No policy lives here.
