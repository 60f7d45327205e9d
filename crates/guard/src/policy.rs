//! Rego policies: compiled once, asked for each plan, and a denial whenever they cannot answer.

use crate::input::PolicyInput;
use nightshift_model::Decision;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Longest policy file, in bytes.
pub const POLICY_BYTES_MAX: usize = 256 << 10;
/// Most policy files, tests included.
pub const POLICIES_MAX: usize = 1_000;
/// Longest input document, in bytes: a plan of a thousand steps is smaller.
pub const INPUT_BYTES_MAX: usize = 4 << 20;
/// Most things that one rule may say.
const SAID_MAX: usize = 100;
/// Longest line of one that is kept, in characters.
const WHY_CHARS_MAX: usize = 500;

/// What the rules of a policy are called, strictest first: each is a set of texts.
pub(crate) const VERBS: [Decision; 3] = [Decision::Deny, Decision::Monitor, Decision::Ask];

/// One thing that a policy said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Said {
    /// `PACKAGE.RULE`, as in `nightshift.database.ask`.
    pub rule: String,
    /// What it wants.
    pub decision: Decision,
    /// Why, one line.
    pub why: String,
    /// Whether a person may override it.
    pub overridable: bool,
}

/// What is wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {what}")]
pub struct PolicyProblem {
    /// Name of the file.
    pub file: String,
    /// What is wrong, as the compiler says it.
    pub what: String,
}

/// How one test of a policy ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestResult {
    /// File that holds it.
    pub file: String,
    /// Its rule, with its package.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What went wrong, when it did not merely turn out false.
    pub error: Option<String>,
}

/// A set of compiled policies. Cheap to clone; never changes.
#[derive(Clone)]
pub struct Policies(Arc<Compiled>);

struct Compiled {
    engine: Engine,
    /// Package, verb, path of the rule; sorted.
    rules: Vec<(String, Decision, String)>,
    /// Name and text of test files.
    tests: Vec<(String, String)>,
    files: Vec<String>,
    timeout: Duration,
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Policies").field(&self.0.files).finish()
    }
}

macro_rules! shipped {
    ($($name:literal)*) => {
        /// The policies that ship, with their tests: name of the file, text.
        pub const SHIPPED: &[(&str, &str)] = &[$(
            (concat!($name, ".rego"), include_str!(concat!("../../../policies/", $name, ".rego"))),
            (concat!($name, "_test.rego"), include_str!(concat!("../../../policies/", $name, "_test.rego"))),
        )*];
    };
}

shipped! { "budget" "cooldown" "database" "freeze" "namespaces" "pods" "replicas" "risk" "self_heal" }

fn engine(timeout: Duration) -> Engine {
    let mut engine = Engine::new();
    // The one builtin of this build that is no function of its arguments.
    let no_chance = |_: Vec<Value>| {
        Err(std::io::Error::other("rand.intn is not there: a policy is a function of its input").into())
    };
    let added = engine.add_extension("rand.intn".into(), 2, Box::new(no_chance));
    debug_assert!(added.is_ok(), "an engine has no extensions at first");
    // An error of a builtin is an error and not "undefined": undefined would mean that the rule says nothing.
    engine.set_strict_builtin_errors(true);
    engine.set_gather_prints(true);
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: timeout,
        check_interval: NonZeroU32::MIN.saturating_add(99),
    });
    engine
}

impl Policies {
    /// No policies at all: only the built-in limits speak.
    pub fn none() -> Self {
        Self(Arc::new(Compiled {
            engine: engine(Duration::from_millis(250)),
            rules: Vec::new(),
            tests: Vec::new(),
            files: Vec::new(),
            timeout: Duration::from_millis(250),
        }))
    }

