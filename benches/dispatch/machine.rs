//! On what it was measured.

use std::fs;

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
