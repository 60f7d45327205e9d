//! What people read: a line with places for the entity, the value, the threshold and labels.

use std::collections::BTreeMap;

/// Longest summary, bytes.
const BYTES_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Entity,
    Rule,
    Value(Style),
    Threshold(Style),
    Label(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Percent,
    Bytes,
    Duration,
}

/// A summary, ready to be filled in: `{entity}`, `{rule}`, `{value}`, `{threshold}` (also `{value:percent}`, `:bytes`,
/// `:duration`) and the labels of `by`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    parts: Vec<Part>,
}

impl Summary {
    /// Reads a summary; the error is byte, message, hint.
    pub(super) fn parse(text: &str, by: &[String]) -> Result<Self, (usize, String, String)> {
        let mut parts = Vec::new();
        if text.len() > BYTES_MAX {
            return Err((0, format!("the summary has more than {BYTES_MAX} bytes"), String::new()));
        }
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let Some(open) = rest.find('{') else {
                parts.push(Part::Text(rest.to_owned()));
                break;
            };
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            let Some(close) = rest[open..].find('}') else {
                return Err((at + open, "`{` is never closed".into(), "add `}`".into()));
            };
            let name = &rest[open + 1..open + close];
            let (base, style) = name.split_once(':').unwrap_or((name, ""));
            let style = match style {
                "" => Style::Plain,
                "percent" => Style::Percent,
                "bytes" => Style::Bytes,
                "duration" => Style::Duration,
                _ => {
                    let hint = "use percent, bytes or duration".to_owned();
                    return Err((at + open, format!("there is no style `{style}`"), hint));
                }
            };
            parts.push(match base {
                "entity" => Part::Entity,
                "rule" => Part::Rule,
                "value" => Part::Value(style),
                "threshold" => Part::Threshold(style),
                _ if by.iter().any(|l| l == base) => Part::Label(base.to_owned()),
                _ => {
                    let mut names = vec!["entity", "rule", "value", "threshold"];
                    names.extend(by.iter().map(String::as_str));
                    let hint = format!("there are {}; labels must be listed in `by`", names.join(", "));
                    return Err((at + open, format!("the summary has no place `{{{name}}}`"), hint));
                }
            });
            at += open + close + 1;
        }
        Ok(Self { parts })
    }

    pub(super) fn fill(
        &self,
        rule: &str,
        entity: &str,
        labels: &BTreeMap<String, String>,
        value: Option<f64>,
        threshold: Option<f64>,
    ) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Entity => out.push_str(entity),
                Part::Rule => out.push_str(rule),
                Part::Value(style) => out.push_str(&show(value, *style)),
                Part::Threshold(style) => out.push_str(&show(threshold, *style)),
                Part::Label(label) => out.push_str(labels.get(label).map_or("", String::as_str)),
            }
        }
        out
    }
}

/// A number with about four digits.
fn show(value: Option<f64>, style: Style) -> String {
    let Some(v) = value else { return "no data".to_owned() };
    let short = |v: f64| {
        if v == 0.0 || (1e-3..1e7).contains(&v.abs()) {
            let decimals = if v.abs() >= 100.0 || v.fract() == 0.0 {
                0
            } else if v.abs() >= 1.0 {
                2
            } else {
                4
            };
            let text = format!("{v:.decimals$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        } else {
            format!("{v:.3e}")
        }
    };
    let scaled = |units: &[(f64, &str)], v: f64| {
        let (scale, unit) = units.iter().rfind(|(s, _)| v.abs() >= *s).or(units.first()).copied().unwrap_or((1.0, ""));
        format!("{}{unit}", short(v / scale))
    };
    match style {
        Style::Plain => short(v),
        Style::Percent => format!("{}%", short(v * 100.0)),
        Style::Bytes => {
            let k = 1024.0;
            scaled(&[(1.0, " B"), (k, " KiB"), (k * k, " MiB"), (k * k * k, " GiB"), (k * k * k * k, " TiB")], v)
        }
        Style::Duration => scaled(&[(0.001, " ms"), (1.0, " s"), (60.0, " min"), (3600.0, " h"), (86_400.0, " d")], v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled() {
        let by = vec!["mountpoint".to_owned()];
        let s = Summary::parse("{mountpoint} on {entity}: {value:percent} of {threshold} ({rule})", &by).unwrap();
        let labels = [("mountpoint".to_owned(), "/data".to_owned())].into();
        assert_eq!(s.fill("R", "web1", &labels, Some(0.04321), Some(0.05)), "/data on web1: 4.32% of 0.05 (R)");
        assert_eq!(Summary::default().fill("R", "e", &labels, None, None), "");
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, Style::Plain, "0"),
            (12.0, Style::Plain, "12"),
            (1234.567, Style::Plain, "1235"),
            (0.000_01, Style::Plain, "1.000e-5"),
            (3.5 * 1024.0 * 1024.0, Style::Bytes, "3.5 MiB"),
            (-2048.0, Style::Bytes, "-2 KiB"),
            (90.0, Style::Duration, "1.5 min"),
            (0.25, Style::Duration, "250 ms"),
            (1_209_600.0, Style::Duration, "14 d"),
        ];
        for (v, style, want) in cases {
            assert_eq!(show(Some(v), style), want);
        }
        assert_eq!(show(None, Style::Plain), "no data");
    }

    #[test]
    fn bad_places_are_told() {
        for (text, at) in [("a {", 2), ("{mountpoint}", 0), ("x {value:miles}", 2), ("{}", 0)] {
            assert_eq!(Summary::parse(text, &[]).unwrap_err().0, at, "{text}");
        }
        assert!(Summary::parse(&"x".repeat(2000), &[]).is_err());
    }
}