    /// The policies that ship, but for those that are disabled (by the name of their file without `.rego`), and the
    /// user's own beside them.
    ///
    /// # Errors
    /// Everything that is wrong with any file, also a disabled name that does not exist.
    pub fn with_shipped(
        disabled: &[String],
        own: &[(String, String)],
        timeout: Duration,
    ) -> Result<Self, Vec<PolicyProblem>> {
        let stem = |file: &str| file.trim_end_matches(".rego").trim_end_matches("_test").to_owned();
        let mut problems: Vec<PolicyProblem> = disabled
            .iter()
            .filter(|d| !SHIPPED.iter().any(|(file, _)| stem(file) == **d))
            .map(|d| PolicyProblem {
                file: "guard.policies.disabled".into(),
                what: format!("`{d}` is no policy that ships; correct or remove the name"),
            })
            .collect();
        let shipped = SHIPPED.iter().filter(|(file, _)| !disabled.contains(&stem(file)));
        let mut files: Vec<(String, String)> =
            shipped.map(|(file, text)| (format!("shipped/{file}"), (*text).to_owned())).collect();
        files.extend(own.iter().cloned());
        match Self::compile(&files, timeout) {
            Ok(policies) if problems.is_empty() => Ok(policies),
            Ok(_) => Err(problems),
            Err(more) => {
                problems.extend(more);
                Err(problems)
            }
        }
    }

