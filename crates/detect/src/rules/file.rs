//! Rule files: what they hold, and the check that tells every problem at once.

use super::expr::{Expr, Selector, Test, nearest};
use super::summary::Summary;
use super::tree::{self, Node, Value};
use nightshift_model::batch::SeriesKind;
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{EntityId, FaultClass, Severity};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Largest rule file, bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Most rules, and most tests, in one file.
pub const RULES_MAX: usize = 1000;
/// Most problems that are told.
pub const PROBLEMS_MAX: usize = 1000;
/// Longest duration of `for` and `clear`, seconds: a day.
const HOLD_SECS_MAX: f64 = 86_400.0;
/// Most values of one series of a test.
const VALUES_MAX: usize = 10_000;
/// Most labels in `by`.
const BY_MAX: usize = 8;

/// What is wrong in a rule file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// From 1; 0 where unknown.
    pub line: usize,
    /// From 1; 0 where unknown.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

/// One rule, ready to be used.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Unique name.
    pub name: String,
    /// For people.
    pub description: String,
    /// The condition.
    pub when: Expr,
    /// The condition as written.
    pub when_text: String,
    /// Nanoseconds that it must hold before it fires.
    pub for_ns: i64,
    /// Nanoseconds that it must not hold before it ends.
    pub clear_ns: i64,
    /// 0..=1.
    pub score: f64,
    /// What it suggests.
    pub fault: FaultClass,
    /// Only entities whose id matches; `*` stands for any text.
    pub entity: Option<String>,
    /// Labels that tell apart what of one entity is watched by itself (each mount point, each topic).
    pub by: Vec<String>,
    /// What people read.
    pub summary: Summary,
    /// Where it stands in its file.
    pub line: usize,
}

/// A series of a test.
#[derive(Debug, Clone)]
pub(super) struct TestSeries {
    pub(super) labels: Vec<(String, String)>,
    pub(super) kind: SeriesKind,
    pub(super) entity: EntityId,
    pub(super) values: Vec<Option<f64>>,
}

/// What a test expects at one moment.
#[derive(Debug, Clone)]
pub(super) struct Expect {
    pub(super) at_ns: i64,
    pub(super) firing: bool,
    pub(super) entity: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) line: usize,
}

/// One unit test of a rule.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) rule: String,
    pub(super) interval_ns: i64,
    pub(super) series: Vec<TestSeries>,
    pub(super) expect: Vec<Expect>,
    pub(super) line: usize,
}

/// A file that was read.
#[derive(Debug, Clone, Default)]
pub struct RuleFile {
    /// Its rules, in order.
    pub rules: Vec<Rule>,
    pub(super) tests: Vec<Case>,
}

/// Everything that is wrong with a rule file, by line.
pub fn check_file(text: &str) -> Vec<Problem> {
    Reader::read(text).1
}

/// Reads a rule file.
///
/// # Errors
/// Everything that is wrong with it, by line.
pub fn parse_file(text: &str) -> Result<RuleFile, Vec<Problem>> {
    let (file, problems) = Reader::read(text);
    if problems.is_empty() { Ok(file) } else { Err(problems) }
}

struct Reader<'a> {
    lines: Vec<&'a str>,
    problems: Vec<Problem>,
}

/// The entries of a map that were asked for, by key.
struct Fields<'n> {
    node: &'n Node,
    found: BTreeMap<&'n str, &'n Node>,
}

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Node> {
        self.found.get(key).copied().filter(|n| n.value != Value::Null)
    }
}

impl<'a> Reader<'a> {
    fn read(text: &'a str) -> (RuleFile, Vec<Problem>) {
        let mut r = Self { lines: Vec::new(), problems: Vec::new() };
        let mut file = RuleFile::default();
        if text.len() > FILE_BYTES_MAX {
            let problem = format!("the file has {} bytes, at most {FILE_BYTES_MAX} are read", text.len());
            r.problem(0, 0, problem, "split it into several files");
            return (file, r.problems);
        }
        r.lines = text.lines().collect();
        match tree::read(text) {
            Err((message, line, column)) => r.problem(line, column, format!("this is not YAML: {message}"), ""),
            Ok(root) => r.file(&root, &mut file),
        }
        r.problems.sort_by_key(|p| (p.line, p.column));
        (file, r.problems)
    }

