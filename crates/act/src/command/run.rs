//! One run of a program: its own process group, a cleared environment, bounded outputs, an end at the deadline.

use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// How long what a program left behind may hold its outputs open after it ended.
const DRAIN: Duration = Duration::from_millis(500);

/// What is the same for every run.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) working_dir: PathBuf,
    pub(super) env: BTreeMap<String, OsString>,
    pub(super) output_bytes_max: usize,
}

/// How a program ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Its exit code; `None` when it was killed.
    pub(super) code: Option<i32>,
    /// By whom, when it was.
    pub(super) killed: String,
    pub(super) stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// It printed more than is kept.
    pub(super) cut: bool,
}

impl Ended {
    /// The last line that it printed, of its errors rather than its output.
    pub(super) fn said(&self) -> String {
        let last = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.lines().rev().find(|l| !l.trim().is_empty()).map(|l| l.trim().to_owned())
        };
        last(&self.stderr).or_else(|| last(&self.stdout)).unwrap_or_default()
    }
}

/// Whether programs can be started as this user.
pub(super) fn may_become(uid: u32) -> Result<(), String> {
    let own = geteuid();
    if own.is_root() || own.as_raw() == uid {
        return Ok(());
    }
    Err(format!("programs cannot run as user {uid}: only root may change users, and this is user {}", own.as_raw()))
}

/// Ends the group of a program whatever becomes of the run: also when it is given up half way.
struct Group(Option<Pid>);

impl Group {
    fn kill(&self) {
        if let Some(group) = self.0 {
            // Fails when nobody is left in it, which is what we want.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end, or to the limit, when it and all that it started are killed.
///
/// # Errors
/// When it could not be started: nothing of it ran.
pub(super) async fn run(
    program: &str,
    arguments: &[String],
    env: &BTreeMap<String, OsString>,
    settings: &Settings,
    limit: Duration,
) -> io::Result<Ended> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&settings.env).envs(env).current_dir(&settings.working_dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
    // Changing the user also drops all supplementary groups.
    if let Some(gid) = settings.gid {
        command.gid(gid);
    }
    if let Some(uid) = settings.uid {
        command.uid(uid);
    }
    let mut child = command.spawn()?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let most = settings.output_bytes_max;
    let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = {
        let outputs = async { tokio::join!(stdout.read(out, most), stderr.read(err, most)) };
        tokio::pin!(outputs);
        let whole = async {
            let mut read = false;
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    _ = &mut outputs, if !read => read = true,
                }
            };
            // What it left behind ends with it.
            group.kill();
            if !read {
                let _given_up = tokio::time::timeout(DRAIN, &mut outputs).await;
            }
            status
        };
        tokio::time::timeout(limit, whole).await
    };
    let mut end = Ended { stdout: stdout.bytes, stderr: stderr.bytes, cut: stdout.cut, ..Ended::default() };
    match ended {
        Ok(Ok(status)) => {
            end.code = status.code();
            if end.code.is_none() {
                end.killed = format!("ended with {status}");
            }
        }
        Ok(Err(e)) => end.killed = format!("wait for it: {e}"),
        Err(_) => {
            group.kill();
            reap(&mut child).await;
            end.killed = format!("killed at its deadline, after {:.1} s", limit.as_secs_f64());
        }
    }
    Ok(end)
}

/// Waits for a program that was killed.
async fn reap(child: &mut Child) {
    let _gone = tokio::time::timeout(DRAIN, child.wait()).await;
}

/// The beginning of an output.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    cut: bool,
}

impl Kept {
    /// Reads to the end; what is more than is kept is thrown away, so that the program never waits for us.
    async fn read(&mut self, from: Option<impl AsyncRead + Unpin>, most: usize) {
        let Some(mut from) = from else { return };
        let mut piece = [0; 4096];
        while let Ok(n) = from.read(&mut piece).await {
            if n == 0 {
                return;
            }
            let room = (most - self.bytes.len()).min(n);
            self.bytes.extend_from_slice(&piece[..room]);
            self.cut |= room < n;
        }
    }
}
