//! One look at a cluster: everything that may be read, once, and what could not be seen.
//!
//! Only reads: lists, logs, the metrics API, and the question which lists are allowed. What one kind is refused does not
//! keep the others from being seen.

use crate::client::{ApiServer, KubeError};
use crate::discovery::{Endpoint, Kind, Served, discover};
use crate::list::list;
use crate::{logs, metrics, rights};
use futures::StreamExt as _;
use futures::stream;
use nightshift_cluster::{Resource, Seen, World};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

mod text;

pub use text::{json, not_seen, text};

/// Lists at a time. Each holds one page; more than this and the server, not we, is what is waited for.
const LISTS: usize = 6;
/// Namespaces that are looked into one by one, where the whole cluster may not be.
const NAMESPACES_MAX: usize = 200;

/// What to look at beyond objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LookOptions {
    /// Look into this namespace where the whole cluster may not be looked at, and at logs of this namespace only.
    pub namespace: Option<String>,
    /// Not at logs.
    pub no_logs: bool,
    /// Not at the metrics API.
    pub no_metrics: bool,
    /// Not at secrets.
    pub no_secrets: bool,
}

/// Something that could not be seen, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unseen {
    /// Names of kinds in URLs, or another thing: `secrets`.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What one look gave.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// Everything seen.
    pub world: World,
    /// What was not, and why.
    pub unseen: Vec<Unseen>,
    /// Objects seen.
    pub objects: usize,
    /// Kinds of which some are there.
    pub kinds: usize,
    /// Namespaces that hold something.
    pub namespaces: usize,
}

/// Looks at everything once.
///
/// # Errors
/// When nothing at all could be seen.
pub async fn look(server: &ApiServer, options: &LookOptions) -> Result<Sight, KubeError> {
    // Also tells at once whether there is anybody, and whether we are let in.
    let version = match server_version(server).await {
        Err(e) if e.is_hopeless() => return Err(e),
        other => other.unwrap_or_default(),
    };
    let Served { endpoints, absent, trouble } = discover(server).await;
    let mut sight = Sight { world: World { server_version: version, ..World::default() }, ..Sight::default() };
    for kind in absent {
        kind.set_seen(&mut sight.world, Seen::NotServed);
    }
    if let Some(why) = trouble {
        sight.unseen.push(Unseen { what: "kinds of other software".into(), why });
    }
    let mut first = None;
    let mut refused: Vec<(Endpoint, String)> = Vec::new();
    let (hidden, wanted): (Vec<_>, Vec<_>) =
        endpoints.into_iter().partition(|e| options.no_secrets && e.kind == Kind::Known(Resource::Secrets));
    for endpoint in hidden {
        endpoint.kind.set_seen(&mut sight.world, Seen::Refused("switched off".into()));
    }
    let mut lists = stream::iter(wanted)
        .map(|endpoint| async move {
            let listed = list(server, &endpoint, None).await;
            (endpoint, listed)
        })
        .buffer_unordered(LISTS);
    let mut seen_any = false;
    while let Some((endpoint, listed)) = lists.next().await {
        match listed {
            Ok((mut world, _)) => {
                seen_any = true;
                endpoint.kind.exchange(&mut sight.world, &mut world, None);
                endpoint.kind.set_seen(&mut sight.world, Seen::Whole);
            }
            Err(KubeError::NotFound) => endpoint.kind.set_seen(&mut sight.world, Seen::NotServed),
            Err(KubeError::Forbidden(why)) => refused.push((endpoint, why)),
            Err(e) => {
                refuse(&mut sight, &endpoint, &e.to_string());
                first.get_or_insert(e);
            }
        }
    }
    drop(lists);
    refused.sort_by_key(|(endpoint, _)| endpoint.kind);
    let in_namespaces = look_by_namespace(server, options, &mut sight, refused).await;
    if !seen_any && !in_namespaces {
        let why = "nothing may be listed; ask for a role with `get`, `list` and `watch`, such as `view`";
        return Err(first.unwrap_or_else(|| KubeError::Forbidden(why.into())));
    }
    if !options.no_metrics {
        metrics::read(server, &mut sight.world).await;
    }
    if !options.no_logs {
        logs::read(server, &mut sight.world, options.namespace.as_deref()).await;
    }
    sight.unseen.sort();
    count(&mut sight);
    Ok(sight)
}

