//! The controller on a pretend line, and what must hold whatever it is told.

mod line;
mod manners;
mod odd;
mod sharing;
