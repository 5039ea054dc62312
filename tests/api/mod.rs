//! The API, asked over the network.

mod listener;
