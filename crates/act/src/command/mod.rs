//! Orders as programs: an allow-list of programs, argument by argument, without a shell.
//!
//! Lives here: the configuration, and what each exit code means for "was it done?". Beside it: `template` (which
//! arguments a program gets), `run` (starting it, bounding it, ending it with all it started).
//! Never here: what any program does.

mod run;
mod template;

pub use template::fuzz_command_template;

use crate::executor::one_line;
use crate::{ActError, Actuator, Answer, BuildError, Declares, IMAGE_BYTES_MAX};
use async_trait::async_trait;
use nightshift_model::{Action, ActionOutcome, ActionType, Clock, EntityId, Image, Operation};
use run::{Ended, Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use template::{Template, Values};

/// Done.
pub const EXIT_DONE: i32 = 0;
/// Of an observation: it was not done.
pub const EXIT_NOT_DONE: i32 = 1;
/// Certainly not done, trying again may help (`EX_TEMPFAIL` of sysexits.h).
pub const EXIT_TRY_AGAIN: i32 = 75;

/// Allow-listed programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CommandConfig {
    /// Programs that may be started, by whole path. Nothing else ever is, and no shell unless it is named here.
    pub programs: Vec<String>,
    /// What is started for what.
    pub actions: Vec<CommandAction>,
    /// The same key twice has the effect of once: the programs see to it.
    pub idempotent: bool,
    /// User that programs run as, by number. Needs root; without it the actuator is refused.
    #[schemars(range(min = 1, max = 4_294_967_294_u32))]
    pub uid: Option<u32>,
    /// Group that programs run as, by number; that of `uid` if not told. Needs root.
    #[schemars(range(min = 1, max = 4_294_967_294_u32))]
    pub gid: Option<u32>,
    /// Folder that they start in, by whole path.
    pub working_dir: String,
    /// Names of variables of our own environment that they may see. No others: they hold secrets.
    pub pass_env: Vec<String>,
    /// Variables that are set for them; PATH is `/usr/bin:/bin` unless told.
    pub env: BTreeMap<String, String>,
    /// Most that is kept of each of their outputs, bytes; the rest is read and thrown away.
    #[schemars(range(min = 256, max = 1_048_576))]
    pub output_bytes_max: usize,
    /// Seconds for a look that is no part of an order. Orders have the deadline of their step.
    #[schemars(range(min = 1, max = 60))]
    pub look_secs: u64,
}

impl Default for CommandConfig {
    fn default() -> Self {
        Self {
            programs: Vec::new(),
            actions: Vec::new(),
            idempotent: false,
            uid: None,
            gid: None,
            working_dir: "/".into(),
            pass_env: Vec::new(),
            env: BTreeMap::new(),
            output_bytes_max: 64 << 10,
            look_secs: 5,
        }
    }
}

/// The programs of one action type: each a program and its arguments. An argument that is a placeholder as a whole
/// (`{name}`, `{namespace}`, `{params.replicas}` …) is replaced; see `docs/actuators.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandAction {
    /// Which.
    pub action: ActionType,
    /// Does it.
    pub apply: Vec<String>,
    /// Reads the target: prints one JSON object of facts. Without it nothing can be put back to what it was.
    #[serde(default)]
    pub look: Vec<String>,
    /// Tries without effect; without it there is no dry-run.
    #[serde(default)]
    pub dry_run: Vec<String>,
    /// Does a part first; without it there is no canary.
    #[serde(default)]
    pub canary: Vec<String>,
    /// Exit 0: the operation of this key was done; 1: it was not. Without it nothing is observed.
    #[serde(default)]
    pub observe: Vec<String>,
    /// Takes it back; without it nothing is taken back.
    #[serde(default)]
    pub undo: Vec<String>,
}

/// The templates of one action type.
#[derive(Debug)]
struct Programs {
    by: BTreeMap<Operation, Template>,
}

