//! The `forge-dispatch` program.

fn main() {}
