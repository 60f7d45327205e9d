//! Every case file on a real API server: each fault gives exactly the findings that it expects, each healthy twin none.
//!
//! The API server is alone (no controllers, no nodes): objects are created as the case has them, and statuses patched
//! through their subresource. `CASE=name cargo test -p nightshift-kubernetes --test see_cases` runs those whose name or
//! file has that text. Needs `NIGHTSHIFT_TEST_KUBE_SERVER` (`testenv/up kubernetes`); without, it says so and passes.
#![allow(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

mod see;

use nightshift_cluster::cases::{self, Case};
use nightshift_cluster::{Finding, ObjectRef, Options, Seen, World, concerns, scan};
use nightshift_kubernetes::scan::{LookOptions, look};
use see::{Api, Put, now};
use std::collections::BTreeSet;
use std::path::Path;

/// A fault or a twin of a case.
struct Variant<'a> {
    file: &'a str,
    case: &'a Case,
    twin: Option<&'a str>,
    namespace: String,
}

impl Variant<'_> {
    fn objects(&self) -> Vec<serde_json::Value> {
        let own = self.twin.map_or(&self.case.fault, |t| &self.case.healthy[t]);
        let all = self.case.base.iter().chain(own);
        let mut objects: Vec<serde_json::Value> = Vec::new();
        for object in all.map(|o| cases::fill(o, self.case, &self.namespace, now())) {
            // A twin may have an object of the base otherwise: the later one counts, as offline.
            match objects.iter_mut().find(|o| see::is_same(o, &object)) {
                Some(before) => *before = object,
                None => objects.push(object),
            }
        }
        objects
    }

    /// Whether its objects are all in its own namespace, and whatever it is about too, so that others do not feel it.
    fn keeps_to_itself(&self) -> bool {
        // The API server is everybody's: what is wrong with it explains what is wrong elsewhere.
        let elsewhere =
            |object: &str| ObjectRef::parse(object).is_some_and(|o| !["", "NS"].contains(&o.namespace.as_str()));
        let case = self.case;
        let measured = case.signals.iter().chain(case.healthy_signals.iter().flatten()).map(|s| s.object.as_str());
        !case.expect.iter().map(|e| e.object.as_str()).chain(measured).any(elsewhere)
            && self.objects().iter().all(|o| {
                see::namespace(o) == Some(self.namespace.as_str()) || see::is_own_namespace(o, &self.namespace)
            })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_is_found_on_an_api_server_and_every_twin_is_silent() {
    let Some(api) = Api::start("see-cases").await else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/cases");
    let all = cases::load_all(&folder).unwrap();
    let only = std::env::var("CASE").unwrap_or_default();
    let mut variants = Vec::new();
    for (file, case) in &all {
        if !case.offline.is_empty() || (!case.name.contains(&only) && !file.contains(&only)) {
            continue;
        }
        for twin in std::iter::once(None).chain(case.healthy.keys().map(|k| Some(k.as_str()))) {
            variants.push(Variant { file, case, twin, namespace: cases::namespace_of(case, twin) });
        }
    }
    let names: BTreeSet<&str> = variants.iter().map(|v| v.namespace.as_str()).collect();
    assert_eq!(names.len(), variants.len(), "two variants have one namespace");
    let objects: Vec<_> = variants.iter().flat_map(Variant::objects).collect();
    api.define(&objects).await;

    let (together, alone): (Vec<&Variant>, Vec<&Variant>) = variants.iter().partition(|v| v.keeps_to_itself());
    let mut slips = Vec::new();
    // Those whose objects others would feel go on the server one after the other, while nothing else is there: whatever
    // is found then and was not before is theirs.
    let bare = scan(&see_all(&api).await, &Options { advice: true, ..Options::default() }, now());
    for variant in &alone {
        let put = api.put_all(&variant.namespace, variant.objects()).await;
        let world = see_all(&api).await;
        let Looked { mut found, .. } = look_into(world, &[variant]);
        found.retain(|f| !bare.iter().any(|b| b.identity() == f.identity()));
        slips.extend(judge(variant, &found, &put));
        api.remove(&variant.namespace, put).await;
    }
    // The others go on it together and are looked at once, with what some of them could not see taken away one by one.
    let mut put = Vec::new();
    for some in together.chunks(8) {
        put.extend(futures::future::join_all(some.iter().map(|v| api.put_all(&v.namespace, v.objects()))).await);
    }
    let world = see_all(&api).await;
    let (open, blind): (Vec<_>, Vec<_>) = together.into_iter().zip(put).partition(|(v, _)| v.case.unseen.is_empty());
    for (variant, put) in blind {
        slips.extend(judge(variant, &look_into(world.clone(), &[variant]).of(variant, &put), &put));
    }
    for advice in [false, true] {
        let some: Vec<_> = open.iter().filter(|(v, _)| v.case.options.advice == advice).collect();
        let seen = look_into(world.clone(), &some.iter().map(|(v, _)| *v).collect::<Vec<_>>());
        slips.extend(some.iter().filter_map(|(variant, put)| judge(variant, &seen.of(variant, put), put)));
    }
    let ran = variants.len();
    println!("{ran} variants of {} cases, {} of them alone, {} wrong", all.len(), alone.len(), slips.len());
    assert!(ran > 0 || all.is_empty(), "no case has `{only}` in its name");
    slips.sort();
    assert!(slips.is_empty(), "{} of {ran} wrong:\n{}", slips.len(), slips.join("\n"));
}

async fn see_all(api: &Api) -> World {
    let options = LookOptions { no_logs: true, no_metrics: true, ..LookOptions::default() };
    let sight = look(&api.server, &options).await.unwrap();
    assert_eq!(sight.unseen, [], "an admin sees everything");
    sight.world
}

/// A world, and what was found in it for the variants that are in it.
struct Looked {
    world: World,
    found: Vec<Finding>,
}

/// Feeds what no object holds, takes away what the first variant cannot see, and looks for faults.
fn look_into(mut world: World, variants: &[&Variant<'_>]) -> Looked {
    let now = now();
    for variant in variants {
        cases::feed(&mut world, variant.case, variant.twin, now);
        for resource in nightshift_cluster::Resource::ALL {
            if variant.case.unseen.iter().any(|u| u == resource.plural()) {
                world.clear(*resource, None);
                world.set_seen(*resource, Seen::Refused("forbidden".into()));
            }
        }
    }
    let options = variants.first().map(|v| cases::options(v.case)).unwrap_or_default();
    let found = scan(&world, &options, now);
    Looked { world, found }
}

impl Looked {
    /// What of it is a variant's, of several that are on the server.
    fn of(&self, Variant { namespace, .. }: &Variant<'_>, put: &Put) -> Vec<Finding> {
        // Several cases may name one node: what is found on it counts for those whose objects it names.
        let of_it = |o: &ObjectRef| o.namespace == *namespace;
        let own = |f: &&Finding| {
            let named = of_it(&f.object) || of_it(&f.cause.object) || f.symptoms.iter().any(of_it);
            (concerns(&self.world, f, namespace) && (named || f.object.kind == "Namespace"))
                || put.made.iter().any(|(_, o)| *o == f.object)
        };
        self.found.iter().filter(own).cloned().collect()
    }
}

fn judge(variant: &Variant<'_>, found: &[Finding], put: &Put) -> Option<String> {
    let Variant { file, case, twin, .. } = variant;
    let slip = if put.refused.is_empty() {
        cases::compare(case, *twin, found).err()
    } else {
        let twin = twin.unwrap_or("fault");
        Some(format!("{} ({twin}): the server refuses: {}", case.name, put.refused.join("; ")))
    };
    let slip = slip.map(|e| format!("{file}: {e}"))?;
    // Said at once: a run that is cut short has told something.
    eprintln!("{slip}");
    Some(slip)
}
