//! The journal of systemd, through `journalctl`.
//!
//! Lives here: following it, and where we stopped. Never here: the journal's file format, which only systemd knows.
//!
//! The cursor is saved after the sink took the entries: a restart goes on there.

use crate::deliver::{Parcel, count, deliver, failed, fatal};
use crate::lines::{self, LineContext, severity_of_syslog};
use crate::process::Program;
use crate::supervise::{Surroundings, write_atomically};
use crate::{Attributes, LogEntry, Source, SourceContext, SourceError};
use async_trait::async_trait;
use nightshift_model::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

/// Fields that are asked for. (`__CURSOR` and `__REALTIME_TIMESTAMP` always come.)
const FIELDS: &str =
    "MESSAGE,PRIORITY,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT,SYSLOG_IDENTIFIER,_COMM,_HOSTNAME,TRACE_ID,SPAN_ID";

const BATCH: usize = 500;
const LINGER: Duration = Duration::from_millis(200);

/// The journal of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The program that reads it.
    pub program: String,
    /// Only these units; empty: all.
    pub units: Vec<String>,
    /// Longest message, bytes; of a longer one the rest is cut.
    #[schemars(range(min = 256, max = 1_048_576))]
    pub message_bytes_max: usize,
    /// What else is known of this machine, under OpenTelemetry's names.
    pub attributes: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            program: "journalctl".into(),
            units: Vec::new(),
            message_bytes_max: 64 << 10,
            attributes: BTreeMap::new(),
        }
    }
}

/// Whether this machine keeps a journal that we could read.
pub fn is_present() -> bool {
    let holds_some = |dir: &str| std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    find("journalctl").is_some() && (holds_some("/run/log/journal") || holds_some("/var/log/journal"))
}

/// A program by its path, or in `PATH`.
fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|p| p.is_file());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|p| p.is_file())
}

impl Config {
    /// Checks the values; starts nothing.
    ///
    /// # Errors
    /// No program is named, or a unit's name could be taken for an option.
    pub fn build(&self, name: &str, around: &Surroundings) -> Result<JournaldSource, SourceError> {
        if self.program.is_empty() {
            return Err(fatal("read the journal: name the program, such as journalctl, in `program`"));
        }
        if let Some(bad) = self.units.iter().find(|u| u.is_empty() || u.starts_with('-')) {
            return Err(fatal(format!("read the journal: `{bad}` in `units` is no name of a unit")));
        }
        Ok(JournaldSource {
            name: name.to_owned(),
            config: self.clone(),
            state: around.state_file("journald", name),
            host: around.host_name.clone(),
        })
    }
}

/// Follows the journal.
#[derive(Debug)]
pub struct JournaldSource {
    name: String,
    config: Config,
    state: PathBuf,
    host: String,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    version: u32,
    cursor: String,
}

fn load_cursor(path: &Path) -> Result<Option<String>, SourceError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(format!("read the cursor `{}`", path.display()), e)),
    };
    match serde_json::from_slice::<StateFile>(&bytes) {
        Ok(state) if state.version == 1 => Ok(Some(state.cursor)),
        Ok(state) => Err(failed(
            format!("read the cursor `{}`", path.display()),
            std::io::Error::other(format!("it has version {}, this program knows 1", state.version)),
        )),
        Err(e) => Err(failed(format!("read the cursor `{}`; remove the file to begin anew", path.display()), e)),
    }
}

