//! How fast the whole program is, beside the fastest that this machine could be.
//!
//! The program runs in its release build as a process of its own, and so does the receiver; RabbitMQ
//! and Postgres are private instances. All of them share the machine, and each rate is measured next
//! to `raw`, signed requests by the same client to the same receiver with nothing kept, so that a
//! machine that changes its speed changes both. `scripts/bench` is the way to start it.
//!
//! - [`rig`]: what a scenario stands on: servers, receiver, programs.
//! - [`scenarios`]: what is measured.
//! - [`receiver`], [`raw`], [`feeder`]: this same executable as another process.
//! - [`report`]: what is printed.

#![expect(
    clippy::expect_used,
    reason = "a measurement that cannot be made ends the run"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

mod child;
mod envelope;
mod feeder;
#[path = "../../tests/harness/keys.rs"]
mod keys;
mod machine;
#[path = "../../tests/harness/pollers/mod.rs"]
mod pollers;
mod process;
mod program;
mod publisher;
mod raw;
mod receiver;
mod report;
mod rig;
mod scenarios;
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../../tests/harness/services/mod.rs"]
mod services;
#[path = "../../tests/harness/sheet.rs"]
mod sheet;
mod stock;

use report::Report;
use rig::Rig;
use scenarios::Scenario;

/// Measures the whole program.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// What to measure; everything where nothing is named.
    scenarios: Vec<Scenario>,

    /// Also write the rows to this file, as a JSON array.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// A tenth of the work and three rounds: to see that it runs, not to be quoted.
    #[arg(long)]
    quick: bool,

    /// Rounds of each throughput scenario; their median is reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Only events with this many bytes of `data`, where a scenario measures several sizes.
    #[arg(long, value_name = "BYTES")]
    data_bytes: Option<usize>,

    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    match std::env::args().nth(1).as_deref() {
        Some(receiver::ROLE) => receiver::main(),
        Some(raw::ROLE) => raw::main(),
        Some(feeder::ROLE) => feeder::main(),
        _ => measure(Args::parse()),
    }
}

#[tokio::main]
async fn measure(args: Args) -> anyhow::Result<ExitCode> {
    let mut report = Report::new(args.json);
    eprintln!("{}", machine::description());
    let mut rig = Rig::new(args.quick, args.rounds, args.data_bytes)?;
    let chosen = if args.scenarios.is_empty() {
        Scenario::ALL.to_vec()
    } else {
        args.scenarios
    };
    for scenario in chosen {
        eprintln!("{scenario} …");
        let rows = scenarios::run(scenario, &mut rig).await?;
        report.add(rows)?;
    }
    report.print();
    Ok(ExitCode::SUCCESS)
}