impl CommandConfig {
    /// Checks the values; starts nothing.
    ///
    /// # Errors
    /// What is wrong, with its key.
    pub fn build(&self, clock: Arc<dyn Clock>) -> Result<Command, BuildError> {
        let bad = |key: String, what: String| BuildError { key, what };
        for (i, program) in self.programs.iter().enumerate() {
            if !is_whole_path(program) {
                return Err(bad(format!("programs.{i}"), format!("`{program}` is no whole path; begin it with /")));
            }
        }
        if !is_whole_path(&self.working_dir) {
            return Err(bad("working_dir".into(), "it is no whole path; begin it with /".into()));
        }
        let variable = |n: &&String| n.is_empty() || n.contains(['=', '\0']);
        if let Some(name) = self.env.keys().chain(&self.pass_env).find(variable) {
            return Err(bad("env".into(), format!("`{name}` is no name of an environment variable")));
        }
        if self.env.values().any(|v| v.contains('\0')) {
            return Err(bad("env".into(), "a value holds a zero byte".into()));
        }
        if self.gid.is_some() && self.uid.is_none() {
            return Err(bad("gid".into(), "a group needs a user: set `uid` too".into()));
        }
        if let Some(uid) = self.uid {
            run::may_become(uid).map_err(|what| bad("uid".into(), what))?;
        }
        if self.actions.is_empty() {
            return Err(bad("actions".into(), "name what it does".into()));
        }
        let mut actions = BTreeMap::new();
        for (i, configured) in self.actions.iter().enumerate() {
            let CommandAction { action, apply, look, dry_run, canary, observe, undo } = configured;
            if *action == ActionType::ManualReview {
                return Err(bad(format!("actions.{i}.action"), "manual_review is done by people".into()));
            }
            let mut by = BTreeMap::new();
            for (operation, key, argv) in [
                (Operation::Apply, "apply", apply),
                (Operation::Prepare, "look", look),
                (Operation::DryRun, "dry_run", dry_run),
                (Operation::Canary, "canary", canary),
                (Operation::Observe, "observe", observe),
                (Operation::Undo, "undo", undo),
            ] {
                if argv.is_empty() && operation != Operation::Apply {
                    continue;
                }
                let key = format!("actions.{i}.{key}");
                let template = Template::new(argv, operation).map_err(|what| bad(key.clone(), what))?;
                if !self.programs.contains(&template.program) {
                    let what = format!("`{}` is not in `programs`; add it there to allow it", template.program);
                    return Err(bad(key, what));
                }
                by.insert(operation, template);
            }
            if actions.insert(*action, Programs { by }).is_some() {
                return Err(bad(format!("actions.{i}.action"), format!("{action} is there twice")));
            }
        }
        let declares = |operation| actions.values().all(|p: &Programs| p.by.contains_key(&operation));
        let declares = Declares {
            idempotent: self.idempotent,
            observable: declares(Operation::Observe),
            dry_run: declares(Operation::DryRun),
            canary: declares(Operation::Canary),
        };
        let settings = Settings {
            uid: self.uid,
            gid: self.gid.or(self.uid),
            working_dir: self.working_dir.clone().into(),
            env: self.environment(),
            output_bytes_max: self.output_bytes_max.clamp(256, 1 << 20),
        };
        let look = Duration::from_secs(self.look_secs.clamp(1, 60));
        Ok(Command { actions, declares, settings, look, clock, fence: AtomicU64::new(0) })
    }

    /// All that programs see of an environment.
    fn environment(&self) -> BTreeMap<String, std::ffi::OsString> {
        let mut env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".into())]);
        for name in &self.pass_env {
            if let Some(value) = std::env::var_os(name) {
                env.insert(name.clone(), value);
            }
        }
        env.extend(self.env.iter().map(|(k, v)| (k.clone(), v.into())));
        env
    }
}

fn is_whole_path(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|part| part == "..")
}

/// Starts programs.
pub struct Command {
    actions: BTreeMap<ActionType, Programs>,
    declares: Declares,
    settings: Settings,
    look: Duration,
    clock: Arc<dyn Clock>,
    /// The highest that was seen.
    fence: AtomicU64,
}

impl Command {
    fn template(&self, operation: Operation, action: ActionType) -> Option<&Template> {
        self.actions.get(&action)?.by.get(&operation)
    }

    async fn start(&self, operation: Operation, values: &Values<'_>, limit: Duration) -> Result<Ended, ActError> {
        let template = self.template(operation, values.action).ok_or_else(|| {
            ActError::Refused(format!("{operation} of {}: no program is configured for it", values.action))
        })?;
        let arguments = template.fill(values).map_err(ActError::Refused)?;
        let env = values.environment(operation);
        run::run(&template.program, &arguments, &env, &self.settings, limit).await.map_err(|e| {
            let why = format!("start `{}`: {e}", template.program);
            match e.kind() {
                // What is not there, or must not be run, will not be there in a second either.
                ErrorKind::NotFound | ErrorKind::PermissionDenied => ActError::Refused(why),
                _ => ActError::NotDone(why),
            }
        })
    }
}

