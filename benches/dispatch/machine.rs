//! On what it was measured.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use forge_dispatch::clock::{Clock, SystemClock};

use crate::report::median;

/// What the file system of memory says that it is (`statfs(2)`).
const TMPFS: u32 = 0x0102_1994;

/// Processor, memory and kernel, in a line.
pub(crate) fn description() -> String {
    let of = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map_or_else(
                || "unknown".to_owned(),
                |(_, value)| value.trim().to_owned(),
            )
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} × {}, {} of memory, Linux {}",
        cores,
        of("/proc/cpuinfo", "model name"),
        of("/proc/meminfo", "MemTotal"),
        kernel.trim()
    )
}

/// How long `fdatasync` of an appended page takes in this directory, in words. An error where what is
/// written is not kept on a disk: every commit would be free.
pub(crate) fn disk(directory: &Path) -> anyhow::Result<String> {
    let kind = rustix::fs::statfs(directory)?.f_type;
    anyhow::ensure!(
        u32::try_from(kind) != Ok(TMPFS),
        "{} is in memory: set TMPDIR to a directory on a disk",
        directory.display()
    );
    let mut file = File::create(directory.join("sync"))?;
    let mut taken = Vec::new();
    for _ in 0..20 {
        file.write_all(&[1; 4096])?;
        let begun = SystemClock.monotonic();
        file.sync_data()?;
        let took = SystemClock.monotonic().saturating_sub(begun);
        taken.push(took.as_secs_f64() * 1_000.0);
    }
    Ok(format!("fdatasync {:.1} ms", median(&taken)))
}