/// Looks into namespaces one by one for what was refused for the whole cluster. Gives whether anything was seen.
async fn look_by_namespace(
    server: &ApiServer,
    options: &LookOptions,
    sight: &mut Sight,
    refused: Vec<(Endpoint, String)>,
) -> bool {
    let (spread, whole): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(endpoint, _)| endpoint.namespaced);
    let mut namespaces: BTreeSet<String> = match &options.namespace {
        Some(one) => BTreeSet::from([one.clone()]),
        None => {
            let all = sight.world.namespaces.iter().map(|n| n.metadata.name.clone());
            all.take(NAMESPACES_MAX).chain(std::iter::once(server.namespace().to_owned())).collect()
        }
    };
    namespaces.retain(|n| is_name(n));
    let mut any = false;
    for (endpoint, why) in whole {
        if endpoint.kind == Kind::Known(Resource::Namespaces) {
            any |= look_at_namespaces(server, sight, &namespaces).await;
        }
        refuse(sight, &endpoint, &format!("forbidden: {why}"));
    }
    if spread.is_empty() {
        return any;
    }
    let rules: BTreeMap<String, rights::Rules> = stream::iter(&namespaces)
        .map(|namespace| async move { (namespace.clone(), rights::rules(server, namespace).await) })
        .buffer_unordered(LISTS)
        .collect()
        .await;
    for (endpoint, why) in spread {
        let allowed: Vec<&String> = namespaces
            .iter()
            .filter(|n| rules.get(*n).is_none_or(|r| r.may_list(endpoint.kind.group(), &endpoint.plural)))
            .collect();
        let asked = &endpoint;
        let listed: Vec<_> = stream::iter(allowed)
            .map(|namespace| async move { (namespace, list(server, asked, Some(namespace)).await) })
            .buffer_unordered(LISTS)
            .collect()
            .await;
        let mut seen = BTreeSet::new();
        for (namespace, listed) in listed {
            if let Ok((mut world, _)) = listed {
                endpoint.kind.exchange(&mut sight.world, &mut world, Some(namespace));
                seen.insert(namespace.clone());
            }
        }
        if seen.is_empty() {
            refuse(sight, &endpoint, &format!("forbidden: {why}"));
            continue;
        }
        any = true;
        if options.namespace.is_none() {
            let names = seen.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            let more = if seen.len() > 5 { ", …" } else { "" };
            let why = format!("forbidden for the whole cluster, seen in {names}{more} only");
            sight.unseen.push(Unseen { what: endpoint.plural.clone(), why });
        }
        endpoint.kind.set_seen(&mut sight.world, Seen::Namespaces(seen));
    }
    any
}

/// Namespaces that may be read, but not listed.
async fn look_at_namespaces(server: &ApiServer, sight: &mut Sight, namespaces: &BTreeSet<String>) -> bool {
    let mut any = false;
    for namespace in namespaces {
        let path = format!("/api/v1/namespaces/{namespace}");
        if let Ok(bytes) = server.get_patiently(&path, 2 << 20).await {
            any |= Kind::Known(Resource::Namespaces).put(&mut sight.world, &bytes).is_ok();
        }
    }
    any
}

fn refuse(sight: &mut Sight, endpoint: &Endpoint, why: &str) {
    endpoint.kind.set_seen(&mut sight.world, Seen::Refused(why.to_owned()));
    sight.unseen.push(Unseen { what: endpoint.plural.clone(), why: why.to_owned() });
}

fn count(sight: &mut Sight) {
    let counts = Kind::all().map(|k| k.count(&sight.world)).filter(|n| *n > 0);
    let (mut objects, mut kinds) = (0, 0);
    for n in counts {
        objects += n;
        kinds += 1;
    }
    (sight.objects, sight.kinds) = (objects, kinds);
    let own: BTreeSet<&str> = sight.world.namespaces.iter().map(|n| n.metadata.name.as_str()).collect();
    let of_pods = sight.world.pods.iter().map(|p| p.metadata.namespace.as_str());
    sight.namespaces = own.into_iter().chain(of_pods).collect::<BTreeSet<_>>().len();
}

/// Whether a text can be a namespace: it goes into paths.
pub fn is_name(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty() && text.len() <= 253 && text.bytes().all(inside) && !text.starts_with(['-', '.'])
}

/// Version of the API server: `v1.36.3`.
///
/// # Errors
/// When it does not tell.
pub async fn server_version(server: &ApiServer) -> Result<String, KubeError> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Version {
        git_version: String,
    }
    let bytes = server.get_patiently("/version", 64 << 10).await?;
    let version: Version = serde_json::from_slice(&bytes).map_err(|_| KubeError::Unreadable("no version".into()))?;
    Ok(version.git_version.chars().take(64).collect())
}
