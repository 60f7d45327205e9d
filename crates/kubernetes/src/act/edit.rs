//! Edits: one object, a few fields, put back exactly.
//!
//! Lives here: the before-image, the stale-world check, the write that expects the version that was read, the marks that
//! say which order was carried out last, the undo that takes back our own fields and no others.
//! Never here: which fields an action sets ([`Deed::aim`]).
//!
//! # Marks
//! What we wrote carries `nightshift.dev/last-key` and `nightshift.dev/fence` in its annotations, written in the same
//! request as the change: whether a key was done can be read from the object, by whoever comes after a crash. An undo
//! puts them back too. A write holds the `resourceVersion` that was read, so one that arrives late changes nothing.

use super::door::Mode;
use super::json::{self, Fields};
use super::place::Place;
use super::{Context, answer};
use async_trait::async_trait;
use nightshift_act::{ActError, Answer, CANARY_SHARE, operation_of};
use nightshift_model::{Action, ActionOutcome, EntityId, Image, Operation};
use serde_json::{Map, Value, json};

/// Annotation: key of the order that was carried out last.
pub(super) const LAST_KEY: &str = "nightshift.dev/last-key";
/// Annotation: its fence.
pub(super) const FENCE: &str = "nightshift.dev/fence";
/// Annotation: the share of a canary. Its apply and its undo are not told.
pub(super) const SHARE: &str = "nightshift.dev/canary-share";
const MARKS: [&str; 3] = [LAST_KEY, FENCE, SHARE];
/// Fact with what an undo puts back.
pub(super) const RESTORE: &str = "restore";

/// How often an object is read again when somebody else wrote it meanwhile.
const TRIES: u32 = 6;

/// An object, and the fields of it that an action may set.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) place: Place,
    pub(super) object: Value,
    /// JSON pointers.
    pub(super) roots: Vec<String>,
}

impl Subject {
    pub(super) fn new(place: Place, object: Value, roots: &[&str]) -> Self {
        Self { place, object, roots: roots.iter().map(|r| (*r).to_owned()).collect() }
    }

    pub(super) fn fields(&self) -> Fields {
        json::fields(&self.object, &self.roots)
    }

    fn mark(&self, name: &str) -> Value {
        json::get(&self.object, &annotation(name))
    }

    pub(super) fn last_key(&self) -> String {
        self.mark(LAST_KEY).as_str().unwrap_or_default().to_owned()
    }

    fn fence(&self) -> u64 {
        self.mark(FENCE).as_str().and_then(|f| f.parse().ok()).unwrap_or(0)
    }

    /// Of the canary that was carried out last.
    fn share(&self) -> Option<f64> {
        self.mark(SHARE).as_str().and_then(|s| s.parse().ok()).filter(|s| *s > 0.0 && *s < 1.0)
    }

    fn uid(&self) -> &str {
        json::text(&self.object, "/metadata/uid")
    }
}

/// What an action sets.
#[derive(Debug, Clone)]
pub(super) struct Aim {
    /// Which of the subjects.
    pub(super) which: usize,
    /// Its fields afterwards, by the pointers of its roots or below them.
    pub(super) fields: Fields,
    /// For people.
    pub(super) said: String,
}

/// An action that edits objects.
#[async_trait]
pub(super) trait Deed: Send + Sync {
    /// The objects that it may edit for a target: one, or a few of which the values of an order name one.
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError>;

