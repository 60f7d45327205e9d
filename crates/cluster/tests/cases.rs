//! Every case file, offline: each fault gives exactly the findings that it expects, each healthy twin none.
//! `CASE=name cargo test -p nightshift-cluster --test cases` runs those whose name or file has that text.

use nightshift_cluster::{cases, scan};
use nightshift_model::Timestamp;
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn every_case_is_found_and_every_twin_is_silent() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let only = std::env::var("CASE").unwrap_or_default();
    let now = Timestamp::parse_rfc3339("2026-03-01T12:00:00Z").unwrap();
    let all = cases::load_all(&folder).unwrap();
    let names: BTreeSet<&str> = all.iter().map(|(_, c)| c.name.as_str()).collect();
    assert_eq!(names.len(), all.len(), "two cases have one name");
    let mut slips = Vec::new();
    let mut run = 0;
    for (file, case) in &all {
        if !case.name.contains(&only) && !file.contains(&only) {
            continue;
        }
        assert!(matches!(case.sees.as_str(), "O" | "H" | "L" | "M"), "{}: sees is O, H, L or M", case.name);
        assert!(!case.check.is_empty() && !case.expect.is_empty(), "{}: a case needs `check` and `expect`", case.name);
        assert!(!case.healthy.is_empty(), "{}: a case needs a healthy twin", case.name);
        for twin in std::iter::once(None).chain(case.healthy.keys().map(|k| Some(k.as_str()))) {
            run += 1;
            let options = cases::options(case);
            let result = cases::world(case, twin, now)
                .and_then(|world| cases::compare(case, twin, &scan(&world, &options, now)));
            slips.extend(result.err());
        }
    }
    assert!(run > 0 || all.is_empty(), "no case has `{only}` in its name");
    assert!(slips.is_empty(), "{} of {run} wrong:\n{}", slips.len(), slips.join("\n"));
}