    fn problem(&mut self, line: usize, column: usize, message: impl Into<String>, hint: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { line, column, message: message.into(), hint: hint.into() });
        }
    }

    fn at(&mut self, node: &Node, message: impl Into<String>, hint: impl Into<String>) {
        self.problem(node.line, node.column, message, hint);
    }

    fn fields<'n>(&mut self, node: &'n Node, what: &str, known: &[&str], needed: &[&str]) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.at(
                node,
                format!("{what} is {}, a map is needed", node.kind()),
                format!("its keys are {}", known.join(", ")),
            );
            return None;
        };
        let mut found = BTreeMap::new();
        for (key, value) in entries {
            let Value::Text(name) = &key.value else {
                self.at(
                    key,
                    format!("a key of {what} is {}", key.kind()),
                    format!("its keys are {}", known.join(", ")),
                );
                continue;
            };
            if !known.contains(&name.as_str()) {
                let hint = nearest(name, known.iter().copied())
                    .map_or_else(|| format!("its keys are {}", known.join(", ")), |k| format!("did you mean `{k}`?"));
                self.at(key, format!("{what} has no key `{name}`"), hint);
                continue;
            }
            found.insert(name.as_str(), value);
        }
        let fields = Fields { node, found };
        for key in needed {
            if fields.get(key).is_none() {
                self.at(node, format!("{what} has no `{key}`"), format!("add `{key}: …`"));
            }
        }
        Some(fields)
    }

    fn text(&mut self, fields: &Fields<'_>, key: &str) -> Option<String> {
        let node = fields.get(key)?;
        let text = node.text();
        if text.is_none() {
            self.at(node, format!("`{key}` is {}, a text is needed", node.kind()), "");
        }
        text
    }

    fn list<'n>(&mut self, fields: &Fields<'n>, key: &str) -> &'n [Node] {
        match fields.get(key) {
            Some(Node { value: Value::List(list), .. }) => list,
            Some(node) => {
                self.at(node, format!("`{key}` is {}, a list is needed", node.kind()), "begin each entry with `- `");
                &[]
            }
            None => &[],
        }
    }

    /// Nanoseconds.
    fn duration(&mut self, fields: &Fields<'_>, key: &str) -> Option<i64> {
        let node = fields.get(key)?;
        let text = node.text().unwrap_or_default();
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let scale = match &text[number.len()..] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "" if number == "0" => 1.0,
            _ => f64::NAN,
        };
        let secs = number.trim().parse::<f64>().unwrap_or(f64::NAN) * scale;
        if (0.0..=HOLD_SECS_MAX * 7.0).contains(&secs) {
            return Some((secs * NANOS_PER_SEC as f64) as i64);
        }
        self.at(
            node,
            format!("`{key}: {text}` is not a duration"),
            "write a number with ms, s, m, h or d, as in `2m`, at most 7d",
        );
        None
    }

    fn file(&mut self, root: &Node, file: &mut RuleFile) {
        let Some(fields) = self.fields(root, "a rule file", &["rules", "tests"], &["rules"]) else { return };
        let rules = self.list(&fields, "rules");
        let tests = self.list(&fields, "tests");
        for (nodes, what) in [(rules, "rules"), (tests, "tests")] {
            if nodes.len() > RULES_MAX {
                self.at(&nodes[RULES_MAX], format!("more than {RULES_MAX} {what}"), "split the file");
            }
        }
        let mut names = BTreeSet::new();
        for node in rules.iter().take(RULES_MAX) {
            if let Some(name) = self.rule(node, file)
                && !names.insert(name.clone())
            {
                self.at(node, format!("there are two rules `{name}`"), "give each its own name");
            }
        }
        for node in tests.iter().take(RULES_MAX) {
            self.test(node, &names, file);
        }
    }

    fn rule(&mut self, node: &Node, file: &mut RuleFile) -> Option<String> {
        const KEYS: &[&str] =
            &["name", "description", "when", "for", "clear", "severity", "score", "fault", "entity", "by", "summary"];
        let fields = self.fields(node, "a rule", KEYS, &["name", "when"])?;
        let before = self.problems.len();
        let name = self.text(&fields, "name").unwrap_or_default();
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if let Some(node) = fields.get("name")
            && (name.is_empty() || name.len() > 128 || !name.chars().all(fine))
        {
            self.at(node, format!("`{name}` cannot be a rule's name"), "use 1 to 128 letters, digits, `_`, `-`, `.`");
        }
        let when_text = self.text(&fields, "when").unwrap_or_default();
        let when = match Expr::parse(&when_text) {
            Ok(expr) => Some(expr),
            Err(e) => {
                if let Some(node) = fields.get("when")
                    && node.text().is_some()
                {
                    let (line, column) = self.place(node, &when_text, e.start);
                    self.problem(line, column, format!("`when`: {}", e.message), e.hint);
                }
                None
            }
        };
        let for_ns = self.duration(&fields, "for").unwrap_or(0);
        let clear_ns = self.duration(&fields, "clear").unwrap_or(60 * NANOS_PER_SEC);
        let score = self.score(&fields);
        let mut fault = FaultClass::Unknown;
        if let Some(node) = fields.get("fault") {
            let slug = node.text().unwrap_or_default();
            match slug.parse() {
                Ok(f) => fault = f,
                Err(_) => {
                    let slugs = FaultClass::ALL.iter().map(|f| f.slug());
                    let hint = nearest(&slug, slugs).map_or_else(
                        || "`nightshift faults` lists them".to_owned(),
                        |s| format!("did you mean `{s}`?"),
                    );
                    self.at(node, format!("`{slug}` is not a fault class"), hint);
                }
            }
        }
        let entity = self.text(&fields, "entity");
        if let (Some(node), Some(glob)) = (fields.get("entity"), &entity)
            && (glob.is_empty() || glob.len() > 1024)
        {
            self.at(node, "`entity` is empty or too long", "write an id such as `*/host/*/web*`");
        }
        let mut by = Vec::new();
        for node in self.list(&fields, "by") {
            match &node.value {
                Value::Text(label) if !label.is_empty() && by.len() < BY_MAX && !by.contains(label) => {
                    by.push(label.clone())
                }
                Value::Text(_) => self.at(node, format!("`by` takes up to {BY_MAX} different labels"), ""),
                _ => self.at(node, format!("a label in `by` is {}", node.kind()), "write the name of a label"),
            }
        }
        let summary_text = self.text(&fields, "summary").unwrap_or_else(|| format!("{name} on {{entity}}: {{value}}"));
        let summary = match Summary::parse(&summary_text, &by) {
            Ok(summary) => summary,
            Err((offset, message, hint)) => {
                let (line, column) =
                    fields.get("summary").map_or((node.line, node.column), |n| self.place(n, &summary_text, offset));
                self.problem(line, column, message, hint);
                Summary::default()
            }
        };
        if let Some(when) = when
            && self.problems.len() == before
        {
            let description = self.text(&fields, "description").unwrap_or_default();
            let line = node.line;
            file.rules.push(Rule {
                name: name.clone(),
                description,
                when,
                when_text,
                for_ns,
                clear_ns,
                score,
                fault,
                entity,
                by,
                summary,
                line,
            });
        }
        Some(name).filter(|n| !n.is_empty())
    }

    fn score(&mut self, fields: &Fields<'_>) -> f64 {
        let by_severity = |s: Severity| match s {
            Severity::Low => 0.3,
            Severity::Medium => 0.6,
            Severity::High => 0.8,
            Severity::Critical => 0.95,
        };
        if let (Some(_), Some(node)) = (fields.get("severity"), fields.get("score")) {
            self.at(node, "both `severity` and `score` are given", "keep one: severities are ranges of the score");
        }
        if let Some(node) = fields.get("score") {
            match node.value {
                Value::Number(n) if (0.0..=1.0).contains(&n) => return n,
                _ => self.at(node, "`score` is not a number from 0 to 1", "0.5 is medium, 0.7 high, 0.9 critical"),
            }
        }
        let Some(node) = fields.get("severity") else { return by_severity(Severity::Medium) };
        match node.text().unwrap_or_default().parse::<Severity>() {
            Ok(severity) => by_severity(severity),
            Err(_) => {
                self.at(
                    node,
                    format!("`{}` is not a severity", node.text().unwrap_or_default()),
                    "use low, medium, high or critical",
                );
                0.0
            }
        }
    }

    /// Line and column of byte `offset` of a scalar's text, as near as the source tells.
    fn place(&self, node: &Node, text: &str, offset: usize) -> (usize, usize) {
        let Some(line) = node.line.checked_sub(1).and_then(|i| self.lines.get(i)) else {
            return (node.line, node.column);
        };
        let begin = line.char_indices().nth(node.column.saturating_sub(1)).map_or(line.len(), |(i, _)| i);
        let source = &line[begin..];
        // A text over several lines is its lines without the indent, joined by one character; a block begins a line
        // after its sign. Escapes within quotes shift what follows, which is then near enough.
        let block = source.starts_with(['|', '>']) && !text.starts_with(['|', '>']);
        let quote = usize::from(source.starts_with(['"', '\'']) && !text.starts_with(['"', '\'']));
        let (mut number, mut begin) = (node.line, begin + quote);
        if block {
            (number, begin) = (number + 1, 0);
        }
        let mut left = offset;
        loop {
            let Some(line) = self.lines.get(number - 1) else { return (node.line, node.column) };
            let rest = line.get(begin..).unwrap_or_default();
            let body = rest.trim_start();
            let indent = begin + rest.len() - body.len();
            let body = body.trim_end();
            if left <= body.len() {
                return (number, line.get(..indent + left).map_or(indent, |before| before.chars().count()) + 1);
            }
            left -= body.len() + 1;
            (number, begin) = (number + 1, 0);
        }
    }

    fn test(&mut self, node: &Node, rules: &BTreeSet<String>, file: &mut RuleFile) {
        let keys = ["name", "rule", "interval", "series", "expect"];
        let Some(fields) = self.fields(node, "a test", &keys, &["name", "rule", "series", "expect"]) else { return };
        let before = self.problems.len();
        let name = self.text(&fields, "name").unwrap_or_default();
        let rule = self.text(&fields, "rule").unwrap_or_default();
        if let Some(node) = fields.get("rule")
            && !rules.contains(&rule)
        {
            let hint = nearest(&rule, rules.iter().map(String::as_str))
                .map_or_else(|| "name a rule of this file".to_owned(), |r| format!("did you mean `{r}`?"));
            self.at(node, format!("there is no rule `{rule}`"), hint);
        }
        let interval_ns = self.duration(&fields, "interval").unwrap_or(60 * NANOS_PER_SEC);
        if interval_ns < NANOS_PER_SEC {
            let node = fields.get("interval").unwrap_or(fields.node);
            self.at(node, "`interval` is below a second", "write `1s` or more");
        }
        let series: Vec<_> = self.list(&fields, "series").iter().filter_map(|n| self.test_series(n)).collect();
        let expect: Vec<_> = self.list(&fields, "expect").iter().filter_map(|n| self.expect(n)).collect();
        if self.problems.len() == before {
            file.tests.push(Case { name, rule, interval_ns, series, expect, line: node.line });
        }
    }

    fn test_series(&mut self, node: &Node) -> Option<TestSeries> {
        let keys = ["series", "values", "kind", "entity"];
        let fields = self.fields(node, "a series", &keys, &["series", "values"])?;
        let text = self.text(&fields, "series")?;
        let labels = match Expr::parse(&format!("{text} == 0")).map(|e| e.selectors) {
            Ok(selectors) => match selectors.as_slice() {
                [Selector { metric, tests }] => {
                    let mut labels = vec![("__name__".to_owned(), metric.clone())];
                    for (name, test) in tests {
                        match test {
                            Test::Is(value) => labels.push((name.clone(), value.clone())),
                            _ => self.at(fields.node, "a series has labels, not tests of labels", "use `=`"),
                        }
                    }
                    labels
                }
                _ => Vec::new(),
            },
            Err(e) => {
                let (line, column) = self.place(fields.get("series")?, &text, e.start.min(text.len()));
                self.problem(line, column, format!("`series`: {}", e.message), e.hint);
                return None;
            }
        };
        if labels.is_empty() {
            self.at(fields.get("series")?, format!("`{text}` is not a series"), "as in `up{job=\"api\"}`");
        }
        let metric = labels.first().map_or("", |l| l.1.as_str());
        let kind = match self.text(&fields, "kind").as_deref() {
            None => SeriesKind::from_metric_name(metric),
            Some("gauge") => SeriesKind::Gauge,
            Some("counter") => SeriesKind::Counter,
            Some("delta") => SeriesKind::Delta,
            Some(other) => {
                self.at(fields.get("kind")?, format!("`{other}` is not a kind"), "use gauge, counter or delta");
                return None;
            }
        };
        let mut entity = EntityId::new("test", "host", "", "test");
        if let Some(text) = self.text(&fields, "entity") {
            match EntityId::parse(&text) {
                Ok(id) => entity = id,
                Err(e) => self.at(fields.get("entity")?, e, "as in `local/host/-/web1`"),
            }
        }
        let values_text = self.text(&fields, "values")?;
        let node = fields.get("values")?;
        let hex = self.lines.get(node.line.saturating_sub(1)).and_then(|l| l.get(node.column.saturating_sub(1)..));
        if matches!(node.value, Value::Number(_)) && hex.is_some_and(|t| t.starts_with("0x")) {
            self.at(node, "YAML reads this as a hexadecimal number", "put it in quotes: `'0x5'`");
            return None;
        }
        match values(&values_text) {
            Ok(values) => Some(TestSeries { labels, kind, entity, values }),
            Err(token) => {
                let hint = "write numbers, `_` for none, `0+10x5` for 0 10 20 30 40 50, `7x3` for 7 7 7";
                self.at(fields.get("values")?, format!("`{token}` cannot be read as values"), hint);
                None
            }
        }
    }

    fn expect(&mut self, node: &Node) -> Option<Expect> {
        let fields = self.fields(node, "an expectation", &["at", "firing", "entity", "labels"], &["at", "firing"])?;
        let at_ns = self.duration(&fields, "at")?;
        let firing = match fields.get("firing")? {
            Node { value: Value::Bool(b), .. } => *b,
            other => {
                self.at(other, format!("`firing` is {}", other.kind()), "write true or false");
                return None;
            }
        };
        let mut labels = BTreeMap::new();
        if let Some(map) = fields.get("labels") {
            if let Value::Map(entries) = &map.value {
                labels.extend(entries.iter().filter_map(|(k, v)| Some((k.text()?, v.text()?))));
            } else {
                self.at(map, format!("`labels` is {}, a map is needed", map.kind()), "");
            }
        }
        let entity = self.text(&fields, "entity");
        Some(Expect { at_ns, firing, entity, labels, line: node.line })
    }
}