    /// Facts for playbooks.
    async fn facts(&self, cx: &Context<'_>, target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError>;

    /// The fields after the order. `subjects` are as they were before it. `share`: of a canary.
    async fn aim(
        &self,
        cx: &Context<'_>,
        subjects: &[Subject],
        action: &Action,
        share: Option<f64>,
    ) -> Result<Aim, ActError>;

    /// Waits until the world is as wanted, and says how it went; `Err`: it will not get there, with why.
    async fn settle(&self, _cx: &Context<'_>, _place: &Place, _share: Option<f64>) -> Result<String, String> {
        Ok(String::new())
    }
}

fn annotation(name: &str) -> String {
    format!("/metadata/annotations/{}", json::escaped(name))
}

fn share_of(action: &Action, operation: Operation) -> Option<f64> {
    let told = action.params.get(CANARY_SHARE).and_then(Value::as_f64).filter(|s| *s > 0.0 && *s < 1.0);
    (operation == Operation::Canary).then(|| told.unwrap_or(0.34))
}

/// The image: facts, and what an undo puts back.
pub(super) async fn look(deed: &dyn Deed, cx: &Context<'_>, target: &EntityId) -> Result<Image, ActError> {
    let subjects = deed.find(cx, target).await?;
    let mut image = deed.facts(cx, target, &subjects).await?;
    image.insert(RESTORE.into(), restore_of(&subjects));
    Ok(image)
}

pub(super) fn restore_of(subjects: &[Subject]) -> Value {
    let one = |s: &Subject| {
        let fields: Map<String, Value> = s.fields().into_iter().collect();
        let marks: Map<String, Value> = MARKS.iter().map(|m| ((*m).to_owned(), s.mark(m))).collect();
        json!({"uid": s.uid(), "fields": fields, "marks": marks})
    };
    Value::Object(subjects.iter().map(|s| (s.place.label(), one(s))).collect())
}

/// The subject as it was when it was looked at.
fn as_before(subject: &Subject, before: &Image) -> Result<Option<Subject>, ActError> {
    let Some(kept) = before.get(RESTORE).and_then(|r| r.get(subject.place.label())) else { return Ok(None) };
    if kept.get("uid").and_then(Value::as_str) != Some(subject.uid()) {
        let what = subject.place.label();
        return Err(ActError::Refused(format!("the world changed: {what} is another object of the same name by now")));
    }
    let mut was = subject.clone();
    for (pointer, value) in kept.get("fields").and_then(Value::as_object).into_iter().flatten() {
        json::set(&mut was.object, pointer, value.clone());
    }
    for name in MARKS {
        let value = kept.pointer(&format!("/marks/{}", json::escaped(name))).cloned().unwrap_or(Value::Null);
        json::set(&mut was.object, &annotation(name), value);
    }
    Ok(Some(was))
}

fn all_before(subjects: &[Subject], before: &Image) -> Result<Vec<Subject>, ActError> {
    subjects.iter().map(|s| Ok(as_before(s, before)?.unwrap_or_else(|| s.clone()))).collect()
}

/// The object with these fields and marks.
fn with(object: &Value, fields: &Fields, marks: &[(&str, Value)]) -> Value {
    let mut out = object.clone();
    for (pointer, value) in fields {
        json::set(&mut out, pointer, value.clone());
    }
    for (name, value) in marks {
        json::set(&mut out, &annotation(name), value.clone());
    }
    out
}

/// The patch from what was read to what is wanted; it holds the version that was read.
fn patch_of(read: &Value, wanted: &Value) -> Value {
    let mut patch = json::merge_patch(read, wanted);
    let version = json::get(read, "/metadata/resourceVersion");
    if !patch.is_object() {
        patch = json!({});
    }
    json::set(&mut patch, "/metadata/resourceVersion", version);
    patch
}

fn marks(action: &Action) -> [(&'static str, Value); 3] {
    let share = share_of(action, action.operation).map_or(Value::Null, |s| s.to_string().into());
    [(LAST_KEY, action.key.clone().into()), (FENCE, action.fence.to_string().into()), (SHARE, share)]
}

fn key_with(action: &Action, operation: Operation) -> String {
    nightshift_act::key_of(action.incident, action.plan, action.step, operation)
}

/// Carries one order out.
pub(super) async fn perform(deed: &dyn Deed, cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    match action.operation {
        Operation::Prepare => {
            let image = look(deed, cx, &action.target).await?;
            Ok(answer(ActionOutcome::Done, format!("{} facts read", image.len()), image))
        }
        Operation::DryRun => dry_run(deed, cx, action).await,
        Operation::Canary | Operation::Apply => change(deed, cx, action).await,
        Operation::Observe => observe(deed, cx, action).await,
        Operation::Undo => undo(deed, cx, action).await,
    }
}

async fn dry_run(deed: &dyn Deed, cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    for tried in 1.. {
        let subjects = deed.find(cx, &action.target).await?;
        let aim = deed.aim(cx, &all_before(&subjects, &action.before)?, action, None).await?;
        let subject = chosen(&subjects, &aim)?;
        let wanted = with(&subject.object, &aim.fields, &marks(action));
        let patch = patch_of(&subject.object, &wanted);
        match cx.try_patch(&subject.place, &subject.object, &wanted, &patch).await {
            Ok(how) => return Ok(answer(ActionOutcome::Done, format!("{}; {how}", aim.said), Image::new())),
            // A controller wrote its status meanwhile.
            Err(ActError::NotDone(_)) if tried < TRIES => cx.pause().await,
            Err(e) => return Err(e),
        }
    }
    unreachable!("the last try returns")
}

fn chosen<'a>(subjects: &'a [Subject], aim: &Aim) -> Result<&'a Subject, ActError> {
    subjects.get(aim.which).ok_or_else(|| ActError::Refused("the world changed: the object to edit is gone".into()))
}

