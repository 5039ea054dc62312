//! The whole program, from an event to a settled delivery, on both databases.

mod headers;
mod isolation;
mod lifecycle;
mod replay;
mod retries;
mod road;
mod stopping;
