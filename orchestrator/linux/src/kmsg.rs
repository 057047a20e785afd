//! The kernel's log as a place to write lines: there before any disk is, shown on the console by its level, and kept by pstore when the
//! machine dies.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;

/// A record of the kernel's log; longer lines are cut by us, not refused by the kernel.
const LINE_BYTES_MAX: usize = 900;

/// How bad a line is, as syslog(2) numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// 3.
    Error,
    /// 4.
    Warning,
    /// 6.
    Info,
    /// 7.
    Debug,
}

impl Level {
    fn number(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}

/// The kernel's log.
#[derive(Debug, Clone)]
pub struct Kmsg(Arc<File>);

impl Kmsg {
    /// Opens it.
    ///
    /// # Errors
    /// As the kernel gives them: `/dev` is not mounted, or we may not.
    pub fn open() -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open("/dev/kmsg")?;
        Ok(Self(Arc::new(file)))
    }

    /// For lines of one level.
    pub fn at(&self, level: Level) -> Lines {
        Lines {
            log: self.clone(),
            level,
        }
    }
}

/// Writes lines of one level.
#[derive(Debug)]
pub struct Lines {
    log: Kmsg,
    level: Level,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in bytes.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let line = line.get(..LINE_BYTES_MAX).unwrap_or(line);
            // One write is one record.
            let mut record = format!("<{}>coxswain: ", self.level.number()).into_bytes();
            record.extend_from_slice(line);
            record.push(b'\n');
            (&*self.log.0).write_all(&record)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_record() {
        let path = std::env::temp_dir().join(format!("kmsg-{}", std::process::id()));
        let log = Kmsg(Arc::new(File::create(&path).unwrap()));
        let long = "x".repeat(5000);
        write!(log.at(Level::Warning), "one\ntwo {long}\n").unwrap();
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.first(), Some(&"<4>coxswain: one"));
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX + 16));
    }
}
