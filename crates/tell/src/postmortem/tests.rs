//! Postmortems of whole incidents: their text as snapshots, and every sentence of them checked against the rows that
//! it cites.

use super::fixtures::*;
use super::*;
use nightshift_model::EventKind;

fn written(book: &Book) -> Postmortem {
    postmortem(&book.rows, &book.incident(), &people()).unwrap()
}

/// Where snapshots differ, look at the text: it must be pleasant to read.
#[test]
fn texts_are_stable() {
    insta::assert_snapshot!("fixed", written(&fixed()).markdown);
    insta::assert_snapshot!("approved", written(&approved()).markdown);
    insta::assert_snapshot!("rejected", written(&rejected()).markdown);
    insta::assert_snapshot!("rolled_back", written(&rolled_back()).markdown);
    insta::assert_snapshot!("by_itself", written(&by_itself()).markdown);
    insta::assert_snapshot!("false_alarm", written(&false_alarm()).markdown);
}

#[test]
fn facts_say_how_it_ended() {
    let ending = |b: &Book| written(b).facts.ending;
    assert_eq!(ending(&fixed()), Ending::Fixed);
    assert_eq!(ending(&approved()), Ending::Fixed);
    assert_eq!(ending(&rejected()), Ending::ByHand);
    assert_eq!(ending(&rolled_back()), Ending::Escalated);
    assert_eq!(ending(&by_itself()), Ending::HealedByItself);
    assert_eq!(ending(&false_alarm()), Ending::FalseAlarm);
    let facts = written(&approved()).facts;
    assert_eq!(facts.plans[0].approved_by.as_deref(), Some("mira"));
    assert_eq!(facts.cause.map(|c| c.confirmed_by), Some(ConfirmedBy::Verification));
    let facts = written(&rejected()).facts;
    assert_eq!(facts.plans[0].rejected_by.as_deref(), Some("mira"));
    assert_eq!(
        facts.cause.map(|c| (c.fault, c.confirmed_by)),
        Some((FaultClass::DependencyOutage, ConfirmedBy::Person))
    );
    let facts = written(&rolled_back()).facts;
    assert!(facts.plans[0].executed && facts.plans[0].undone && !facts.plans[0].verified);
    assert_eq!((facts.detection_latency_secs, facts.mttr_secs), (1.2, None));
    let json = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts);
    for book in [fixed(), approved(), rejected(), rolled_back(), by_itself(), false_alarm()] {
        let facts = written(&book).facts;
        assert!(!facts.action_items.is_empty());
        assert!(facts.action_items.iter().all(|i| !i.rows.is_empty() && i.owner != "unowned" && i.due.len() == 10));
    }
}

#[test]
fn there_is_none_where_there_is_nothing_to_tell() {
    let mut synthetic = fixed().incident();
    synthetic.synthetic = true;
    assert_eq!(postmortem(&fixed().rows, &synthetic, &people()), None);
    let mut merged = fixed().incident();
    merged.merged_into = Some(IncidentId(9));
    assert_eq!(postmortem(&fixed().rows, &merged, &people()), None);
    assert_eq!(postmortem(&fixed().rows[1..], &fixed().incident(), &people()), None);
    assert_eq!(postmortem(&[], &fixed().incident(), &people()), None);
}

/// The hash in the journal can be checked: neither its own row nor others' rows change the text.
#[test]
fn writing_it_again_gives_the_same() {
    let first = written(&fixed());
    let mut book = fixed();
    let (sha256, through_seq) = (first.sha256(), first.facts.through_seq);
    book.add(30.0, "system", EventKind::PostmortemWritten { sha256, through_seq });
    book.rows.reverse();
    let foreign = JournalEvent { incident: IncidentId(99), ..book.rows[0].clone() };
    book.rows.push(foreign);
    let again = postmortem(&book.rows, &fixed().incident(), &people()).unwrap();
    assert_eq!((again.sha256(), &again), (first.sha256(), &first));
    assert_eq!(first.sha256().len(), 64);
}

#[test]
fn a_long_story_is_bounded() {
    let text = written(&storm()).markdown;
    let lines = text.lines().filter(|l| l.starts_with("| 0")).count();
    assert_eq!(lines, 60, "{text}");
    assert!(text.contains("| … |"));
}

mod every_sentence {
    //! Reads the Markdown as a sceptic does: each sentence cites rows that exist, and each figure in it is found in
    //! them, or is the time between two moments in them.

    use super::*;
    use nightshift_model::journal::apply;
    use std::collections::BTreeMap;

