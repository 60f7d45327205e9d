//! Weights of an HTTPRoute.

use super::Context;
use super::edit::{Aim, Deed, Subject};
use super::json::{Fields, get, items, set, text};
use super::place::{Place, ROUTE};
use super::target::must;
use async_trait::async_trait;
use nightshift_act::ActError;
use nightshift_model::{Action, EntityId, Image};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const RULES: &str = "/spec/rules";
/// What somebody applied last, by `kubectl apply`: what its owner declared.
const APPLIED: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";

/// The weights of the backends of a route.
pub(super) struct Weights;

/// Each weighted backend of the rules that split traffic: its name, prefixed by `RULE.` where more than one rule does,
/// with pointer and weight.
fn backends(rules: &Value) -> BTreeMap<String, (String, i64)> {
    let all = rules.as_array().map_or(&[][..], Vec::as_slice);
    let split: Vec<usize> = (0..all.len()).filter(|i| items(&all[*i], "/backendRefs").len() > 1).collect();
    let mut out = BTreeMap::new();
    for i in &split {
        for (j, backend) in items(&all[*i], "/backendRefs").iter().enumerate() {
            let name = text(backend, "/name");
            let name = if split.len() > 1 { format!("{i}.{name}") } else { name.to_owned() };
            let weight = backend.get("weight").and_then(Value::as_i64).unwrap_or(1);
            out.insert(name, (format!("/{i}/backendRefs/{j}/weight"), weight));
        }
    }
    out
}

#[async_trait]
impl Deed for Weights {
    async fn find(&self, cx: &Context<'_>, target: &EntityId) -> Result<Vec<Subject>, ActError> {
        let (namespace, name) = (target.namespace(), target.name());
        if target.kind_str() == "httproute" {
            let place = Place::new(&ROUTE, &namespace, &name)?;
            let object = must(cx, &place).await?;
            return Ok(vec![Subject::new(place, object, &[RULES])]);
        }
        let all = cx.door.list(&ROUTE.collection(&namespace), "").await.map_err(|e| e.read("routes"))?;
        let leads = |route: &Value| {
            let refs = items(route, RULES).iter().flat_map(|r| items(r, "/backendRefs"));
            refs.into_iter().any(|b| text(b, "/name") == name) || text(route, "/metadata/name") == name
        };
        let mut found: Vec<Value> =
            all.into_iter().filter(|r| !backends(&get(r, RULES)).is_empty() && leads(r)).collect();
        if found.len() != 1 {
            let n = found.len();
            return Err(ActError::Refused(format!(
                "find the route of {name}: {n} routes split traffic to it; name one"
            )));
        }
        let object = found.remove(0);
        let place = Place::new(&ROUTE, &namespace, text(&object, "/metadata/name"))?;
        Ok(vec![Subject::new(place, object, &[RULES])])
    }

    async fn facts(&self, _cx: &Context<'_>, _target: &EntityId, subjects: &[Subject]) -> Result<Image, ActError> {
        let mut image = Image::new();
        let Some(route) = subjects.first() else { return Ok(image) };
        for (name, (_, weight)) in backends(&get(&route.object, RULES)) {
            image.insert(format!("weight.{name}"), json!(weight));
        }
        let applied: Option<Value> = serde_json::from_str(text(&route.object, APPLIED)).ok();
        for (name, (_, weight)) in applied.map(|a| backends(&get(&a, RULES))).unwrap_or_default() {
            if image.contains_key(&format!("weight.{name}")) {
                image.insert(format!("declared_weight.{name}"), json!(weight));
            }
        }
        Ok(image)
    }

    async fn aim(
        &self,
        _cx: &Context<'_>,
        subjects: &[Subject],
        action: &Action,
        _share: Option<f64>,
    ) -> Result<Aim, ActError> {
        super::whole_only(action)?;
        let Some(route) = subjects.first() else { return Err(ActError::Refused("there is no route".into())) };
        let what = route.place.label();
        let refused = |why: String| Err(ActError::Refused(format!("route {what}: {why}")));
        let Some(weights) = action.params.get("weights").and_then(Value::as_object) else {
            return refused("give `weights`: a weight for each backend".into());
        };
        let mut rules = get(&route.object, RULES);
        let known = backends(&rules);
        for (name, weight) in weights {
            let Some((pointer, _)) = known.get(name) else {
                let names = known.keys().cloned().collect::<Vec<_>>().join(", ");
                return refused(format!("it has no backend `{name}`; there are {names}"));
            };
            let whole = weight.as_i64().or_else(|| weight.as_f64().filter(|w| w.fract() == 0.0).map(|w| w as i64));
            match whole {
                Some(w) if (0..=1_000_000).contains(&w) => set(&mut rules, pointer, w.into()),
                _ => return refused(format!("weight {weight} of `{name}` is not 0 to 1000000")),
            }
        }
        if backends(&rules).values().map(|(_, w)| w).sum::<i64>() == 0 {
            return refused("all weights would be 0: nothing would be served".into());
        }
        let said = weights.iter().map(|(n, w)| format!("{n} {w}")).collect::<Vec<_>>().join(", ");
        Ok(Aim { which: 0, fields: Fields::from([(RULES.to_owned(), rules)]), said: format!("{what}: {said}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_have_names_and_places() {
        let one = json!([{"backendRefs": [{"name": "a"}]}, {"backendRefs": [{"name": "a", "weight": 90}, {"name": "b", "weight": 10}]}]);
        assert_eq!(
            backends(&one),
            BTreeMap::from([
                ("a".to_owned(), ("/1/backendRefs/0/weight".to_owned(), 90)),
                ("b".to_owned(), ("/1/backendRefs/1/weight".to_owned(), 10)),
            ])
        );
        let two =
            json!([{"backendRefs": [{"name": "a"}, {"name": "b"}]}, {"backendRefs": [{"name": "a"}, {"name": "c"}]}]);
        assert_eq!(backends(&two).into_keys().collect::<Vec<_>>(), ["0.a", "0.b", "1.a", "1.c"]);
    }
}
