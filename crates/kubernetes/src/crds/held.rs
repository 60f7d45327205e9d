//! What the watches of one kind brought, namespace by namespace. No I/O.

use super::library::ObjectKey;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::Value;
use std::collections::BTreeMap;

/// Objects of one kind and namespace at most; what more there is is not taken, and said.
pub(super) const OBJECTS_MAX: usize = 1_000;

/// An object as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) spec: Value,
    pub(super) status: Value,
}

impl Object {
    fn of(object: DynamicObject) -> Option<Self> {
        let DynamicObject { metadata, mut data, .. } = object;
        let part = |data: &mut Value, key: &str| data.get_mut(key).map(Value::take).unwrap_or_default();
        Some(Self {
            key: ObjectKey { namespace: metadata.namespace?, name: metadata.name? },
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            spec: part(&mut data, "spec"),
            status: part(&mut data, "status"),
        })
    }
}

#[derive(Debug, Default)]
struct Space {
    objects: BTreeMap<String, Object>,
    /// A list that is being read.
    listing: Option<BTreeMap<String, Object>>,
    /// Whether it was listed once, or cannot be.
    settled: bool,
    /// Objects that were not taken.
    refused: usize,
}

/// All objects of one kind.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<String, Space>);

impl Held {
    pub(super) fn of<'a>(namespaces: impl IntoIterator<Item = &'a String>) -> Self {
        Self(namespaces.into_iter().map(|n| (n.clone(), Space::default())).collect())
    }

    /// Takes what a watch says. Whether anything but a status changed.
    pub(super) fn take(&mut self, namespace: &str, event: Event<DynamicObject>) -> bool {
        let Some(space) = self.0.get_mut(namespace) else { return false };
        match event {
            Event::Init => {
                space.listing = Some(BTreeMap::new());
                space.refused = 0;
                false
            }
            Event::InitApply(object) => {
                if let Some((object, listing)) = living(object).zip(space.listing.as_mut()) {
                    if listing.len() < OBJECTS_MAX {
                        listing.insert(object.key.name.clone(), object);
                    } else {
                        space.refused += 1;
                    }
                }
                false
            }
            Event::InitDone => {
                let new = space.listing.take().unwrap_or_default();
                let same = space.settled
                    && new.len() == space.objects.len()
                    && new.iter().all(|(name, o)| space.objects.get(name).is_some_and(|old| is_same(old, o)));
                space.objects = new;
                space.settled = true;
                !same
            }
            Event::Apply(object) => {
                let name = object.metadata.name.clone().unwrap_or_default();
                let Some(object) = living(object) else { return space.objects.remove(&name).is_some() };
                let old = space.objects.get(&name);
                if old.is_none() && space.objects.len() >= OBJECTS_MAX {
                    space.refused += 1;
                    return false;
                }
                let changed = !old.is_some_and(|old| is_same(old, &object));
                space.objects.insert(name, object);
                changed
            }
            Event::Delete(object) => object.metadata.name.is_some_and(|name| space.objects.remove(&name).is_some()),
        }
    }

    /// This namespace cannot be read: what others hold must not wait for it. Whether that is news.
    pub(super) fn give_up(&mut self, namespace: &str) -> bool {
        self.0.get_mut(namespace).is_some_and(|space| !std::mem::replace(&mut space.settled, true))
    }

    /// Whether all was listed once.
    pub(super) fn is_whole(&self) -> bool {
        self.0.values().all(|s| s.settled)
    }

    /// Objects that were not taken: there are too many.
    pub(super) fn refused(&self) -> usize {
        self.0.values().map(|s| s.refused).sum()
    }

    /// All, by namespace and name.
    pub(super) fn all(&self) -> Vec<Object> {
        self.0.values().flat_map(|s| s.objects.values().cloned()).collect()
    }

    /// What we wrote, until the watch says so.
    pub(super) fn wrote(&mut self, object: &Object, status: Value) {
        let space = self.0.get_mut(&object.key.namespace);
        if let Some(held) = space.and_then(|s| s.objects.get_mut(&object.key.name)).filter(|h| h.uid == object.uid) {
            held.status = status;
        }
    }
}