    /// The sentences of a text with the rows each cites; an error for one that cites none.
    fn sentences(markdown: &str) -> Result<Vec<(String, Vec<u64>)>, String> {
        let mut out = Vec::new();
        // A bracket that is escaped is text, not a citation.
        let markdown = markdown.replace("\\[", "(");
        for line in markdown.lines() {
            let is_heading = line.starts_with("## ");
            let is_table_head =
                line.starts_with("| UTC |") || line.starts_with("| what |") || line.starts_with("| ---");
            if line.is_empty() || is_heading || is_table_head {
                continue;
            }
            let mut rest = line.trim_start_matches("# ").trim_start_matches("- ").trim_matches(['|', ' ']);
            while !rest.is_empty() {
                let start = rest.find("[#").ok_or_else(|| format!("no row is cited for: {rest}"))?;
                let text = rest[..start].trim().to_owned();
                if text.is_empty() || text.contains(". ") {
                    return Err(format!("two sentences share a citation: {line}"));
                }
                rest = &rest[start..];
                let mut rows = Vec::new();
                while let Some(tail) = rest.strip_prefix("[#") {
                    let (number, tail) = tail.split_once(']').ok_or("a citation does not end")?;
                    rows.push(number.parse().map_err(|_| format!("`{number}` is no row"))?);
                    rest = tail;
                }
                rest = rest.trim_start_matches('.').trim_start();
                out.push((text, rows));
            }
        }
        Ok(out)
    }

    /// Everything in rows that a figure may come from.
    #[derive(Default)]
    struct Source {
        text: String,
        numbers: Vec<f64>,
        times: Vec<Timestamp>,
    }

    impl Source {
        fn read(&mut self, value: &serde_json::Value) {
            match value {
                serde_json::Value::Number(n) => self.numbers.extend(n.as_f64()),
                serde_json::Value::String(s) => {
                    self.times.extend(Timestamp::parse_rfc3339(s).ok());
                    self.text.push(' ');
                    self.text.push_str(s);
                }
                serde_json::Value::Array(list) => {
                    self.numbers.push(list.len() as f64);
                    list.iter().for_each(|v| self.read(v));
                }
                serde_json::Value::Object(map) => map.iter().for_each(|(k, v)| {
                    self.text.push(' ');
                    self.text.push_str(k);
                    self.read(v);
                }),
                _ => {}
            }
        }

        fn spans(&self) -> impl Iterator<Item = f64> {
            let pairs = self.times.iter().flat_map(|a| self.times.iter().map(move |b| a.since(*b).as_secs_f64()));
            pairs.chain(self.numbers.iter().copied())
        }
    }

    /// Times like `3 min 20 s` in a text, as (seconds, half of the last unit), and the text without them.
    fn durations(text: &str) -> (Vec<(f64, f64)>, String) {
        let words: Vec<&str> = text.split(' ').collect();
        let (mut found, mut left, mut i) = (Vec::new(), Vec::new(), 0);
        let unit = |w: &str| match w.trim_end_matches([',', ':', ')', ';']) {
            "ms" => Some(0.001),
            "s" => Some(1.0),
            "min" => Some(60.0),
            "h" => Some(3_600.0),
            _ => None,
        };
        while i < words.len() {
            let (mut secs, mut slack, mut j) = (0.0, 0.0, i);
            while let (Some(Ok(n)), Some(u)) =
                (words.get(j).map(|w| w.trim_start_matches('(').parse::<f64>()), words.get(j + 1).and_then(|w| unit(w)))
            {
                secs += n * u;
                slack = if words[j].contains('.') { 0.051 * u } else { 0.51 * u };
                j += 2;
            }
            if j == i {
                left.push(words[i]);
                i += 1;
            } else {
                found.push((secs, slack));
                i = j;
            }
        }
        (found, left.join(" "))
    }

    /// Figures as (text, value, decimals).
    fn figures(text: &str) -> Vec<(String, f64, usize)> {
        let mut out = Vec::new();
        let mut word = String::new();
        for c in text.chars().chain([' ']) {
            if c.is_ascii_digit() || (matches!(c, '.' | ',') && !word.is_empty()) {
                word.push(c);
                continue;
            }
            let figure = word.trim_end_matches(['.', ',']).replace(',', "");
            if let Ok(value) = figure.parse::<f64>() {
                out.push((figure.clone(), value, figure.split_once('.').map_or(0, |(_, d)| d.len())));
            }
            word.clear();
        }
        out
    }

