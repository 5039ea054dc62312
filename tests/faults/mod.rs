//! What dies, and what must come out right all the same.

mod broker;
mod database;
mod killed;
mod ordered;
mod rendered;
mod replicas;
mod roles;
mod submitted;
