use super::*;

#[test]
fn lines_and_what_is_critical_about_them() {
    let m = Matcher::new(true, &[]).unwrap();
    let cases: &[(&str, u32, Option<FaultClass>)] = &[
        ("Out of memory: Killed process 4711 (java) total-vm:8GB", 0, Some(FaultClass::OomKill)),
        ("Out of memory: Kill process 12 (x) score 900", 9, Some(FaultClass::OomKill)),
        ("java.lang.OutOfMemoryError: Java heap space", 17, Some(FaultClass::OomKill)),
        ("write /var/lib/x: no space left on device", 17, Some(FaultClass::DiskFull)),
        ("write /var/lib/x: no space left on device", 9, None),
        ("thread 'main' panicked at src/main.rs:3:5", 0, Some(FaultClass::ProcessFailure)),
        ("x509: certificate has expired or is not yet valid", 17, Some(FaultClass::CertificateExpiry)),
        ("accept4: too many open files; retrying", 13, Some(FaultClass::QuotaExhausted)),
        ("FATAL: sorry, too many clients already", 21, Some(FaultClass::DbConnectionExhaustion)),
        ("process 7 detected deadlock", 17, None),
        ("ERROR: deadlock detected", 17, Some(FaultClass::LockContention)),
        ("anything at all", 21, Some(FaultClass::CriticalLog)),
        ("anything at all", 20, None),
        ("panic=10 is set", 0, None),
        ("don't panicky: x", 0, None),
        ("debugcore dumpedx", 0, None),
        ("", 0, None),
    ];
    for (line, severity, want) in cases {
        assert_eq!(m.find(line, *severity).map(|c| c.fault), *want, "{line}");
    }
}

#[test]
fn the_highest_score_wins_whatever_the_order_in_the_line() {
    let m = Matcher::new(true, &[]).unwrap();
    let found = m.find("fatal error: too many open files; kernel panic - not syncing", 0).unwrap();
    assert_eq!(found.pattern, Some("kernel panic"));
}

#[test]
fn bad_patterns_are_refused() {
    let p = |text: &str, score| CriticalPattern { text: text.into(), score, ..Default::default() };
    let bytes = PATTERN_BYTES_MAX + 1;
    let cases = [
        (vec![p("", 0.5)], PatternError::Length { index: 0, bytes: 0 }),
        (vec![p("abc", 0.5), p(&"x".repeat(bytes), 0.5)], PatternError::Length { index: 1, bytes }),
        (vec![p("abc", f64::NAN)], PatternError::Score { index: 0 }),
        (vec![p("abc", 1.5)], PatternError::Score { index: 0 }),
        (vec![p("abc", 0.5); PATTERNS_MAX + 1], PatternError::Count(PATTERNS_MAX + 1)),
    ];
    for (own, want) in cases {
        assert_eq!(Matcher::new(false, &own).map(|_| ()).unwrap_err(), want);
    }
    assert!(Matcher::new(false, &[]).unwrap().find("kernel panic", 0).is_none());
}