#[async_trait]
impl Source for JournaldSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "journald"
    }

    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        let Some(path) = find(&self.config.program) else {
            return Err(fatal(format!(
                "read the journal: `{}` is not present on this machine; remove this source or install systemd",
                self.config.program
            )));
        };
        let mut command = Command::new(path);
        command.args(["--follow", "--output=json", "--all", "--no-pager", "--quiet"]);
        command.arg(format!("--output-fields={FIELDS}"));
        match load_cursor(&self.state)? {
            Some(cursor) => command.arg(format!("--after-cursor={cursor}")),
            // The first time: what comes from now on.
            None => command.arg("--lines=0"),
        };
        command.args(self.config.units.iter().map(|unit| format!("--unit={unit}")));
        // A JSON line holds the message with escapes (up to six bytes for one) and the other fields.
        let line_max = self.config.message_bytes_max * 6 + (16 << 10);
        let mut program =
            Program::start(command, line_max).map_err(|e| failed(format!("start `{}`", self.config.program), e))?;
        let said = program.stderr();
        context.health.healthy("following the journal");
        let (mut parcel, mut cursor, mut due, mut taken) = (Parcel::default(), None, None, 0u64);
        loop {
            let linger = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let (mut over, mut hand_in) = (false, false);
            tokio::select! {
                line = program.next_line() => match line.map_err(|e| failed("read from journalctl", e))? {
                    Some(line) => match self.entry(&line.bytes, context.clock.now()) {
                        Some((entry, at)) => {
                            parcel.logs.extend(entry);
                            cursor = Some(at);
                        }
                        None => {
                            let reason = if line.missing > 0 { "line_too_long" } else { "bad_line" };
                            count(&self.name, reason, 1, context);
                        }
                    },
                    None => over = true,
                },
                () = linger => hand_in = true,
                () = context.shutdown.cancelled() => {
                    program.stop().await;
                    return self.hand_in(&mut parcel, &mut cursor, context).await.map(|_| ());
                }
            }
            if cursor.is_some() && due.is_none() {
                due = Some(tokio::time::Instant::now() + LINGER);
            }
            if hand_in || over || parcel.len() >= BATCH {
                let Some(n) = self.hand_in(&mut parcel, &mut cursor, context).await? else {
                    program.stop().await;
                    return Ok(());
                };
                taken += n;
                due = None;
                context.health.healthy(format!("following the journal, {taken} entries taken"));
            }
            if over {
                let status = program.wait().await.map_err(|e| failed("wait for journalctl", e))?;
                let what = format!("follow the journal: `{}` ended with {status}; {said}", self.config.program);
                return Err(SourceError { what, source: None, fatal: false });
            }
        }
    }
}

impl JournaldSource {
    /// Hands in and then saves the cursor. `None`: shutdown came first; the same entries will be read again.
    async fn hand_in(
        &self,
        parcel: &mut Parcel,
        cursor: &mut Option<String>,
        context: &SourceContext,
    ) -> Result<Option<u64>, SourceError> {
        let Some(took) = deliver(&self.name, parcel, context).await? else { return Ok(None) };
        if let Some(cursor) = cursor.take() {
            let path = self.state.clone();
            let bytes =
                serde_json::to_vec(&StateFile { version: 1, cursor }).map_err(|e| failed("write the cursor", e))?;
            let saved = tokio::task::spawn_blocking(move || write_atomically(&path, &bytes)).await;
            saved.map_err(|e| failed("save the cursor", e))?.map_err(|e| failed("save the cursor", e))?;
        }
        Ok(Some(took.accepted))
    }

    /// One line of `journalctl --output=json`: the entry (none when its message is blank) and its cursor.
    fn entry(&self, bytes: &[u8], now: Timestamp) -> Option<(Option<LogEntry>, String)> {
        let fields: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        let text = |name: &str| fields.get(name).and_then(text_of).unwrap_or_default();
        let cursor = text("__CURSOR");
        if cursor.is_empty() {
            return None;
        }
        let context = LineContext { body_bytes_max: self.config.message_bytes_max, ..LineContext::at(now) };
        let parsed = lines::parse(&text("MESSAGE"), &context);
        let micros: Option<i64> = text("__REALTIME_TIMESTAMP").parse().ok();
        let at = micros.and_then(|us| us.checked_mul(1_000)).map(Timestamp);
        let priority = text("PRIORITY").parse::<u8>().map_or(0, severity_of_syslog);
        let host = match text("_HOSTNAME") {
            h if h.is_empty() => self.host.clone(),
            h => h,
        };
        let mut resource: Attributes = self.config.attributes.clone();
        resource.entry("host.name".into()).or_insert(host);
        let unit =
            [text("_SYSTEMD_UNIT"), text("_SYSTEMD_USER_UNIT")].into_iter().find(|u| !u.is_empty()).unwrap_or_default();
        if !unit.is_empty() {
            resource.insert("systemd.unit".into(), unit.clone());
        }
        // A unit that is a service of its own is one; log-in sessions and the like are the machine's.
        if let Some(service) = parsed.service.or_else(|| unit.strip_suffix(".service").map(service_name)) {
            resource.entry("service.name".into()).or_insert(service);
        }
        let stream = [text("SYSLOG_IDENTIFIER"), text("_COMM"), unit].into_iter().find(|s| !s.is_empty());
        let entry = LogEntry {
            resource: Arc::new(resource),
            at: at.or(parsed.at).unwrap_or(now),
            severity: priority.max(parsed.severity),
            trace_id: lines::hex_id(&text("TRACE_ID")).or(parsed.trace_id),
            span_id: lines::hex_id(&text("SPAN_ID")).or(parsed.span_id),
            stream: stream.unwrap_or_else(|| "journal".into()),
            body: parsed.body,
        };
        Some(((!entry.body.is_empty()).then_some(entry), cursor))
    }
}