/// The values of a test's series; the error is the token that is none.
fn values(text: &str) -> Result<Vec<Option<f64>>, String> {
    let mut out = Vec::new();
    for token in text.split_whitespace() {
        let bad = || token.to_owned();
        let number = |t: &str| t.parse::<f64>().map_err(|_| bad());
        let (body, times) = match token.rsplit_once('x') {
            Some((body, n)) => (body, Some(n.parse::<usize>().ok().filter(|n| *n <= VALUES_MAX).ok_or_else(bad)?)),
            None => (token, None),
        };
        // `a+bxn` is a and n more, each b further; `axn` is n times a.
        let step = body
            .char_indices()
            .skip(1)
            .filter(|(i, c)| matches!(c, '+' | '-') && !matches!(body.as_bytes()[i - 1], b'e' | b'E'));
        let step = step.map(|(i, _)| i).next();
        match (body, times, step) {
            ("_", times, _) => out.extend(std::iter::repeat_n(None, times.unwrap_or(1))),
            (_, None, _) => out.push(Some(number(body)?)),
            (_, Some(n), None) => out.extend(std::iter::repeat_n(Some(number(body)?), n)),
            (_, Some(n), Some(i)) => {
                let (first, by) = (number(&body[..i])?, number(&body[i..])?);
                out.extend((0..=n).map(|k| Some(first + by * k as f64)));
            }
        }
        if out.len() > VALUES_MAX {
            return Err(bad());
        }
    }
    Ok(out)
}