async fn change(deed: &dyn Deed, cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    let share = share_of(action, action.operation);
    for _ in 0..TRIES {
        let subjects = deed.find(cx, &action.target).await?;
        if let Some(done) = done_already(cx, action, &subjects) {
            // Not a second time; but whether the world follows is still seen to.
            return settled(deed, cx, action, &done.place, share, format!("{}: done already", done.place.label()))
                .await;
        }
        let was = all_before(&subjects, &action.before)?;
        let canary = key_with(action, Operation::Canary);
        let held = subjects.iter().position(|s| s.last_key() == canary);
        let aim = match (deed.aim(cx, &was, action, share).await, held) {
            (Ok(aim), _) => aim,
            // A controller numbers the revision anew that a canary went back to: what is wanted runs there already.
            (Err(ActError::Refused(_)), Some(which)) => {
                let template = json::get(&subjects[which].object, "/spec/template");
                let said = format!("the rest of {}", subjects[which].place.label());
                Aim { which, fields: Fields::from([("/spec/template".to_owned(), template)]), said }
            }
            (Err(e), _) => return Err(e),
        };
        let (now, before) = (chosen(&subjects, &aim)?, chosen(&was, &aim)?);
        if now.fence() > action.fence {
            let (own, seen) = (action.fence, now.fence());
            return Err(ActError::Refused(format!("carry out an order of fence {own}: {seen} was seen")));
        }
        let expected = match held {
            None => before.fields(),
            Some(_) => match deed.aim(cx, &was, action, now.share()).await {
                Ok(canary) => json::fields(&with(&before.object, &canary.fields, &[]), &now.roots),
                Err(_) => now.fields(),
            },
        };
        if let Some((pointer, then, found)) = first_difference(&expected, &now.fields()) {
            return Err(ActError::Refused(format!(
                "the world changed: {pointer} of {} is {}, it was {}",
                now.place.label(),
                shown(&found),
                shown(&then)
            )));
        }
        // Beside what the order sets, what a canary set for its time goes back.
        let mut fields = before.fields();
        let mut whole = with(&before.object, &aim.fields, &[]);
        for (pointer, value) in &mut fields {
            *value = json::get(&whole, pointer);
        }
        whole = with(&now.object, &fields, &marks(action));
        cx.may_write(&now.place)?;
        match cx.door.patch(&now.place, &patch_of(&now.object, &whole), Mode::Real).await {
            Ok(object) => {
                cx.remember(&action.key, Some(json::fields(&object, &now.roots)));
                return settled(deed, cx, action, &now.place, share, aim.said).await;
            }
            // Somebody else wrote it, a controller its status most likely: it is read and judged again.
            Err(e) if e.is_conflict() => cx.pause().await,
            Err(e) => return Err(e.write(&now.place.label())),
        }
    }
    Err(ActError::NotDone(format!("write {}: it is written all the time by somebody else", action.target.name())))
}

