//! What the kernel says of a process and its children.

use std::collections::HashMap;
use std::fs;
use std::ops::{Add, Sub};

/// Ticks of `/proc/PID/stat` in a second. The kernel shows user space this number on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process and its children have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time, in seconds.
    pub(crate) cpu_secs: f64,
    /// Bytes given to the disk.
    pub(crate) written_bytes: f64,
}

impl Usage {
    /// Of the process and all below it.
    pub(crate) fn of_tree(root: u32) -> Self {
        let children = children();
        let mut left = vec![root];
        let mut usage = Self::default();
        while let Some(process) = left.pop() {
            usage = usage + Self::of(process);
            left.extend(children.get(&process).into_iter().flatten());
        }
        usage
    }

    fn of(process: u32) -> Self {
        let io = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
        let written = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "))
            .and_then(|bytes| bytes.parse().ok());
        let ticks: f64 = match stat(process) {
            // User and system time, and those of children that have ended.
            Some(fields) => fields[11..=14]
                .iter()
                .filter_map(|ticks| ticks.parse::<f64>().ok())
                .sum(),
            None => 0.0,
        };
        Self {
            cpu_secs: ticks / TICKS_PER_SECOND,
            written_bytes: written.unwrap_or_default(),
        }
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpu_secs: self.cpu_secs + other.cpu_secs,
            written_bytes: self.written_bytes + other.written_bytes,
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            cpu_secs: self.cpu_secs - other.cpu_secs,
            written_bytes: self.written_bytes - other.written_bytes,
        }
    }
}

/// The fields of `/proc/PID/stat` behind the name, which may hold anything.
fn stat(process: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let behind = &text[text.rfind(')')? + 2..];
    Some(behind.split(' ').map(str::to_owned).collect())
}

fn children() -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(parent) = stat(process).and_then(|fields| fields[1].parse().ok()) {
            children.entry(parent).or_default().push(process);
        }
    }
    children
}

/// The memory of a process in megabytes: what is resident now, and the most that ever was.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn resident_mb(process: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or_default() as f64
            * 1_024.0
            / 1e6
    };
    (line("VmRSS:"), line("VmHWM:"))
}
