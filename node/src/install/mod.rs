//! The installers: what a step of the journal does to the machine.
