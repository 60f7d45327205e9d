//! Which arguments a program gets: fixed ones, and values in the place of whole arguments.
//!
//! A value is never a part of an argument, never split, never read by a shell. One that begins with `-` would be an
//! option to most programs, so it is refused unless the template says `--` before it.

use nightshift_model::{Action, ActionType, EntityId, Operation};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Longest value in bytes.
const VALUE_BYTES_MAX: usize = 4096;
/// Longest image or parameters as JSON, in bytes.
const JSON_BYTES_MAX: usize = 32 << 10;
/// Most arguments.
const ARGUMENTS_MAX: usize = 64;

/// One argument.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Argument {
    Fixed(String),
    Value(Word),
}

/// A value that may take the place of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Id,
    Cluster,
    Kind,
    Namespace,
    Name,
    Action,
    Operation,
    /// Of an observation: what is looked for.
    Of,
    Key,
    Fence,
    Incident,
    Deadline,
    /// All parameters as one JSON object.
    Params,
    Param(String),
    /// The image before as one JSON object.
    Before,
    BeforeFact(String),
}

const WORDS: &str = "{id} {cluster} {kind} {namespace} {name} {action} {operation} {of} {key} {fence} {incident} {deadline} \
    {params} {params.NAME} {before} {before.NAME}";

impl Word {
    fn read(text: &str) -> Option<Self> {
        let fact = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Some(match text {
            "id" => Self::Id,
            "cluster" => Self::Cluster,
            "kind" => Self::Kind,
            "namespace" => Self::Namespace,
            "name" => Self::Name,
            "action" => Self::Action,
            "operation" => Self::Operation,
            "of" => Self::Of,
            "key" => Self::Key,
            "fence" => Self::Fence,
            "incident" => Self::Incident,
            "deadline" => Self::Deadline,
            "params" => Self::Params,
            "before" => Self::Before,
            _ => match text.split_once('.')? {
                ("params", name) => Self::Param(fact(name)?),
                ("before", name) => Self::BeforeFact(fact(name)?),
                _ => return None,
            },
        })
    }

    /// Whether a look has it too: only what is known of the target.
    const fn is_of_target(&self) -> bool {
        matches!(
            self,
            Self::Id | Self::Cluster | Self::Kind | Self::Namespace | Self::Name | Self::Action | Self::Operation
        )
    }
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) program: String,
    arguments: Vec<Argument>,
}

impl Template {
    /// Reads `[program, argument …]` of an operation.
    pub(super) fn new(argv: &[String], operation: Operation) -> Result<Self, String> {
        let [program, rest @ ..] = argv else {
            return Err("name a program and its arguments".into());
        };
        if rest.len() > ARGUMENTS_MAX {
            return Err(format!("{} arguments, more than {ARGUMENTS_MAX}", rest.len()));
        }
        let mut arguments = Vec::with_capacity(rest.len());
        for text in rest {
            if text.contains('\0') {
                return Err("an argument holds a zero byte".into());
            }
            let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
            arguments.push(match inner {
                Some(inner) => {
                    let word =
                        Word::read(inner).ok_or_else(|| format!("`{text}` is no placeholder; one of {WORDS}"))?;
                    if operation == Operation::Prepare && !word.is_of_target() {
                        return Err(format!("`{text}`: a look knows the target only, not an order"));
                    }
                    Argument::Value(word)
                }
                // `--to={name}` looks as if it were replaced, and is not: better said now.
                None if text.contains('{') && text.contains('}') => {
                    return Err(format!("`{text}`: a placeholder is a whole argument; write it as one of its own"));
                }
                None => Argument::Fixed(text.clone()),
            });
        }
        Ok(Self { program: program.clone(), arguments })
    }

    /// The arguments for these values.
    pub(super) fn fill(&self, values: &Values<'_>) -> Result<Vec<String>, String> {
        let mut ended_options = false;
        let mut out = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            out.push(match argument {
                Argument::Fixed(text) => {
                    ended_options |= text == "--";
                    text.clone()
                }
                Argument::Value(word) => {
                    let value = values.get(word)?;
                    if value.starts_with('-') && !ended_options {
                        return Err(format!(
                            "a value begins with `-` and could be taken for an option ({word:?}); put `--` before it"
                        ));
                    }
                    value
                }
            });
        }
        Ok(out)
    }
}

