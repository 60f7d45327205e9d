//! Letters of whole incidents, and what is not told.

use crate::letter::{Detail, LetterKind, letters};
use crate::postmortem::fixtures::*;
use crate::{Letter, to_lines};
use nightshift_model::journal::apply;
use nightshift_model::{ActionType, Decision, EventKind, FaultClass, Risk, Severity};

/// The letters of a journal, each made when its row was the newest.
fn all(book: &Book) -> Vec<Letter> {
    let mut incident = None;
    let mut out = Vec::new();
    for row in &book.rows {
        incident = apply(incident, row);
        out.extend(letters(row, incident.as_ref().unwrap()));
    }
    out
}

fn kinds(letters: &[Letter]) -> Vec<&str> {
    letters.iter().map(|l| l.kind.as_str()).collect()
}

#[test]
fn an_incident_sends_its_letters_in_order_and_reads_well() {
    let book = approved();
    let mut told = String::new();
    for letter in all(&book) {
        told.push_str(&to_lines(&letter, false));
    }
    insta::assert_snapshot!("letters_approved", told);
    assert_eq!(kinds(&all(&book)), ["alert", "alert", "cause", "plan", "resolved"]);
    assert_eq!(kinds(&all(&rolled_back())), ["alert", "alert", "cause", "plan", "escalated"]);
    insta::assert_snapshot!("letter_escalated", to_lines(all(&rolled_back()).last().unwrap(), false));
    insta::assert_json_snapshot!("letter_plan_asked", all(&book)[3]);
}

#[test]
fn the_question_names_the_exact_commands() {
    let book = approved();
    let letter = all(&book).into_iter().find(|l| l.kind == LetterKind::Plan).unwrap();
    let hash = book.incident().plan.unwrap().hash;
    let commands: Vec<&str> = letter.answers.iter().map(|a| a.command.as_str()).collect();
    let approve = format!("nightshift approve INC-0007 --plan {}", hash.short());
    let reject = format!("nightshift reject INC-0007 --plan {}", hash.short());
    assert_eq!(commands, [approve.as_str(), &reject, "nightshift show INC-0007"]);
    let Detail::Plan { answer_until, decision, .. } = letter.detail else { panic!("{letter:?}") };
    assert_eq!((answer_until, decision), (Some(t(308.8)), Decision::Ask));
}

/// The same alert, and the same cause, is the same letter: a notifier that was sent it is not sent it again.
#[test]
fn topics_tell_the_new_from_the_known() {
    let mut book = approved();
    book.add(150.0, "system", EventKind::Reopened { why: "it came back".into() });
    book.assessed(150.1, &["payment-service"], "");
    book.add(150.2, "system", ranked(2, "payment-service", FaultClass::LatencySpike, 0.9));
    book.add(150.3, "system", ranked(3, "order-service", FaultClass::LatencySpike, 0.6));
    let told = all(&book);
    let topics = |kind| told.iter().filter(|l| l.kind == kind).map(|l| l.topic.as_str()).collect::<Vec<_>>();
    let alerts = topics(LetterKind::Alert);
    assert_eq!(alerts.len(), 4);
    assert!(alerts[0] == alerts[1] && alerts[1] != alerts[2] && alerts[2] == alerts[3], "{alerts:?}");
    let causes = topics(LetterKind::Cause);
    assert!(causes[0] == causes[1] && causes[1] != causes[2], "{causes:?}");
}

#[test]
fn injected_incidents_page_nobody() {
    let mut book = Book::new();
    let mut a = latency();
    a.entity.synthetic = true;
    book.opened(a).assessed(8.4, &["payment-service"], "").resolved(9.0, "system", "over");
    assert!(book.incident().synthetic);
    assert!(all(&book).is_empty());
}

#[test]
fn what_is_no_longer_true_is_not_told() {
    let book = approved();
    let end = book.incident();
    let asked = book.rows.iter().find(|r| matches!(r.event, EventKind::ApprovalRequested { .. })).unwrap();
    assert_eq!(letters(asked, &end), None, "it was answered in the meantime");
    let mut replaced = end.clone();
    replaced.plan = Some(plan("another", ActionType::RestartPods, Risk::Low, 0.5));
    let judged = book.rows.iter().find(|r| matches!(r.event, EventKind::Judged { .. })).unwrap();
    assert_eq!(letters(judged, &replaced), None);
    let mut other = end;
    other.id = nightshift_model::IncidentId(8);
    assert_eq!(letters(&book.rows[0], &other), None);
}

#[test]
fn unknown_is_no_cause_and_severity_is_that_of_the_moment() {
    let mut book = Book::new();
    let mut a = latency();
    (a.score, a.severity) = (0.6, Severity::Medium);
    book.opened(a).assessed(8.4, &["payment-service"], "");
    let EventKind::CausesRanked { hypotheses, .. } = ranked(1, "payment-service", FaultClass::LatencySpike, 0.5) else {
        panic!("a ranking")
    };
    let unknown = hypotheses.into_iter().rev().take(1).collect();
    book.add(8.5, "system", EventKind::CausesRanked { revision: 1, hypotheses: unknown });
    let told = all(&book);
    assert_eq!(kinds(&told), ["alert", "alert"]);
    assert_eq!([told[0].severity, told[1].severity], [Severity::Medium, Severity::Critical]);
    let wants = crate::Wants { severity_min: Severity::High, letters: vec![LetterKind::Alert] };
    assert_eq!(told.iter().map(|l| wants.takes(l)).collect::<Vec<_>>(), [false, true]);
}
