//! Programs that we start: in a process group of their own, their output bounded, and ended with all they started.

use crate::bounded::{BoundedLines, Line};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, ChildStdout, Command};

/// Lines of standard error that are kept, and the bytes of each.
const STDERR_LINES: usize = 5;
const STDERR_LINE_BYTES: usize = 300;

/// How long a program may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    group: Option<Pid>,
    lines: BoundedLines<ChildStdout>,
    stderr: Arc<Mutex<VecDeque<String>>>,
}

impl Program {
    /// Starts it; its standard input is empty.
    pub(crate) fn start(mut command: Command, line_max: usize) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let (stdout, stderr) = match (child.stdout.take(), child.stderr.take()) {
            (Some(out), Some(err)) => (out, err),
            _ => return Err(io::Error::other("the program has no output pipes")),
        };
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let keep = Arc::clone(&said);
        // Ends when the pipe closes: when the program, and all it started, are gone.
        tokio::spawn(async move {
            let mut lines = BoundedLines::new(stderr, STDERR_LINE_BYTES);
            while let Ok(Some(line)) = lines.next().await {
                let mut said = keep.lock();
                if said.len() == STDERR_LINES {
                    said.pop_front();
                }
                said.push_back(crate::lines::clean(&line.bytes));
            }
        });
        Ok(Self { child, group, lines: BoundedLines::new(stdout, line_max), stderr: said })
    }

    /// The next line that it prints; `None` when it closed its output. Cancelling loses nothing.
    pub(crate) async fn next_line(&mut self) -> io::Result<Option<Line>> {
        self.lines.next().await
    }

    /// Waits for its end; what it started and left behind ends too.
    pub(crate) async fn wait(mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.signal(Signal::KILL);
        self.group = None;
        Ok(status)
    }

    /// The last lines of its standard error, on one line.
    pub(crate) fn stderr(&self) -> Stderr {
        Stderr(Arc::clone(&self.stderr))
    }

    /// Asks it and all it started to end, and ends them if they do not.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::TERM);
        // The pipe is drained meanwhile: a program that is writing could not end otherwise.
        let ended = async {
            while let Ok(Some(_)) = self.lines.next().await {}
            let _status = self.child.wait().await;
        };
        let _in_time = tokio::time::timeout(GRACE, ended).await;
        self.signal(Signal::KILL);
        let _status = self.child.wait().await;
        self.group = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Fails when nobody is left in it, which is what we want.
            let _gone = kill_process_group(group, signal);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// What a program last said on its standard error.
#[derive(Debug, Clone)]
pub(crate) struct Stderr(Arc<Mutex<VecDeque<String>>>);

impl std::fmt::Display for Stderr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = self.0.lock();
        if said.is_empty() {
            return f.write_str("it said nothing on standard error");
        }
        write!(f, "it said: {}", said.iter().map(String::as_str).collect::<Vec<_>>().join(" | "))
    }
}