/// What placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) action: ActionType,
    pub(super) target: &'a EntityId,
    pub(super) order: Option<&'a Action>,
}

impl Values<'_> {
    fn get(&self, word: &Word) -> Result<String, String> {
        let order = || self.order.ok_or_else(|| format!("{word:?} is known of orders only"));
        let text = match word {
            Word::Id => self.target.to_string(),
            Word::Cluster => self.target.cluster(),
            Word::Kind => self.target.kind_str().to_owned(),
            Word::Namespace => self.target.namespace(),
            Word::Name => self.target.name(),
            Word::Action => self.action.to_string(),
            Word::Operation => self.order.map_or("look", |o| o.operation.as_str()).to_owned(),
            Word::Of => crate::operation_of(&order()?.key).unwrap_or(order()?.operation).to_string(),
            Word::Key => order()?.key.clone(),
            Word::Fence => order()?.fence.to_string(),
            Word::Incident => order()?.incident.to_string(),
            Word::Deadline => order()?.deadline.to_rfc3339(),
            Word::Params => return json(&order()?.params),
            Word::Before => return json(&order()?.before),
            Word::Param(name) => plain(name, order()?.params.get(name))?,
            Word::BeforeFact(name) => plain(name, order()?.before.get(name))?,
        };
        if text.len() > VALUE_BYTES_MAX {
            return Err(format!("{word:?} has {} bytes, more than {VALUE_BYTES_MAX}", text.len()));
        }
        if let Some(c) = text.chars().find(|c| c.is_control()) {
            return Err(format!("{word:?} holds the control character {:?}", c));
        }
        Ok(text)
    }

    /// What programs are told beside their arguments: only what we made ourselves, nothing that telemetry named.
    pub(super) fn environment(&self, operation: Operation) -> BTreeMap<String, OsString> {
        let name = if operation == Operation::Prepare { "look" } else { operation.as_str() };
        let mut env = BTreeMap::from([("NIGHTSHIFT_OPERATION".to_owned(), name.into())]);
        if let Some(order) = self.order {
            env.insert("NIGHTSHIFT_KEY".into(), order.key.clone().into());
            env.insert("NIGHTSHIFT_FENCE".into(), order.fence.to_string().into());
            env.insert("NIGHTSHIFT_DEADLINE".into(), order.deadline.to_rfc3339().into());
        }
        env
    }
}

/// A value as one argument: texts as they are, numbers and truths as in JSON; what has parts as JSON.
fn plain(name: &str, value: Option<&Value>) -> Result<String, String> {
    match value {
        None | Some(Value::Null) => Err(format!("`{name}` is not told")),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value) => Ok(value.to_string()),
    }
}

fn json(image: &nightshift_model::Image) -> Result<String, String> {
    let text = serde_json::to_string(image).map_err(|e| format!("write the values as JSON: {e}"))?;
    if text.len() > JSON_BYTES_MAX {
        return Err(format!("the values have {} bytes as JSON, more than {JSON_BYTES_MAX}", text.len()));
    }
    Ok(text)
}

/// No bytes may panic, and no value becomes more than the one argument it was meant for. The first line is the template,
/// words apart; the rest are a parameter's value.
#[doc(hidden)]
pub fn fuzz_command_template(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (template, value) = text.split_once('\n').unwrap_or((&text, ""));
    let argv: Vec<String> = template.split(' ').map(str::to_owned).collect();
    for operation in [Operation::Apply, Operation::Prepare] {
        let Ok(template) = Template::new(&argv, operation) else { continue };
        let target = EntityId::new("c", "service", value, value);
        let order = super::template::order_for(&target, value);
        let values = Values { action: order.action, target: &target, order: Some(&order) };
        if let Ok(arguments) = template.fill(&values) {
            assert_eq!(arguments.len() + 1, argv.len(), "an argument was split or lost");
            let dashes = argv.iter().position(|a| a == "--").unwrap_or(argv.len());
            for (given, argument) in arguments.iter().zip(&argv[1..]).take(dashes.saturating_sub(1)) {
                assert!(!given.starts_with('-') || given == argument, "a value became an option: {given}");
            }
        }
    }
}

