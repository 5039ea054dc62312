//! The whole program, from an event to a settled delivery, on both databases.

mod changed;
mod circuits;
mod headers;
mod isolation;
mod lifecycle;
mod ordering;
mod outage;
mod rates;
mod replay;
mod retries;
mod road;
mod stopping;
