//! The second serial port of a machine, where a shell answers: each line that it gets is a command, and `@end` with the exit code ends
//! what that says.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// What a command in the machine answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output and error.
    pub(crate) text: String,
}

/// The port.
#[derive(Debug)]
pub(crate) struct Serial(BufReader<UnixStream>);

impl Serial {
    /// Waits for QEMU.
    pub(crate) fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().expect("QEMU connects");
        Self(BufReader::new(stream))
    }

    /// Gives the shell a line.
    pub(crate) fn tell(&mut self, line: &str) {
        // It fails only when QEMU is gone, and then there is no answer either.
        writeln!(self.0.get_mut(), "{line}").ok();
    }

    /// Runs a line; `None` when there is no answer within `limit`, and then none can be asked for again.
    pub(crate) fn ask(&mut self, line: &str, limit: Duration) -> Option<Output> {
        let mut text = String::new();
        let code = self.listen(line, Instant::now() + limit, |next| {
            text.push_str(next);
            text.push('\n');
        })?;
        let text = text.trim_end_matches('\n').to_owned();
        Some(Output { code, text })
    }

    /// Runs a line and gives away each line of its answer as it comes. Its exit code; `None` when it has not ended at `end`, or the
    /// machine is gone.
    pub(crate) fn listen(
        &mut self,
        line: &str,
        end: Instant,
        mut each: impl FnMut(&str),
    ) -> Option<i32> {
        assert!(!line.contains('\n'), "one line is one command");
        self.tell(line);
        loop {
            let next = self.line(end)?;
            if let Some(code) = next.strip_prefix("@end ") {
                return Some(code.parse().expect("the shell tells a number"));
            }
            each(&next);
        }
    }

    /// Waits for a line that starts so; `None` when there is none within `limit`, or the machine is gone.
    pub(crate) fn line_starting(&mut self, start: &str, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        loop {
            let line = self.line(end)?;
            if line.starts_with(start) {
                return Some(line);
            }
        }
    }

    /// The next line; `None` when there is none before `end`, or the machine is gone.
    pub(crate) fn line(&mut self, end: Instant) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            let stream = self.0.get_ref();
            stream
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .expect("a time is accepted");
            match self.0.read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) if bytes.ends_with(b"\n") => {
                    let text = String::from_utf8_lossy(&bytes);
                    return Some(text.trim_end_matches(['\r', '\n']).to_owned());
                }
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {}
                Err(_) => return None,
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