    /// Compiles files: name, text. Files that end in `_test.rego` hold tests and are compiled when those are run.
    ///
    /// # Errors
    /// Everything that is wrong with any of them; then none of them counts, and the caller keeps what it had.
    pub fn compile(files: &[(String, String)], timeout: Duration) -> Result<Self, Vec<PolicyProblem>> {
        let mut problems = Vec::new();
        if files.len() > POLICIES_MAX {
            let what = format!("{} files are more than {POLICIES_MAX}", files.len());
            return Err(vec![PolicyProblem { file: "policies".into(), what }]);
        }
        let mut sorted: Vec<&(String, String)> = files.iter().collect();
        sorted.sort();
        let mut engine = engine(timeout);
        let mut packages: BTreeMap<String, String> = BTreeMap::new();
        let mut tests = Vec::new();
        for (file, text) in sorted {
            let mut wrong = |what: String| problems.push(PolicyProblem { file: file.clone(), what });
            if text.len() > POLICY_BYTES_MAX {
                wrong(format!("{} bytes are more than {POLICY_BYTES_MAX}", text.len()));
            } else if file.ends_with("_test.rego") {
                tests.push((file.clone(), text.clone()));
            } else {
                match engine.add_policy(file.clone(), text.clone()) {
                    Ok(package) => drop(packages.entry(package).or_insert_with(|| file.clone())),
                    Err(e) => wrong(one_line(&e)),
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut rules = Vec::new();
        if !packages.is_empty() {
            // Scheduling, and with it the search for unsafe variables, happens at the first evaluation.
            engine.set_input(Value::new_object());
            if let Err(e) = engine.eval_query("true".into(), false) {
                return Err(vec![PolicyProblem { file: "policies".into(), what: one_line(&e) }]);
            }
        }
        for (package, file) in &packages {
            let name = package.strip_prefix("data.").unwrap_or(package);
            let before = rules.len();
            for verb in VERBS {
                let path = format!("{package}.{verb}");
                if is_rule(&mut engine, &path) {
                    problems.extend(
                        tried(&mut engine, name, verb, &path).map(|what| PolicyProblem { file: file.clone(), what }),
                    );
                    rules.push((name.to_owned(), verb, path));
                }
            }
            if rules.len() == before && !name.split('.').any(|part| part == "lib") {
                problems.push(PolicyProblem {
                    file: file.clone(),
                    what: format!(
                        "package {name} has none of the rules deny, ask and monitor, so it would never be asked; \
                         a package of helpers has a part called `lib`"
                    ),
                });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let files = files.iter().map(|(file, _)| file.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        Ok(Self(Arc::new(Compiled { engine, rules, tests, files, timeout })))
    }

    /// The files that it was made of.
    pub fn files(&self) -> &[String] {
        &self.0.files
    }

    /// Rules that are asked, `PACKAGE.RULE`.
    pub fn rules(&self) -> impl Iterator<Item = String> + '_ {
        self.0.rules.iter().map(|(package, verb, _)| format!("{package}.{verb}"))
    }

    /// Asks every rule. What cannot answer (an error, a timeout, a value of another type) denies, and says so.
    pub fn evaluate(&self, input: &PolicyInput) -> Vec<Said> {
        let value = match serde_json::to_string(input) {
            Ok(json) if json.len() > INPUT_BYTES_MAX => {
                return vec![broken(
                    "input",
                    format!("input of {} bytes is longer than {INPUT_BYTES_MAX}", json.len()),
                )];
            }
            Ok(json) => Value::from_json_str(&json).map_err(|e| one_line(&e)),
            Err(e) => Err(e.to_string()),
        };
        match value {
            Ok(value) => self.evaluate_value(value),
            Err(e) => vec![broken("input", format!("input cannot be written: {e}"))],
        }
    }

    fn evaluate_value(&self, input: Value) -> Vec<Said> {
        if self.0.rules.is_empty() {
            return Vec::new();
        }
        let mut engine = self.0.engine.clone();
        engine.set_input(input);
        let mut out = Vec::new();
        for (package, verb, path) in &self.0.rules {
            let said = engine
                .eval_rule(path.clone())
                .map_err(|e| self.failure(&e))
                .and_then(|value| said_of(package, *verb, &value));
            match said {
                Ok(said) => out.extend(said),
                Err(why) => out.push(broken(&format!("{package}.{verb}"), why)),
            }
        }
        out
    }

    fn failure(&self, error: &impl fmt::Display) -> String {
        let text = one_line(error);
        if is_timeout(&text) { format!("took longer than {} ms", self.0.timeout.as_millis()) } else { text }
    }

    /// Runs the tests: every rule `test_…` of a file `…_test.rego` must be true. A file without a test is a failure, so
    /// that a misspelt name is seen.
    pub fn run_tests(&self) -> Vec<TestResult> {
        let mut out = Vec::new();
        for (file, text) in &self.0.tests {
            out.extend(self.run_file(file, text));
        }
        out
    }

    fn run_file(&self, file: &str, text: &str) -> Vec<TestResult> {
        let result = |name: &str, error: Option<String>, passed| TestResult {
            file: file.to_owned(),
            name: name.to_owned(),
            passed,
            error,
        };
        let mut engine = self.0.engine.clone();
        let package = match engine.add_policy(file.to_owned(), text.to_owned()) {
            Ok(package) => package,
            Err(e) => return vec![result(file, Some(one_line(&e)), false)],
        };
        let names = test_names(text);
        if names.is_empty() {
            return vec![result(file, Some("holds no rule called test_…".into()), false)];
        }
        engine.set_input(Value::new_object());
        names
            .iter()
            .map(|name| {
                let path = format!("{package}.{name}");
                let shown = path.strip_prefix("data.").unwrap_or(&path).to_owned();
                match engine.eval_rule(path) {
                    Ok(Value::Bool(true)) => result(&shown, None, true),
                    Ok(Value::Undefined | Value::Bool(false)) => result(&shown, None, false),
                    Ok(_) => result(&shown, Some("is neither true nor false".into()), false),
                    Err(e) => result(&shown, Some(self.failure(&e)), false),
                }
            })
            .collect()
    }
}

fn is_rule(engine: &mut Engine, path: &str) -> bool {
    engine.set_input(Value::new_object());
    !engine.eval_rule(path.to_owned()).is_err_and(|e| e.to_string().contains("not a valid rule path"))
}

/// What goes wrong with a rule on an empty document and on one with everything in it. What only takes too long here may
/// be the fault of a busy machine; the same at a verdict denies.
fn tried(engine: &mut Engine, package: &str, verb: Decision, path: &str) -> Option<String> {
    let full = serde_json::to_string(&PolicyInput::example()).ok()?;
    for (input, what) in
        [(Value::new_object(), "an empty input"), (Value::from_json_str(&full).ok()?, "the example input")]
    {
        engine.set_input(input);
        let why = match engine.eval_rule(path.to_owned()) {
            Ok(value) => said_of(package, verb, &value).err(),
            Err(e) => Some(one_line(&e)).filter(|text| !is_timeout(text)),
        };
        if let Some(why) = why {
            return Some(format!("{verb} cannot answer on {what}: {why}"));
        }
    }
    None
}

fn is_timeout(text: &str) -> bool {
    text.contains("time limit") || text.contains("TimeLimit")
}

/// Names of the rules that begin a line with `test_`, each once.
fn test_names(text: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let word = |line: &str| -> String { line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect() };
    text.lines().map(word).filter(|w| w.starts_with("test_")).filter(|w| seen.insert(w.clone())).collect()
}

fn broken(rule: &str, why: String) -> Said {
    Said {
        rule: rule.to_owned(),
        decision: Decision::Deny,
        why: cut(format!("policy could not be asked: {why}")),
        overridable: false,
    }
}

fn one_line(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    cut(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn cut(text: String) -> String {
    match text.char_indices().nth(WHY_CHARS_MAX) {
        Some((i, _)) => format!("{}…", &text[..i]),
        None => text,
    }
}

/// What a rule's value says: a set or list of texts, or of objects with `msg`.
fn said_of(package: &str, verb: Decision, value: &Value) -> Result<Vec<Said>, String> {
    match value {
        Value::Undefined => Ok(Vec::new()),
        Value::Set(_) | Value::Array(_) => {
            let json = serde_json::to_value(value).map_err(|e| e.to_string())?;
            said_of_json(package, verb, &json)
        }
        _ => Err("answered neither a set nor a list".into()),
    }
}

/// The same of JSON, in which a set is a list.
pub(crate) fn said_of_json(package: &str, verb: Decision, value: &serde_json::Value) -> Result<Vec<Said>, String> {
    let list = value.as_array().ok_or_else(|| format!("{verb} is not a list"))?;
    if list.len() > SAID_MAX {
        return Err(format!("{verb} says {} things, more than {SAID_MAX}", list.len()));
    }
    let mut out = Vec::with_capacity(list.len());
    for item in list {
        let (why, overridable) = match item {
            serde_json::Value::String(text) => (text.clone(), true),
            serde_json::Value::Object(fields) => {
                let msg = fields.get("msg").and_then(serde_json::Value::as_str);
                let overridable = match fields.get("overridable") {
                    None => true,
                    Some(serde_json::Value::Bool(b)) => *b,
                    Some(_) => return Err(format!("{verb} has an `overridable` that is neither true nor false")),
                };
                (msg.ok_or_else(|| format!("{verb} has an object without a text `msg`"))?.to_owned(), overridable)
            }
            _ => return Err(format!("{verb} holds something that is neither a text nor an object")),
        };
        let why = cut(why.split_whitespace().collect::<Vec<_>>().join(" "));
        out.push(Said { rule: format!("{package}.{verb}"), decision: verb, why, overridable });
    }
    Ok(out)
}

/// Compiles any bytes as a policy and asks it: for fuzzing.
#[doc(hidden)]
pub fn fuzz_policy(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let files = [("fuzz.rego".to_owned(), text.clone()), ("fuzz_test.rego".to_owned(), text)];
    if let Ok(policies) = Policies::compile(&files, Duration::from_millis(50)) {
        for said in policies.evaluate_value(Value::new_object()) {
            assert!(VERBS.contains(&said.decision));
        }
        policies.run_tests();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(2_000);

    fn file(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    fn one(text: &str) -> Result<Policies, Vec<PolicyProblem>> {
        Policies::compile(&[file("own.rego", text)], TIMEOUT)
    }

    fn said(text: &str, input: &str) -> Vec<Said> {
        one(text).expect("compiles").evaluate_value(Value::from_json_str(input).unwrap())
    }

    #[test]
    fn the_shipped_policies_compile_and_their_tests_hold() {
        let policies = Policies::with_shipped(&[], &[], TIMEOUT).expect("they compile");
        let results = policies.run_tests();
        let failed: Vec<_> = results.iter().filter(|r| !r.passed).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        for (name, _) in SHIPPED.iter().filter(|(name, _)| name.ends_with("_test.rego")) {
            let of_it = results.iter().filter(|r| r.file.ends_with(name)).count();
            assert!(of_it >= 2, "{name} has {of_it} tests");
        }
        assert_eq!(policies.rules().count(), 11, "{:?}", policies.rules().collect::<Vec<_>>());
    }

    #[test]
    fn each_file_of_the_folder_ships() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
        let mut there: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        there.sort();
        let mut shipped: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
        shipped.sort_unstable();
        assert_eq!(there, shipped);
    }

    #[test]
    fn a_test_that_does_not_hold_is_told() {
        let policy = "package p\ndeny contains \"x\" if input.a == 1";
        let tests = "package p_test\nimport data.p\n\
            test_right if count(p.deny) == 1 with input as {\"a\": 1}\n\
            test_wrong if count(p.deny) == 1 with input as {\"a\": 2}\n\
            test_number := 1\n\
            test_error if to_number(input.z) == 1 with input as {\"z\": \"x\"}\n";
        let policies = Policies::compile(&[file("p.rego", policy), file("p_test.rego", tests)], TIMEOUT).unwrap();
        let results = policies.run_tests();
        let passed: Vec<(&str, bool)> = results.iter().map(|r| (r.name.as_str(), r.passed)).collect();
        assert_eq!(
            passed,
            [
                ("p_test.test_right", true),
                ("p_test.test_wrong", false),
                ("p_test.test_number", false),
                ("p_test.test_error", false)
            ]
        );
        assert_eq!(results[1].error, None);
        assert!(results[2].error.is_some() && results[3].error.is_some(), "{results:?}");
        for (text, error) in [("package q_test\n", "no rule called test_"), ("package q_test\n\ntest_x if {", "")] {
            let policies = Policies::compile(&[file("q_test.rego", text)], TIMEOUT).unwrap();
            let results = policies.run_tests();
            assert!(!results[0].passed && results[0].error.as_ref().unwrap().contains(error), "{results:?}");
        }
    }

    #[test]
    fn what_does_not_compile_is_told_with_its_file() {
        for (text, expected) in [
            ("", ""),
            ("deny contains \"x\" if true", "package"),
            ("package p\ndeny contains \"x\" if { nosuch.x == 1 }", "undefined variable"),
            ("package p\ndeny contains \"x\" if { input.x == }", ""),
            ("package p\ndeni contains \"x\" if input.x", "none of the rules deny, ask and monitor"),
            ("package p\ndeny[msg] { msg := \"old\" }", ""),
            ("package p\ndeny contains x if { x := nosuch(1) }", "nosuch"),
            ("package p\ndeny := true", "answered neither a set nor a list"),
            ("package p\nask contains 5 if input.plan.risk == \"medium\"", "on the example input: ask holds something"),
            ("package p\nask contains msg if input.steps[_].action == \"restart_pods\"", "msg is unsafe"),
            ("package p\nask contains sprintf(\"%d\", [rand.intn(\"x\", 5)])", "function of its input"),
        ] {
            let problems = one(text).err().unwrap_or_else(|| panic!("compiled: {text}"));
            assert!(problems[0].what.contains(expected), "{text}: {problems:?}");
            assert!(!problems[0].what.contains('\n'));
        }
        let long = format!("package p\n# {}", "x\n#".repeat(POLICY_BYTES_MAX));
        assert!(one(&long).unwrap_err()[0].what.contains("more than"));
        let deep = format!("package p\ndeny contains \"x\" if {{ {}1{} }}", "(".repeat(5_000), ")".repeat(5_000));
        assert!(one(&deep).is_err());
        assert!(one("package shop.lib\nf(x) := x + 1").is_ok(), "a package of helpers");
        let unknown = Policies::with_shipped(&["nosuch".into()], &[], TIMEOUT).unwrap_err();
        assert!(unknown[0].what.contains("`nosuch` is no policy that ships"));
        let without = Policies::with_shipped(&["freeze".into()], &[], TIMEOUT).unwrap();
        assert!(!without.rules().any(|r| r.starts_with("nightshift.freeze")));
        assert!(without.run_tests().iter().all(|t| t.passed));
    }

    #[test]
    fn what_cannot_answer_denies() {
        const A: &str = "{\"a\": 1}";
        // (policy, input, what it says)
        let table = [
            ("deny := true if input.a", A, "answered neither a set nor a list"),
            ("deny := {\"a\": \"b\"} if input.a", A, "answered neither a set nor a list"),
            ("deny := \"text\" if input.a", A, "answered neither a set nor a list"),
            ("deny contains 5 if input.a", A, "neither a text nor an object"),
            ("deny contains {\"message\": \"x\"} if input.a", A, "without a text `msg`"),
            ("ask contains {\"msg\": \"x\", \"overridable\": 1} if input.a", A, "neither true nor false"),
            ("ask contains \"x\" if to_number(input.a) > 1", "{\"a\": \"no number\"}", ""),
            (
                "monitor contains x if { input.a; some n in numbers.range(1, 200); x := sprintf(\"%d\", [n]) }",
                A,
                "more than 100",
            ),
            ("ask contains \"x\" if { input.a; ask }", A, ""),
            ("ask contains \"x\" if { input.a; nosuch(1) }", A, "nosuch"),
            ("ask contains msg if input.a", A, "msg is unsafe"),
            ("ask contains sprintf(\"%d\", [rand.intn(\"x\", 5)]) if input.a", A, "function of its input"),
        ];
        for (rule, input, why) in table {
            let said = said(&format!("package p\n{rule}"), input);
            assert_eq!(said.len(), 1, "{rule}: {said:?}");
            assert_eq!(said[0].decision, Decision::Deny, "{rule}: {said:?}");
            assert!(!said[0].overridable);
            assert!(said[0].why.starts_with("policy could not be asked") && said[0].why.contains(why), "{said:?}");
        }
    }

    #[test]
    fn what_never_ends_denies() {
        let text = "package p\ndeny contains \"x\" if {\n\
            some a in numbers.range(1, 3000)\nsome b in numbers.range(1, 3000)\na * b == 0\n}";
        let policies = Policies::compile(&[file("p.rego", text)], Duration::from_millis(20));
        // Compiling asks it once with an empty input, which it takes too long to answer: that is no error of the file.
        let said = policies.expect("compiles").evaluate_value(Value::new_object());
        assert_eq!(said.len(), 1);
        assert!(said[0].why.contains("took longer than 20 ms"), "{said:?}");
        assert_eq!(said[0].decision, Decision::Deny);
    }

    #[test]
    fn the_outside_world_is_not_there() {
        for call in [
            "time.now_ns()",
            "http.send({\"url\": \"http://x\"})",
            "rand.intn(\"a\", 5)",
            "opa.runtime()",
            "uuid.rfc4122(\"x\")",
        ] {
            let text = format!("package p\ndeny contains \"x\" if {call}");
            let harmless = match one(&text) {
                Err(_) => true,
                Ok(p) => p.evaluate_value(Value::new_object()).iter().all(|s| s.why.contains("could not be asked")),
            };
            assert!(harmless, "{call} answers");
        }
    }

    #[test]
    fn what_is_said_is_told_by_rule_in_one_line() {
        let text = "package shop.own\n\
            deny contains \"no\" if input.n == 1\n\
            monitor contains {\"msg\": \"wait\\n a bit\", \"overridable\": false} if input.n < 3\n\
            ask contains sprintf(\"n is %d\", [input.n])\n";
        let said = said(text, "{\"n\": 1}");
        let rules: Vec<(&str, Decision, &str, bool)> =
            said.iter().map(|s| (s.rule.as_str(), s.decision, s.why.as_str(), s.overridable)).collect();
        assert_eq!(
            rules,
            [
                ("shop.own.deny", Decision::Deny, "no", true),
                ("shop.own.monitor", Decision::Monitor, "wait a bit", false),
                ("shop.own.ask", Decision::Ask, "n is 1", true),
            ]
        );
    }

    #[test]
    fn the_corpus_is_replayed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/policy");
        for entry in std::fs::read_dir(folder).unwrap() {
            fuzz_policy(&std::fs::read(entry.unwrap().path()).unwrap());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            fuzz_policy(&bytes);
        }

        #[test]
        fn nothing_that_looks_like_rego_panics(words in proptest::collection::vec(proptest::sample::select(vec![
            "deny ", "ask ", "contains ", "if ", "{", "}", "\n", "input.x ", "== ", "1 ", "\"x\" ", "some ", "in ", "with ",
            "as ", "not ", "every ", "[", "]", "(", ")", ":= ", "x ", "f(x) ", "default ", "else ", "|", "import ", "data.p ",
            "test_a ", ";", ",", ":", "-", "`", "#", "sprintf ", "\u{e9}",
        ]), 0..40)) {
            fuzz_policy(format!("package p\n{}", words.concat()).as_bytes());
        }
    }
}