/// One that is being deleted has left, whatever still holds it.
fn living(object: DynamicObject) -> Option<Object> {
    if object.metadata.deletion_timestamp.is_some() { None } else { Object::of(object) }
}

fn is_same(a: &Object, b: &Object) -> bool {
    a.uid == b.uid && a.generation == b.generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, generation: i64, status: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "nightshift.dev/v1alpha1", "kind": "Playbook",
            "metadata": {"name": name, "namespace": "own", "uid": format!("u-{name}"), "generation": generation},
            "spec": {"title": name}, "status": status,
        }))
        .unwrap()
    }

    fn held() -> Held {
        Held::of(&["own".to_owned(), "shop".to_owned()])
    }

    #[test]
    fn nothing_is_whole_before_every_namespace_was_listed_or_given_up() {
        let mut held = held();
        assert!(!held.take("own", Event::Init));
        assert!(!held.take("own", Event::InitApply(object("a", 1, Value::Null))));
        assert_eq!(held.all(), []);
        assert!(held.take("own", Event::InitDone));
        assert!(!held.is_whole());
        assert!(held.give_up("shop"));
        assert!(!held.give_up("shop"));
        assert!(held.is_whole());
        assert_eq!(held.all().len(), 1);
        assert_eq!(held.all()[0].spec, json!({"title": "a"}));
    }

    #[test]
    fn a_new_status_is_no_change_and_a_new_generation_is() {
        let mut held = held();
        assert!(held.take("own", Event::Apply(object("a", 1, Value::Null))));
        assert!(!held.take("own", Event::Apply(object("a", 1, json!({"digest": "x"})))));
        assert_eq!(held.all()[0].status, json!({"digest": "x"}));
        assert!(held.take("own", Event::Apply(object("a", 2, json!({"digest": "x"})))));
        let mut born_again = object("a", 2, Value::Null);
        born_again.metadata.uid = Some("other".into());
        assert!(held.take("own", Event::Apply(born_again)));
    }

    #[test]
    fn what_a_later_list_does_not_have_was_deleted() {
        let mut held = held();
        held.take("own", Event::Apply(object("a", 1, Value::Null)));
        held.take("own", Event::Apply(object("b", 1, Value::Null)));
        held.take("own", Event::Init);
        held.take("own", Event::InitApply(object("b", 1, Value::Null)));
        assert_eq!(held.all().len(), 2, "the old list counts until the new one is complete");
        assert!(held.take("own", Event::InitDone));
        assert_eq!(held.all().iter().map(|o| o.key.name.as_str()).collect::<Vec<_>>(), ["b"]);
        held.take("own", Event::Init);
        held.take("own", Event::InitApply(object("b", 1, Value::Null)));
        assert!(!held.take("own", Event::InitDone), "the same again is no change");
    }

    #[test]
    fn one_that_is_being_deleted_has_left() {
        let mut held = held();
        held.take("own", Event::Apply(object("a", 1, Value::Null)));
        let mut dying = object("a", 1, Value::Null);
        dying.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-22T10:00:00Z")).unwrap();
        assert!(held.take("own", Event::Apply(dying.clone())));
        assert_eq!(held.all(), []);
        assert!(!held.take("own", Event::Delete(dying)));
    }

    #[test]
    fn there_is_an_upper_bound_and_what_is_beyond_it_is_counted() {
        let mut held = held();
        for i in 0..=OBJECTS_MAX {
            held.take("own", Event::Apply(object(&format!("p{i}"), 1, Value::Null)));
        }
        assert_eq!((held.all().len(), held.refused()), (OBJECTS_MAX, 1));
    }
}
