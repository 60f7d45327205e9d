//! Files of baselines: read, summed, refused.

use super::*;
use crate::models::sketch::{Form, Seen};
use nightshift_model::EntityKind;
use nightshift_model::families::SignalFamily;
use proptest::prelude::*;

fn key(family: SignalFamily) -> FamilyKey {
    FamilyKey { kind: EntityKind::Service, family: Some(family), form: Form::Level, metric: None }
}

fn summary(values: &[f64]) -> Summary {
    let mut sketch = FamilySketch::default();
    for (i, value) in values.iter().enumerate() {
        let (distance, error) = (Some(value / 10.0), Some(1.0));
        sketch.add(&Seen { value: *value, phase: i % 168, ratio: Some(1.0), distance, error });
    }
    sketch.add_series(1.5, 10.0);
    Summary { families: [(key(SignalFamily::Latency), sketch)].into(), days: Some((20_000, 20_003)) }
}

fn file(origin: &str, values: &[f64]) -> Baselines {
    Baselines::of(summary(values), origin, "default", "eu-1").unwrap()
}

#[test]
fn a_file_reads_as_it_was_written_and_its_id_follows_from_its_content() {
    let a = file("a", &[1.0, 2.5, -3.25, 1e-9]);
    let again = Baselines::parse(a.to_text().as_bytes()).unwrap();
    assert_eq!((&again, again.id()), (&a, a.id()));
    assert_ne!(a.id(), file("a", &[1.0, 2.5]).id());
    assert!(Baselines::of(Summary::default(), "a", "t", "c").is_none());
}

#[test]
fn nothing_but_what_was_promised_is_in_it() {
    let text = file("0f3a", &[123.456]).anonymous().to_text();
    for word in ["eu-1", "default", "123.456\"", "entity", "label", "timestamp"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

#[test]
fn the_same_days_of_a_learner_do_not_count_twice_in_whatever_file_they_come() {
    let (a, b) = (file("a", &[1.0]), file("b", &[2.0]));
    let mut sum = a.clone();
    sum.merge(&b).unwrap();
    let whole = sum.clone();
    for twice in [&a, &b, &whole] {
        assert!(matches!(sum.merge(twice), Err(ExportError::Overlap { .. })));
        assert_eq!(sum, whole, "nothing was added");
    }
    let mut later = a.clone();
    later.parts = later.parts.into_iter().map(|p| Part { from_day: 20_004, to_day: 20_009, ..p }).collect();
    sum.merge(&later).unwrap();
    assert_eq!((sum.parts.len(), sum.readings()), (3, 3));
}

#[test]
fn small_families_can_be_left_out() {
    let a = file("a", &[1.0]);
    assert_eq!(a.clone().drop_small(1), a);
    assert!(a.drop_small(2).families.is_empty());
}

#[test]
fn bad_files_are_refused_each_with_its_reason() {
    let good = file("a", &[1.0, 2.0]).to_text();
    let swap = |a: &str, b: &str| {
        assert!(good.contains(a), "{a} in {good}");
        good.replace(a, b)
    };
    let cases = [
        (String::new(), "no file of baselines"),
        ("[]".into(), "no file of baselines"),
        ("{}".into(), "`format` is not"),
        (good[..good.len() / 2].to_owned(), "no file of baselines"),
        (swap(FORMAT, "nightshift-snapshot"), "`format` is not"),
        (swap("\"version\":1", "\"version\":2"), "version 2"),
        (swap("\"readings\":2", "\"readings\":3"), "damaged or was edited"),
        (swap("\"readings\":2", "\"readings\":0"), "the parts cannot"),
        (swap("\"origin\":\"a\"", "\"origin\":\"\""), "the parts cannot"),
        (swap("\"eu-1\"", &format!("\"{}\"", "x".repeat(300))), "the parts cannot"),
        (swap("\"eu-1\"", "\"a\\u0007\""), "the parts cannot"),
        (swap("\"to_day\":20003", "\"to_day\":19999"), "the parts cannot"),
        (swap("\"to_day\":20003", "\"to_day\":9223372036854775807"), "the parts cannot"),
        (swap("\"series\":1", "\"series\":7"), "figures of `service/latency/level`"),
        (swap("\"n\":2", "\"n\":3"), "figures of"),
        (swap("\"mean\":1.5", "\"mean\":1e999"), "no file of baselines"),
        (swap("\"distances\":2", "\"distances\":2,\"entity\":\"cart\""), "unknown field"),
        (swap("\"family\":\"latency\"", "\"family\":\"weather\""), "unknown variant"),
        (swap("\"kind\":\"service\"", "\"kind\":\"service\",\"metric\":\"\""), "figures of"),
    ];
    for (text, want) in cases {
        let got = Baselines::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(got.contains(want), "{got}\nwants {want}\nfor {text}");
    }
    let text = format!("{}{}", good, " ".repeat(BYTES_MAX));
    assert!(matches!(Baselines::parse(text.as_bytes()), Err(ExportError::TooLarge(_))));
}

#[test]
fn the_corpus_of_the_fuzzer_is_read_without_a_panic() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/baselines");
    let mut n = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        fuzz_baselines(&std::fs::read(entry.unwrap().path()).unwrap());
        n += 1;
    }
    assert!(n >= 5, "{n}");
}

proptest! {
    #[test]
    fn whatever_the_bytes_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz_baselines(&bytes);
    }

    #[test]
    fn a_changed_byte_is_found(at in 0usize..10_000, to in any::<u8>()) {
        let good = file("a", &[1.0, 2.0, 40.0]).to_text().into_bytes();
        let mut bad = good.clone();
        let at = at % (bad.len() - 1);
        bad[at] = to;
        fuzz_baselines(&bad);
        if let Ok(read) = Baselines::parse(&bad) {
            // Only what JSON does not look at may differ.
            prop_assert_eq!(read, Baselines::parse(&good).unwrap());
        }
    }

    #[test]
    fn a_sum_does_not_depend_on_the_order(
        a in prop::collection::vec(-1e3f64..1e3, 1..40),
        b in prop::collection::vec(-1e3f64..1e3, 1..40),
    ) {
        let (a, b) = (file("a", &a), file("b", &b));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b).unwrap();
        ba.merge(&a).unwrap();
        prop_assert_eq!(&ab.parts, &ba.parts);
        let key = key(SignalFamily::Latency);
        let (x, y) = (&ab.families[&key], &ba.families[&key]);
        prop_assert_eq!(&x.values, &y.values);
        prop_assert!((x.moments.mean - y.moments.mean).abs() < 1e-9 * 1e3);
    }
}