/// `getty@tty1` is an instance of `getty`.
fn service_name(unit: &str) -> String {
    unit.split('@').next().unwrap_or(unit).to_owned()
}

/// A field: text, or a list of bytes where it is no UTF-8; of a field that comes twice the first.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(lines::clean(text.as_bytes())),
        Value::Array(list) if list.iter().all(Value::is_u64) => {
            let bytes: Option<Vec<u8>> = list.iter().map(|v| v.as_u64().and_then(|n| u8::try_from(n).ok())).collect();
            bytes.map(|b| lines::clean(&b))
        }
        Value::Array(list) => list.first().filter(|v| !v.is_array()).and_then(text_of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::BoundAddresses;

    fn source(dir: &Path) -> JournaldSource {
        let around = Surroundings {
            data_dir: dir.into(),
            host_name: "me".into(),
            bound: BoundAddresses::default(),
            kubernetes: None,
        };
        Config::default().build("journald", &around).unwrap()
    }

    #[test]
    fn entries() {
        let source = source(Path::new("/d"));
        let now = Timestamp::from_secs(1_767_225_600);
        let line =
            br#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1767225601000000","PRIORITY":"3","MESSAGE":"no space left",
            "_SYSTEMD_UNIT":"postgresql@15-main.service","SYSLOG_IDENTIFIER":"postgres","_HOSTNAME":"db1"}"#;
        let (entry, cursor) = source.entry(line, now).unwrap();
        let entry = entry.unwrap();
        assert_eq!((cursor.as_str(), entry.severity, entry.body.as_str()), ("s=1", 17, "no space left"));
        assert_eq!((entry.stream.as_str(), entry.at), ("postgres", Timestamp::from_secs(1_767_225_601)));
        assert_eq!((&*entry.resource["service.name"], &*entry.resource["host.name"]), ("postgresql", "db1"));
        assert_eq!(entry.resource["systemd.unit"], "postgresql@15-main.service");
        let line = br#"{"__CURSOR":"s=2","MESSAGE":[104,105,255],"PRIORITY":"99","_SYSTEMD_UNIT":"session-1.scope"}"#;
        let entry = source.entry(line, now).unwrap().0.unwrap();
        assert_eq!((entry.body.as_str(), entry.severity, entry.at), ("hi\u{fffd}", 0, now));
        assert!(!entry.resource.contains_key("service.name"));
    }

    #[test]
    fn bad_lines() {
        let source = source(Path::new("/d"));
        for line in ["", "x", "{}", "[]", r#"{"MESSAGE":"no cursor"}"#, r#"{"__CURSOR":7}"#] {
            assert!(source.entry(line.as_bytes(), Timestamp::EPOCH).is_none(), "{line}");
        }
        // Without a message there is nothing to hand in, but the cursor moves on.
        for line in [
            r#"{"__CURSOR":"c"}"#,
            r#"{"__CURSOR":"c","MESSAGE":null}"#,
            r#"{"__CURSOR":"c","MESSAGE":[[1],[2]]}"#,
            r#"{"__CURSOR":"c","MESSAGE":[999]}"#,
        ] {
            assert_eq!(source.entry(line.as_bytes(), Timestamp::EPOCH), Some((None, "c".into())), "{line}");
        }
    }

    #[test]
    fn bad_cursors_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.json");
        assert_eq!(load_cursor(&path).unwrap(), None);
        for (bytes, word) in [("{", "remove the file"), (r#"{"version":2,"cursor":"x"}"#, "read the cursor")] {
            std::fs::write(&path, bytes).unwrap();
            assert!(load_cursor(&path).unwrap_err().to_string().contains(word));
        }
    }

    #[test]
    fn bad_configurations_are_told() {
        let around = Surroundings {
            data_dir: "/d".into(),
            host_name: "h".into(),
            bound: BoundAddresses::default(),
            kubernetes: None,
        };
        let bad = Config { units: vec!["--output=x".into()], ..Config::default() };
        assert!(bad.build("j", &around).unwrap_err().to_string().contains("no name of a unit"));
        let bad = Config { program: String::new(), ..Config::default() };
        assert!(bad.build("j", &around).unwrap_err().fatal);
    }
}