/// An order with one value that telemetry may have named.
fn order_for(target: &EntityId, value: &str) -> Action {
    let image: nightshift_model::Image = [("x".to_owned(), Value::from(value))].into();
    Action {
        key: "0-0-0-apply".into(),
        incident: nightshift_model::IncidentId(0),
        plan: nightshift_model::PlanHash::default(),
        step: 0,
        operation: Operation::Apply,
        attempt: 1,
        action: ActionType::RunJob,
        target: target.clone(),
        actuator: "command".into(),
        params: image.clone(),
        before: image,
        fence: 1,
        deadline: nightshift_model::Timestamp::EPOCH,
        synthetic: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    fn fill(words: &[&str], value: &str) -> Result<Vec<String>, String> {
        let target = EntityId::new("prod", "service", "shop", "payment");
        let order = order_for(&target, value);
        let values = Values { action: order.action, target: &target, order: Some(&order) };
        Template::new(&argv(words), Operation::Apply)?.fill(&values)
    }

    #[test]
    fn values_take_the_place_of_whole_arguments() {
        let words =
            ["/bin/x", "run", "{namespace}", "{name}", "{params.x}", "{fence}", "{operation}", "{of}", "{params}"];
        let got = fill(&words, "a b; $(c) `d` 'e' * \"f\"").unwrap();
        let want = ["run", "shop", "payment", "a b; $(c) `d` 'e' * \"f\"", "1", "apply", "apply"];
        assert_eq!(got[..7], want);
        assert_eq!(serde_json::from_str::<Value>(&got[7]).unwrap()["x"], "a b; $(c) `d` 'e' * \"f\"");
    }

    #[test]
    fn each_bad_template_or_value_is_refused() {
        for (words, value, want) in [
            (vec!["/bin/x", "{params.x}"], "-rf", "begins with `-`"),
            (vec!["/bin/x", "{name}", "{params.x}", "--"], "--force", "begins with `-`"),
            (vec!["/bin/x", "{params.x}"], "a\0b", "control character"),
            (vec!["/bin/x", "{params.x}"], "a\nb", "control character"),
            (vec!["/bin/x", "{params.y}"], "v", "`y` is not told"),
            (vec!["/bin/x", "--to={name}"], "v", "a placeholder is a whole argument"),
            (vec!["/bin/x", "{password}"], "v", "`{password}` is no placeholder"),
            (vec!["/bin/x", "{params.}"], "v", "is no placeholder"),
            (vec!["/bin/x", "{}"], "v", "is no placeholder"),
            (vec!["/bin/x", "a\0"], "v", "zero byte"),
            (vec![], "v", "name a program"),
        ] {
            let why = fill(&words, value).unwrap_err();
            assert!(why.contains(want), "{words:?} {value:?}: {why}");
        }
        assert!(fill(&["/bin/x", "{params.x}"], &"v".repeat(VALUE_BYTES_MAX + 1)).unwrap_err().contains("4097 bytes"));
        assert!(fill(&vec!["/bin/x"; ARGUMENTS_MAX + 2], "").unwrap_err().contains("65 arguments"));
        assert_eq!(fill(&["/bin/x", "--", "{params.x}"], "-rf").unwrap(), ["--", "-rf"]);
        // What the user wrote is theirs.
        assert_eq!(fill(&["/bin/x", "-v", "{params.x}"], "v").unwrap(), ["-v", "v"]);
        let look = Template::new(&argv(&["/bin/x", "{key}"]), Operation::Prepare).unwrap_err();
        assert!(look.contains("a look knows the target only"), "{look}");
    }

    #[test]
    fn the_corpus_is_replayed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/command_template");
        let mut seeds = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz_command_template(&std::fs::read(entry.unwrap().path()).unwrap());
            seeds += 1;
        }
        assert!(seeds >= 4);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_command_template(&bytes);
        }

        #[test]
        fn no_value_becomes_two_arguments_or_an_option(value in any::<String>()) {
            fuzz_command_template(format!("/bin/x {{params.x}} {{name}} {{before}} -- {{params.x}}\n{value}").as_bytes());
        }
    }
}
