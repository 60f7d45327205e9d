//! What pods and nodes use, as the metrics API tells.

use crate::client::{ANSWER, ApiServer};
use nightshift_cluster::objects::{Meta, Quantity};
use nightshift_cluster::{Usage, World};
use serde::Deserialize;

/// Largest answer, bytes: the metrics API has no pages; 50,000 pods need about 30 MiB.
const BYTES_MAX: usize = 48 << 20;
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/pods";
const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Items<T> {
    #[serde(bound = "T: Deserialize<'de>", deserialize_with = "nullable")]
    items: Vec<T>,
}

fn nullable<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodUse {
    metadata: Meta,
    containers: Vec<ContainerUse>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerUse {
    name: String,
    usage: Amounts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeUse {
    metadata: Meta,
    usage: Amounts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Amounts {
    cpu: Quantity,
    memory: Quantity,
}

impl Amounts {
    const fn usage(&self) -> Usage {
        Usage { cpu: self.cpu.0, memory: self.memory.0 }
    }
}

/// What was read of the metrics API.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Used {
    /// By namespace, pod, container; `None` when it could not be read.
    pub(crate) containers: Option<nightshift_cluster::objects::ByContainer<Usage>>,
    /// By node; `None` when it could not be read.
    pub(crate) nodes: Option<std::collections::BTreeMap<String, Usage>>,
}

/// Asks the metrics API, where there is one.
pub(crate) async fn ask(server: &ApiServer) -> Used {
    let pods = server.get(PODS, BYTES_MAX, ANSWER).await.ok();
    let containers = pods.and_then(|bytes| serde_json::from_slice::<Items<PodUse>>(&bytes).ok()).map(|list| {
        let each = list.items.into_iter().flat_map(|pod| {
            let Meta { namespace, name, .. } = pod.metadata;
            pod.containers.into_iter().map(move |c| ((namespace.clone(), name.clone(), c.name), c.usage.usage()))
        });
        each.collect()
    });
    let nodes = server.get(NODES, BYTES_MAX, ANSWER).await.ok();
    let nodes = nodes.and_then(|bytes| serde_json::from_slice::<Items<NodeUse>>(&bytes).ok());
    let nodes = nodes.map(|list| list.items.into_iter().map(|n| (n.metadata.name, n.usage.usage())).collect());
    Used { containers, nodes }
}

/// Reads it into the world. A cluster without a metrics API is not worse for it: checks that need it stay silent.
pub(crate) async fn read(server: &ApiServer, world: &mut World) {
    let Used { containers, nodes } = ask(server).await;
    world.usage = containers.unwrap_or_default();
    world.node_usage = nodes.unwrap_or_default();
}
