//! Config maps and secrets that are empty, or close to what an object may hold.

use super::uses::{Source, Uses};
use crate::checks::words;
use crate::objects::{Blob, Meta};
use crate::{Context, Finding, Grade, ObjectRef};
use nightshift_model::FaultClass;
use std::collections::BTreeMap;

/// What the values of a config map or secret may have together, bytes: the API server refuses more.
const SIZE_MAX: usize = 1 << 20;
/// Share of it from which the next change may be refused.
const SIZE_NEAR: f64 = 0.85;
/// Namespaces of the system, whose objects have their own ways.
pub(super) const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Runs the checks.
pub(super) fn run(cx: &Context<'_>, uses: &Uses<'_>, out: &mut Vec<Finding>) {
    for map in cx.world.config_maps.iter().filter(|m| m.metadata.deletion_timestamp.is_none()) {
        let values: Vec<(&str, &Blob)> = entries(&map.data).chain(entries(&map.binary_data)).collect();
        let me = ObjectRef::of("ConfigMap", &map.metadata);
        out.extend(large(&me, &values, ""));
        if !marker(&map.metadata) {
            out.extend(empty(uses, Source::ConfigMap, &me, &map.metadata, &values));
        }
    }
    for secret in cx.world.secrets.iter().filter(|s| s.metadata.deletion_timestamp.is_none()) {
        let values: Vec<(&str, &Blob)> = entries(&secret.data).collect();
        let me = ObjectRef::of("Secret", &secret.metadata);
        out.extend(large(&me, &values, &secret.kind));
        // Tokens are filled in by a controller; certificates by an issuer, with a finding of its own.
        let by_controller = matches!(secret.kind.as_str(), "kubernetes.io/service-account-token" | "kubernetes.io/tls");
        if !by_controller {
            out.extend(empty(uses, Source::Secret, &me, &secret.metadata, &values));
        }
    }
    out.extend(cx.world.events.iter().filter_map(|e| {
        // What could not be written says its name: ConfigMap "x" is invalid: []: Too long: may not be more than 1048576 bytes
        let at = e.message.find("1048576").filter(|_| e.message.contains("Too long"))?;
        let text = &e.message[..at];
        let (kind, rest) =
            ["ConfigMap", "Secret"].iter().find_map(|k| text.split_once(&format!("{k} \"")).map(|(_, r)| (*k, r)))?;
        let name = rest.split('"').next().filter(|n| !n.is_empty())?;
        let me = ObjectRef::new(kind, e.involved_object.namespace.clone(), name);
        let why = format!(
            "{} tried to write more than 1 MiB, which the API server refuses",
            if e.reporter().is_empty() { "somebody" } else { e.reporter() }
        );
        let about = &e.involved_object;
        Some(
            finding(&me, format!("{kind} {name} is too large: it cannot be written"), why, "")
                .event(e)
                .hits(ObjectRef::new(about.kind.clone(), about.namespace.clone(), about.name.clone())),
        )
    }));
}

fn entries(data: &BTreeMap<String, Blob>) -> impl Iterator<Item = (&str, &Blob)> {
    data.iter().map(|(k, v)| (k.as_str(), v))
}

/// Whether a config map only marks something: its data is not what matters.
fn marker(meta: &Meta) -> bool {
    meta.annotations.get("control-plane.alpha.kubernetes.io/leader").is_some()
        || meta.name.ends_with("-lock")
        || meta.name.ends_with("-leader")
        || meta.name.contains("leader-election")
}

fn large(me: &ObjectRef, values: &[(&str, &Blob)], kind: &str) -> Option<Finding> {
    let size: usize = values.iter().map(|(_, v)| v.size).sum();
    if (size as f64) < SIZE_MAX as f64 * SIZE_NEAR {
        return None;
    }
    let (key, most) = values.iter().max_by_key(|(_, v)| v.size).map(|(k, v)| (*k, v.size)).unwrap_or_default();
    let share = size as f64 / SIZE_MAX as f64 * 100.0;
    let state = if size > SIZE_MAX { "over" } else { "close to" };
    let why = format!(
        "it holds {} ({share:.0} % of the limit), most of it in key `{key}` ({})",
        words::bytes(size as f64),
        words::bytes(most as f64)
    );
    let fix = if kind == "helm.sh/release.v1" {
        "Split the chart, or keep large files out of it: the release record holds all of it"
    } else {
        ""
    };
    Some(
        finding(me, format!("{} {} is {state} the limit of 1 MiB", me.kind, me.name), why, fix)
            .field(me, &format!("data.{key}"), format!("{most} bytes"))
            .fact(format!("{}#data", me.path()), &me.kind.to_ascii_lowercase(), format!("{size} of {SIZE_MAX} bytes")),
    )
}

fn finding(me: &ObjectRef, summary: String, why: String, fix: &str) -> Finding {
    let usual = "Move large files into a volume, an image or object storage, or split them over several objects: past 1 MiB every change is refused";
    Finding::new(FaultClass::ConfigTooLarge, me.clone(), summary)
        .because(me.clone(), why)
        .fix(if fix.is_empty() { usual } else { fix })
        .graded(Grade::Medium)
}

fn empty(uses: &Uses<'_>, source: Source, me: &ObjectRef, meta: &Meta, values: &[(&str, &Blob)]) -> Option<Finding> {
    let readers = uses.readers(source, &me.namespace, &me.name);
    let needed = readers.is_some_and(|r| r.needed);
    if values.is_empty() {
        // What is optional may be empty; what an operator owns or the system made is theirs.
        let theirs = !meta.owner_references.is_empty() || SYSTEM.contains(&me.namespace.as_str());
        let lacks_key = readers.is_some_and(|r| r.needs_key);
        if lacks_key || (!needed && (theirs || readers.is_some())) {
            return None;
        }
    } else if !needed || values.iter().any(|(_, v)| v.size > 0) {
        return None;
    }
    let keys: Vec<&str> = values.iter().map(|(k, _)| *k).collect();
    let what = if keys.is_empty() {
        "has no data".to_owned()
    } else {
        format!("has only empty values ({})", words::list(&keys))
    };
    let by: Vec<String> = readers.iter().flat_map(|r| &r.by).map(ToString::to_string).collect();
    let read = if by.is_empty() { String::new() } else { format!("; {} reads it", words::list(&by)) };
    let writer = meta.last_data_writer().map_or(String::new(), |w| super::by(&w.manager));
    let mut finding = Finding::new(FaultClass::ConfigEmpty, me.clone(), format!("{} {} {what}", me.kind, me.name))
        .because(me.clone(), format!("it {what}, as it was written{writer}{read}"))
        .fix(format!(
            "Put the values in that its readers expect, or delete it if nobody needs it: kubectl -n {} edit {} {}",
            me.namespace,
            me.kind.to_ascii_lowercase(),
            me.name
        ))
        .graded(if needed { Grade::Medium } else { Grade::Low })
        .field(me, "data", if keys.is_empty() { "empty".to_owned() } else { format!("{}: 0 bytes", keys.join(", ")) });
    for reader in readers.iter().flat_map(|r| &r.by) {
        finding = finding.hits(reader.clone()).explains(reader.clone());
    }
    Some(finding)
}
