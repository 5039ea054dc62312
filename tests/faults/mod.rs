//! What dies, and what must come out right all the same.

mod broker;
mod database;
mod killed;
mod replicas;
mod submitted;