/// The object that this key was carried out on.
fn done_already<'a>(cx: &Context<'_>, action: &Action, subjects: &'a [Subject]) -> Option<&'a Subject> {
    let marked = subjects.iter().find(|s| s.last_key() == action.key);
    marked.or_else(|| subjects.first().filter(|_| cx.remembers(&action.key)))
}

async fn settled(
    deed: &dyn Deed,
    cx: &Context<'_>,
    action: &Action,
    place: &Place,
    share: Option<f64>,
    said: String,
) -> Result<Answer, ActError> {
    let (outcome, detail) = match deed.settle(cx, place, share).await {
        Ok(how) if how.is_empty() => (ActionOutcome::Done, said),
        Ok(how) => (ActionOutcome::Done, format!("{said}; {how}")),
        Err(why) => (ActionOutcome::Failed, format!("{said}; {why}")),
    };
    Ok(answer(outcome, detail, after(deed, cx, action).await))
}

async fn after(deed: &dyn Deed, cx: &Context<'_>, action: &Action) -> Image {
    // It is done whatever the look says.
    let mut image = look(deed, cx, &action.target).await.unwrap_or_default();
    image.remove(RESTORE);
    image
}

fn first_difference(a: &Fields, b: &Fields) -> Option<(String, Value, Value)> {
    a.iter().find_map(|(pointer, value)| {
        json::leaves(pointer, value, b.get(pointer).unwrap_or(&Value::Null)).into_iter().next()
    })
}

fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((cut, _)) = text.char_indices().nth(60) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

async fn observe(deed: &dyn Deed, cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    let done = |said: &str| Ok(answer(ActionOutcome::FoundDone, said.to_owned(), Image::new()));
    if cx.remembers(&action.key) {
        return done("it was done");
    }
    let subjects = deed.find(cx, &action.target).await?;
    let keys: Vec<String> = subjects.iter().map(Subject::last_key).collect();
    let undoing = operation_of(&action.key) == Some(Operation::Undo);
    if !undoing && keys.contains(&action.key) {
        return done("its key is on the object");
    }
    let ours = [Operation::Apply, Operation::Canary].map(|o| key_with(action, o));
    let touched = keys.iter().any(|k| ours.contains(k));
    let was = all_before(&subjects, &action.before)?;
    let same = subjects.iter().zip(&was).all(|(now, was)| first_difference(&was.fields(), &now.fields()).is_none());
    match (undoing, touched, same) {
        (true, true, _) => Ok(answer(ActionOutcome::Failed, "the change is still there".into(), Image::new())),
        (true, false, true) => done("it is as it was before"),
        (false, _, true) | (false, true, _) => {
            Ok(answer(ActionOutcome::Failed, "it was not done".into(), Image::new()))
        }
        _ => Ok(answer(ActionOutcome::Unknown, "somebody else wrote it meanwhile; look at it".into(), Image::new())),
    }
}

