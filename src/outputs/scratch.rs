//! What a renderer writes to: a file without a name, which is gone when the process is, whatever
//! ends it.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a file grew beyond what it may; seen from both sides of a renderer, whatever a library
/// between them makes of the error.
#[derive(Clone, Debug, Default)]
pub struct Overflow(Arc<AtomicBool>);

impl Overflow {
    /// Whether it did.
    pub fn happened(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A temporary file that takes so many bytes and no more.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    left: u64,
    overflow: Overflow,
}

impl Scratch {
    /// An empty one, on the disk of this directory.
    pub fn create(directory: &Path, most: u64, overflow: Overflow) -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile_in(directory)?,
            left: most,
            overflow,
        })
    }

    /// The file, to be read from its beginning.
    pub fn into_file(mut self) -> io::Result<File> {
        self.file.rewind()?;
        Ok(self.file)
    }
}

impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if count > self.left {
            self.overflow.0.store(true, Ordering::Relaxed);
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.file.write(bytes)?;
        self.left -= u64::try_from(written).unwrap_or(count);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::read_to_string;

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_told() {
        let directory = tempfile::tempdir().unwrap();
        let overflow = Overflow::default();
        let mut scratch = Scratch::create(directory.path(), 5, overflow.clone()).unwrap();
        scratch.write_all(b"12345").unwrap();
        assert!(!overflow.happened());
        scratch.write_all(b"6").unwrap_err();
        assert!(overflow.happened());
        assert_eq!(directory.path().read_dir().unwrap().count(), 0, "no name");
        assert_eq!(
            read_to_string(scratch.into_file().unwrap()).unwrap(),
            "12345"
        );
    }
}
