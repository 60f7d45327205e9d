//! The controller, as far as it needs no cluster: what the library is asked, and what is made of its answers.

use super::*;
use crate::crds::{ObjectKey, ObjectiveAnswer, ObjectiveOrder, PlaybookAnswer, PolicyAnswer};
use parking_lot::Mutex;

/// Takes everything, and answers one too few when told.
#[derive(Default)]
struct Taker {
    asked: Mutex<Vec<String>>,
    mute: bool,
}

#[async_trait::async_trait]
impl Library for Taker {
    async fn playbooks(&self, all: Vec<PlaybookText>) -> Vec<PlaybookAnswer> {
        self.asked.lock().extend(all.iter().map(|p| p.key.to_string()));
        let one = |_| PlaybookAnswer { answer: Answer::Accepted(String::new()), digest: "d".into() };
        all.into_iter().skip(usize::from(self.mute)).map(one).collect()
    }

    async fn policies(&self, all: Vec<PolicyText>) -> Vec<PolicyAnswer> {
        self.asked.lock().extend(all.iter().map(|p| p.rego.clone()));
        let one = |_| PolicyAnswer {
            answer: Answer::Refused { reason: "TestsFailed", messages: vec!["test_a fails".into()] },
            digest: String::new(),
            package: Some("p".into()),
            tests: Some((3, 4)),
        };
        all.into_iter().map(one).collect()
    }

    async fn objectives(&self, all: Vec<ObjectiveOrder>) -> Vec<ObjectiveAnswer> {
        let left = [Some(0.6249), None, Some(f64::NAN), Some(-0.5)];
        let one =
            |(_, budget_left)| ObjectiveAnswer { answer: Answer::Accepted(String::new()), entity: None, budget_left };
        all.into_iter().zip(left).map(one).collect()
    }
}

fn object(name: &str, spec: Value) -> Object {
    let key = ObjectKey { namespace: "own".into(), name: name.into() };
    Object { key, uid: "u".into(), generation: 1, spec, status: Value::Null }
}

#[tokio::test]
async fn each_object_gets_its_own_answer() {
    let library = Taker::default();
    let objects = [object("a", json!({"title": "a"})), object("b", Value::Null), object("c", json!({}))];
    let judged = judge(Kind::Playbook, &library, &objects).await;
    assert_eq!(*library.asked.lock(), ["own/a", "own/c"]);
    assert_eq!(judged[0].fields["digest"], "d");
    assert!(matches!(&judged[1].answer, Answer::Refused { reason: "Invalid", .. }));
    assert_eq!(judged[1].fields["digest"], "");
    assert!(matches!(judged[2].answer, Answer::Accepted(_)));
}

#[tokio::test]
async fn a_missing_answer_is_unknown_and_never_accepted() {
    let library = Taker { mute: true, ..Taker::default() };
    let judged = judge(Kind::Playbook, &library, &[object("a", json!({}))]).await;
    assert!(matches!(judged[0].answer, Answer::Unknown(_)));
}

#[tokio::test]
async fn a_policy_that_is_off_is_not_asked_about() {
    let library = Taker::default();
    let objects = [object("a", json!({"rego": "x"})), object("b", json!({"rego": "y", "enabled": false}))];
    let judged = judge(Kind::Policy, &library, &objects).await;
    assert_eq!(*library.asked.lock(), ["x"]);
    assert_eq!((&judged[0].fields["tests"], &judged[0].fields["package"]), (&json!("3/4"), &json!("p")));
    assert!(matches!(&judged[1].answer, Answer::Refused { reason: "Disabled", .. }));
}

#[tokio::test]
async fn a_budget_that_nobody_counted_is_unknown() {
    let spec = json!({"target": {"name": "cart"}, "objective": 99.0});
    let objects: Vec<Object> = ["a", "b", "c", "d"].iter().map(|n| object(n, spec.clone())).collect();
    let judged = judge(Kind::Objective, &Taker::default(), &objects).await;
    let told = |i: usize| (judged[i].fields["budget"].clone(), judged[i].fields.get("budgetLeft").cloned());
    assert_eq!(told(0), (json!("62 %"), Some(json!(0.62))));
    assert_eq!(told(1), (json!("unknown"), None));
    assert_eq!(told(2), (json!("unknown"), None));
    assert_eq!(told(3), (json!("-50 %"), Some(json!(-0.5))));
}
