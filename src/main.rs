//! The `forge-dispatch` program: parse, run, exit code. The rest is in the library.

use std::process::ExitCode;

use forge_dispatch::{cli, config};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(std::env::args_os(), config::load::environment()).await
}