async fn undo(deed: &dyn Deed, cx: &Context<'_>, action: &Action) -> Result<Answer, ActError> {
    if cx.remembers(&action.key) {
        return Ok(answer(ActionOutcome::Done, "taken back already".into(), after(deed, cx, action).await));
    }
    let mut said = Vec::new();
    let subjects = deed.find(cx, &action.target).await?;
    if action.before.get(RESTORE).is_none_or(|r| r.as_object().is_none_or(Map::is_empty)) {
        return Err(ActError::Refused("take it back: what it was before was not kept".into()));
    }
    for at in 0..subjects.len() {
        undo_one(deed, cx, action, at, &mut said).await?;
    }
    cx.remember(&action.key, None);
    let said = if said.is_empty() { "it is as it was before".to_owned() } else { said.join("; ") };
    if let Some(first) = subjects.first() {
        // Only its pace: that it is put back is certain.
        if let Err(why) = deed.settle(cx, &first.place, None).await {
            return Ok(answer(ActionOutcome::Done, format!("{said}; {why}"), after(deed, cx, action).await));
        }
    }
    Ok(answer(ActionOutcome::Done, said, after(deed, cx, action).await))
}

async fn undo_one(
    deed: &dyn Deed,
    cx: &Context<'_>,
    action: &Action,
    at: usize,
    said: &mut Vec<String>,
) -> Result<(), ActError> {
    for _ in 0..TRIES {
        let subjects = deed.find(cx, &action.target).await?;
        let Some(now) = subjects.get(at) else { return Ok(()) };
        let Some(before) = as_before(now, &action.before)? else { return Ok(()) };
        if now.fence() > action.fence {
            let (own, seen) = (action.fence, now.fence());
            return Err(ActError::Refused(format!("take back by an order of fence {own}: {seen} was seen")));
        }
        let what = now.place.label();
        let differ: Vec<_> =
            before.fields().iter().flat_map(|(p, v)| json::leaves(p, v, &json::get(&now.object, p))).collect();
        let key = now.last_key();
        let ours = [Operation::Apply, Operation::Canary].map(|o| key_with(action, o));
        if !ours.contains(&key) {
            if differ.is_empty() {
                return Ok(());
            }
            return Err(ActError::Refused(format!("take {what} back: somebody else changed it since; look at it")));
        }
        let left = left_by(deed, cx, action, &subjects, at, &key).await?;
        let mut wanted = now.object.clone();
        for (pointer, old, new) in &differ {
            match &left {
                // Neither as we left it nor as it was: that is somebody else's.
                Some(left) if !json::same(&json::get(left, pointer), new) => {
                    return Err(ActError::Refused(format!(
                        "take {what} back: {pointer} is {}, which is not what was left there; look at it",
                        shown(new)
                    )));
                }
                _ => json::set(&mut wanted, pointer, old.clone()),
            }
        }
        for name in MARKS {
            json::set(&mut wanted, &annotation(name), before.mark(name));
        }
        cx.may_write(&now.place)?;
        match cx.door.patch(&now.place, &patch_of(&now.object, &wanted), Mode::Real).await {
            Ok(_) => {
                said.push(format!("{what}: {} fields put back", differ.len()));
                return Ok(());
            }
            Err(e) if e.is_conflict() => cx.pause().await,
            Err(e) => return Err(e.write(&what)),
        }
    }
    Err(ActError::NotDone(format!("take {} back: it is written all the time by somebody else", action.target.name())))
}

/// The object as the order left it, as far as that can be told: remembered, else worked out again.
async fn left_by(
    deed: &dyn Deed,
    cx: &Context<'_>,
    action: &Action,
    subjects: &[Subject],
    at: usize,
    key: &str,
) -> Result<Option<Value>, ActError> {
    let now = &subjects[at];
    if let Some(fields) = cx.left(key) {
        return Ok(Some(with(&now.object, &fields, &[])));
    }
    let was = all_before(subjects, &action.before)?;
    let share = now.share().filter(|_| operation_of(key) == Some(Operation::Canary));
    // History that it was worked out from may be gone; the key on the object says that it is ours.
    let Ok(aim) = deed.aim(cx, &was, action, share).await else { return Ok(None) };
    Ok((aim.which == at).then(|| with(&was[at].object, &aim.fields, &[])))
}