    pub(super) fn check(markdown: &str, rows: &[JournalEvent]) -> Result<usize, String> {
        let by_seq: BTreeMap<u64, &JournalEvent> = rows.iter().map(|r| (r.seq, r)).collect();
        let sentences = sentences(markdown)?;
        for (text, cited) in &sentences {
            let mut source = Source::default();
            for seq in cited {
                let row = by_seq.get(seq).ok_or_else(|| format!("row {seq} does not exist: {text}"))?;
                source.read(&serde_json::to_value(row).unwrap());
            }
            // The short id of an incident is its number, and a plan's short hash the beginning of its hash.
            let mut words = text.split(' ').filter(|w| !w.trim_matches(':').starts_with("INC-"));
            let text: String = words
                .by_ref()
                .filter(|w| {
                    let w = w.trim_matches([':', ',']);
                    w.len() < 12
                        || w.starts_with('`')
                        || !w.bytes().all(|b| b.is_ascii_hexdigit())
                        || !source.text.contains(w)
                })
                .collect::<Vec<_>>()
                .join(" ");
            // Due dates count from the newest row: checked by the list's own head, which cites it.
            let newest = rows.last().unwrap().at;
            let allowed_due: Vec<String> =
                (0..=33).map(|d| crate::text::date(newest + std::time::Duration::from_secs(86_400 * d))).collect();
            let text = allowed_due.iter().fold(text, |t, d| t.replace(&format!("| {d} |"), "|"));
            let (spans, rest) = durations(&text);
            for (secs, slack) in spans {
                let known = source.spans().any(|s| (s - secs).abs() <= slack);
                if !known && !source.text.contains(&format!("{secs} s")) {
                    return Err(format!("{secs} s is in none of {cited:?}: {text}"));
                }
            }
            for (figure, value, decimals) in figures(&rest) {
                let round = |v: f64| format!("{v:.decimals$}");
                let is =
                    |v: f64| round(v) == round(value) || round(v * 100.0) == round(value) || round(-v) == round(value);
                // Digits of a hash say nothing.
                let words = source.text.split(' ').filter(|w| w.len() < 32);
                let mut plain = words.collect::<Vec<_>>().join(" ").replace(',', "");
                source.times.iter().for_each(|at| plain += &format!(" {}", crate::text::time_of_day(*at)));
                let in_text =
                    plain.split(|c: char| !c.is_ascii_digit() && c != '.').any(|w| w.trim_matches('.') == figure);
                if !in_text && !source.numbers.iter().any(|v| is(*v)) {
                    return Err(format!("{figure} is in none of {cited:?}: {text}"));
                }
            }
        }
        Ok(sentences.len())
    }

    #[test]
    fn rests_on_rows_that_say_it() {
        for (name, book) in [
            ("fixed", fixed()),
            ("approved", approved()),
            ("rejected", rejected()),
            ("rolled_back", rolled_back()),
            ("by_itself", by_itself()),
            ("false_alarm", false_alarm()),
            ("storm", storm()),
        ] {
            let text = written(&book).markdown;
            let n = check(&text, &book.rows).unwrap_or_else(|e| panic!("{name}: {e}\n\n{text}"));
            assert!(n >= 15, "{name} has only {n} sentences");
        }
    }

    /// The sceptic is one: it finds what is not backed.
    #[test]
    fn is_checked_by_a_check_that_can_fail() {
        let book = fixed();
        let text = written(&book).markdown;
        assert!(check(&text, &book.rows).is_ok());
        for (from, to) in [
            ("[#", "(#"),
            ("7,380", "7,381"),
            ("402", "403"),
            ("87 %", "78 %"),
            ("[#40]", "[#4000]"),
            ("13 s", "14 s"),
            ("## Impact", "All is well.\n\n## Impact"),
        ] {
            assert!(text.contains(from), "{from} is not in the text\n{text}");
            assert!(check(&text.replacen(from, to, 1), &book.rows).is_err(), "{from} as {to} went unnoticed");
        }
    }

    proptest::proptest! {
        /// Whatever rows are missing (a crash, a node that was skipped), nothing is said that no row says.
        #[test]
        fn holds_for_any_part_of_a_journal(which in 0usize..6, mask: u64) {
            let book = [fixed, approved, rejected, rolled_back, by_itself, false_alarm][which]();
            let mut rows = book.rows;
            let mut n = 0;
            // The opening stays.
            rows.retain(|_| { n += 1; n == 1 || mask >> (n % 64) & 1 == 1 });
            let incident = rows.iter().fold(None, apply).unwrap();
            let text = postmortem(&rows, &incident, &people()).unwrap().markdown;
            if let Err(e) = check(&text, &rows) {
                proptest::prop_assert!(false, "{}\n\n{}", e, text);
            }
        }

        /// Telemetry and notes are data: no text from outside becomes a sentence, a citation, a heading or a table.
        #[test]
        fn holds_for_any_text_from_outside(hostile in "[^0-9]{0,60}|\\[#\\]|# Head|[|] a [|]|A[.] B[.] C") {
            let mut book = rejected();
            for row in &mut book.rows {
                match &mut row.event {
                    EventKind::Opened { title, anomaly, .. } => {
                        title.clone_from(&hostile);
                        anomaly.description.clone_from(&hostile);
                        anomaly.signal.clone_from(&hostile);
                        anomaly.explanation.observed = None;
                    }
                    EventKind::Assessed { title, .. } => title.clone_from(&hostile),
                    EventKind::Rejected { why, .. }
                    | EventKind::Escalated { why, .. }
                    | EventKind::Resolved { why } => why.clone_from(&hostile),
                    _ => {}
                }
                if row.actor != "system" {
                    row.actor.clone_from(&hostile);
                }
            }
            let headings = |text: &str| text.lines().filter(|l| l.starts_with('#')).count();
            let text = written(&book).markdown;
            proptest::prop_assert_eq!(headings(&text), headings(&written(&rejected()).markdown));
            if let Err(e) = check(&text, &book.rows) {
                proptest::prop_assert!(false, "{}\n\n{}", e, text);
            }
        }
    }
}
