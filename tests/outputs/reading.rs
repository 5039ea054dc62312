//! Workbooks, read by openpyxl: a program of others, in another language.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its work ends the test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// All sheets, as `read_xlsx.py` prints them.
pub(crate) fn read(workbook: &[u8]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("output.xlsx");
    fs::write(&path, workbook).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outputs/read_xlsx.py");
    let output = Command::new(python())
        .arg(script)
        .arg(path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A Python that has openpyxl.
fn python() -> PathBuf {
    let named = std::env::var_os("TEST_OPENPYXL_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/openpyxl/bin/python")
    });
    assert!(
        python.exists(),
        "{} is missing: run the tests by `scripts/test`, which installs openpyxl, or name a Python \
         that has it in TEST_OPENPYXL_PYTHON",
        python.display()
    );
    python
}
