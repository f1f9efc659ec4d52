//! The swarm against slow, obvious models, and in a small pretend site.

mod model;
mod rules;
mod site;
mod world;