/// For the fuzzer: any text is read or refused, and its tests run.
#[doc(hidden)]
pub fn fuzz_rule_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let problems = check_file(&text);
    assert_eq!(problems.is_empty(), parse_file(&text).is_ok());
    // Long tests are the author's own doing, but not the fuzzer's.
    if text.len() < 4096 && !text.contains('x') {
        let _ = super::testing::run_tests(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_short() {
        let some = |v: &[f64]| Ok(v.iter().map(|v| Some(*v)).collect::<Vec<_>>());
        assert_eq!(values("1 -2.5 1e3"), some(&[1.0, -2.5, 1000.0]));
        assert_eq!(values("0+10x2 5-1x1"), some(&[0.0, 10.0, 20.0, 5.0, 4.0]));
        assert_eq!(values("7x3 -1x1"), some(&[7.0, 7.0, 7.0, -1.0]));
        assert_eq!(values("_ 1 _x2"), Ok(vec![None, Some(1.0), None, None]));
        assert_eq!(values(""), Ok(vec![]));
        for bad in ["a", "1x", "1+x3", "x3", "1x99999", "__", "1+1"] {
            assert_eq!(values(bad), Err(bad.to_owned()), "{bad}");
        }
        assert!(values("1x9999 1x9999").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[ -~\\n]{0,200}") {
            fuzz_rule_file(text.as_bytes());
        }

        #[test]
        fn no_file_like_text_panics(
            keys in proptest::collection::vec(("(name|when|for|score|by|summary|expect|rule|series|values|fault|x)", "[ -~]{0,12}"), 0..8)
        ) {
            let mut text = "rules:\n  - name: a\n".to_owned();
            for (key, value) in keys {
                text.push_str(&format!("    {key}: {value}\n"));
            }
            fuzz_rule_file(text.as_bytes());
        }
    }
}