/// What the end of a program means for "was it done?": the table of `docs/actuators.md`.
fn judge(ended: &Ended, operation: Operation) -> Result<Answer, ActError> {
    let said = if ended.said().is_empty() { "it said nothing".to_owned() } else { one_line(&ended.said()) };
    let answer = |outcome| Ok(Answer { outcome, detail: said.clone(), image: Image::new() });
    match (ended.code, operation) {
        (Some(EXIT_DONE), Operation::Observe) => answer(ActionOutcome::FoundDone),
        (Some(EXIT_DONE), _) => answer(ActionOutcome::Done),
        (Some(EXIT_TRY_AGAIN), _) => Err(ActError::NotDone(format!("exit 75, try again: {said}"))),
        (Some(EXIT_NOT_DONE), Operation::Observe) => answer(ActionOutcome::Failed),
        (Some(code), Operation::Observe) => {
            Ok(Answer { outcome: ActionOutcome::Unknown, detail: format!("exit {code}: {said}"), image: Image::new() })
        }
        (Some(code), Operation::Canary | Operation::Apply | Operation::Undo) => {
            Ok(Answer { outcome: ActionOutcome::Failed, detail: format!("exit {code}: {said}"), image: Image::new() })
        }
        (Some(code), Operation::Prepare | Operation::DryRun) => Err(ActError::Refused(format!("exit {code}: {said}"))),
        (None, operation) => {
            let why = format!("{}: {said}", ended.killed);
            Err(if operation.changes() { ActError::Uncertain(why) } else { ActError::NotDone(why) })
        }
    }
}

#[async_trait]
impl Actuator for Command {
    fn kind(&self) -> &'static str {
        "command"
    }

    fn declares(&self) -> Declares {
        self.declares
    }

    fn handles(&self, action: ActionType, _target: &EntityId) -> bool {
        self.actions.contains_key(&action)
    }

    async fn look(&self, target: &EntityId, action: ActionType) -> Result<Image, ActError> {
        if self.template(Operation::Prepare, action).is_none() {
            return match self.handles(action, target) {
                true => Ok(Image::new()),
                false => Err(ActError::Refused(format!("look for {action}: no program is configured for it"))),
            };
        }
        let values = Values { action, target, order: None };
        let ended = self.start(Operation::Prepare, &values, self.look).await?;
        judge(&ended, Operation::Prepare)?;
        read_image(&ended.stdout, ended.cut).map_err(ActError::NotDone)
    }

    async fn perform(&self, action: &Action) -> Result<Answer, ActError> {
        let operation = action.operation;
        if operation == Operation::Prepare || action.synthetic {
            return Err(ActError::Refused(format!("{operation} of {}: that is no order for a program", action.action)));
        }
        let seen = self.fence.fetch_max(action.fence, Ordering::SeqCst);
        if action.fence < seen {
            let own = action.fence;
            return Err(ActError::Refused(format!("carry out an order of fence {own}: {seen} was seen")));
        }
        let left = action.deadline.since(self.clock.now());
        if left.is_zero() {
            return Err(ActError::NotDone(format!("begin {operation}: its deadline has passed")));
        }
        let values = Values { action: action.action, target: &action.target, order: Some(action) };
        let ended = self.start(operation, &values, left).await?;
        judge(&ended, operation)
    }
}

/// Reads what a look printed: one JSON object of facts.
fn read_image(stdout: &[u8], cut: bool) -> Result<Image, String> {
    if cut || stdout.len() > IMAGE_BYTES_MAX {
        return Err("read the target: the program printed more than is taken".into());
    }
    serde_json::from_slice(stdout).map_err(|e| {
        format!("read the target: the program printed no JSON object (line {}, column {})", e.line(), e.column())
    })
}

/// No bytes may panic.
#[doc(hidden)]
pub fn fuzz_command_look(bytes: &[u8]) {
    let _ = read_image(bytes, false);
}

#[cfg(test)]
mod tests;
