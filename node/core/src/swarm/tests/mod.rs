//! The swarm against slow, obvious models, and in a small pretend site.

mod body;
mod hours;
mod interrupted;
mod model;
mod obvious;
mod office;
mod rules;
mod site;
mod stallers;
mod views;
mod world;
