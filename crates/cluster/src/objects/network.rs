//! Services, routes, network policies and webhooks.

use super::meta::{Condition, IntOrString, LabelSelector, Labels, Many, Meta};
use super::workload::object;
use serde::Deserialize;

object! {
    /// A service.
    Service { ServiceSpec, Empty }
}
object! {
    /// An ingress.
    Ingress { IngressSpec, IngressStatus }
}
object! {
    /// A class of ingresses.
    IngressClass { IngressClassSpec, Empty }
}
object! {
    /// A network policy.
    NetworkPolicy { NetworkPolicySpec, Empty }
}
object! {
    /// A class of gateways.
    GatewayClass { GatewayClassSpec, ConditionsStatus }
}
object! {
    /// A gateway.
    Gateway { GatewaySpec, GatewayStatus }
}
object! {
    /// An HTTP (or gRPC) route.
    Route { RouteSpec, RouteStatus }
}
object! {
    /// Allows references from other namespaces.
    ReferenceGrant { ReferenceGrantSpec, Empty }
}

/// Nothing that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Empty {}

/// A status of conditions alone.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ConditionsStatus {
    /// They.
    pub conditions: Many<Condition>,
}

/// What a service wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP` (also when empty), `NodePort`, `LoadBalancer`, `ExternalName`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which pods; empty selects none: somebody else keeps the endpoints.
    pub selector: Labels,
    /// Ports.
    pub ports: Many<ServicePort>,
    /// `None` for a headless one.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// Name that it stands for.
    pub external_name: String,
    /// `Cluster` (also when empty) or `Local`.
    pub internal_traffic_policy: String,
    /// `Cluster` (also when empty) or `Local`.
    pub external_traffic_policy: String,
    /// Whether pods count before they are ready.
    pub publish_not_ready_addresses: bool,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Name.
    pub name: String,
    /// `TCP` (also when empty), `UDP`, `SCTP`.
    pub protocol: String,
    /// What callers use.
    pub port: i64,
    /// Number or name of the container's; `port` when absent.
    pub target_port: Option<IntOrString>,
}

/// A slice of the endpoints of a service (label `kubernetes.io/service-name`).
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Metadata.
    pub metadata: Meta,
    /// `IPv4`, `IPv6`, `FQDN`.
    pub address_type: String,
    /// Endpoints.
    pub endpoints: Many<Endpoint>,
    /// Ports.
    pub ports: Many<EndpointPort>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// Addresses.
    pub addresses: Many<String>,
    /// Whether it takes traffic.
    pub conditions: EndpointConditions,
    /// Which pod it is.
    pub target_ref: Option<super::workload::TargetRef>,
    /// Node it is on.
    pub node_name: Option<String>,
}

/// Whether an endpoint takes traffic; absent counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Takes traffic.
    pub ready: Option<bool>,
    /// Could take traffic, terminating or not.
    pub serving: Option<bool>,
    /// On its way out.
    pub terminating: Option<bool>,
}

/// A port of endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// Name.
    pub name: Option<String>,
    /// Number.
    pub port: Option<i64>,
}

/// What is known of an ingress.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressStatus {
    /// Addresses that somebody gave it.
    pub load_balancer: LoadBalancerStatus,
}

/// Addresses under which something can be reached.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// They; what they are stays unread.
    pub ingress: Many<serde::de::IgnoredAny>,
}

/// What an ingress wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressSpec {
    /// Its class.
    pub ingress_class_name: Option<String>,
    /// Where the rest goes.
    pub default_backend: Option<IngressBackend>,
    /// Rules.
    pub rules: Many<IngressRule>,
    /// Certificates.
    pub tls: Many<IngressTls>,
}

/// A rule for one host.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// Host; empty means all.
    pub host: String,
    /// Paths.
    pub http: Option<IngressPaths>,
}

/// Paths of a rule.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct IngressPaths {
    /// They.
    pub paths: Many<IngressPath>,
}

/// A path and where it goes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressPath {
    /// Path.
    pub path: String,
    /// `Exact`, `Prefix`, `ImplementationSpecific`.
    pub path_type: String,
    /// Where it goes.
    pub backend: IngressBackend,
}

/// Where an ingress sends to.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct IngressBackend {
    /// A service.
    pub service: Option<IngressService>,
    /// Another object.
    pub resource: Option<super::workload::TargetRef>,
}

/// A service and its port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct IngressService {
    /// Name.
    pub name: String,
    /// Port.
    pub port: IngressPort,
}

/// A port by name or number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct IngressPort {
    /// Name.
    pub name: String,
    /// Number; 0 when by name.
    pub number: i64,
}

/// A certificate of an ingress.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressTls {
    /// For these hosts.
    pub hosts: Many<String>,
    /// In this secret.
    pub secret_name: String,
}

/// What a class of ingresses wants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct IngressClassSpec {
    /// Who acts on it.
    pub controller: String,
}

/// What a network policy wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// Pods that it is about; empty means all.
    pub pod_selector: LabelSelector,
    /// `Ingress`, `Egress`.
    pub policy_types: Many<String>,
    /// Who may come in; absent or empty: nobody.
    pub ingress: Many<NetworkRule>,
    /// Where they may go; absent or empty: nowhere (when `Egress` is among the types).
    pub egress: Many<NetworkRule>,
}

/// One rule. No peers: everybody; no ports: all.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct NetworkRule {
    /// Peers of an ingress rule.
    pub from: Many<NetworkPeer>,
    /// Peers of an egress rule.
    pub to: Many<NetworkPeer>,
    /// Ports.
    pub ports: Many<NetworkPort>,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPeer {
    /// Pods (of the policy's namespace, or of those selected).
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces.
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses.
    pub ip_block: Option<IpBlock>,
}

/// A block of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct IpBlock {
    /// The block.
    pub cidr: String,
    /// Without these.
    pub except: Many<String>,
}

/// A port of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkPort {
    /// Protocol.
    pub protocol: String,
    /// Port; all when absent.
    pub port: Option<IntOrString>,
    /// Last of a range.
    pub end_port: Option<i64>,
}

/// What a class of gateways wants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// Who acts on it.
    pub controller_name: String,
}

/// What a gateway wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Its class.
    pub gateway_class_name: String,
    /// Listeners.
    pub listeners: Many<Listener>,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Listener {
    /// Name.
    pub name: String,
    /// Host; empty means all.
    pub hostname: String,
    /// Port.
    pub port: i64,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`.
    pub protocol: String,
    /// Which routes may attach.
    pub allowed_routes: Option<AllowedRoutes>,
    /// Certificates.
    pub tls: Option<ListenerTls>,
}

/// Which routes may attach.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    /// From which namespaces.
    pub namespaces: RouteNamespaces,
}

/// From which namespaces routes may attach.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct RouteNamespaces {
    /// `Same` (also when empty), `All`, `Selector`.
    pub from: String,
    /// With `Selector`.
    pub selector: Option<LabelSelector>,
}

/// Certificates of a listener.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListenerTls {
    /// Secrets.
    pub certificate_refs: Many<CrossRef>,
}

/// A reference that may cross namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CrossRef {
    /// Group; absent means the default of the place.
    pub group: Option<String>,
    /// Kind; absent means the default of the place.
    pub kind: Option<String>,
    /// Namespace; absent means the same.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Listener of a parent.
    pub section_name: Option<String>,
    /// Port.
    pub port: Option<i64>,
    /// Share of a backend.
    pub weight: Option<i64>,
}

/// The status of a gateway.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct GatewayStatus {
    /// `Accepted`, `Programmed`.
    pub conditions: Many<Condition>,
    /// Of listeners.
    pub listeners: Many<ListenerStatus>,
}

/// The status of a listener.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ListenerStatus {
    /// Name.
    pub name: String,
    /// Conditions.
    pub conditions: Many<Condition>,
}

/// What a route wants.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteSpec {
    /// Gateways.
    pub parent_refs: Many<CrossRef>,
    /// Hosts.
    pub hostnames: Many<String>,
    /// Rules.
    pub rules: Many<RouteRule>,
}

/// A rule of a route.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteRule {
    /// Where it goes.
    pub backend_refs: Many<CrossRef>,
}

/// The status of a route.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    /// By parent.
    pub parents: Many<RouteParent>,
}

/// What one parent says of a route.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteParent {
    /// The parent.
    pub parent_ref: CrossRef,
    /// `Accepted`, `ResolvedRefs`.
    pub conditions: Many<Condition>,
}

/// What a grant allows.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ReferenceGrantSpec {
    /// From these.
    pub from: Many<CrossRef>,
    /// To these.
    pub to: Many<CrossRef>,
}

/// A configuration of webhooks, mutating or validating.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct WebhookConfiguration {
    /// Metadata.
    pub metadata: Meta,
    /// Webhooks.
    pub webhooks: Many<Webhook>,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Webhook {
    /// Name.
    pub name: String,
    /// Who is called.
    pub client_config: WebhookClient,
    /// What for.
    pub rules: Many<WebhookRule>,
    /// `Fail` (also when empty) or `Ignore`.
    pub failure_policy: String,
    /// For objects of these namespaces.
    pub namespace_selector: LabelSelector,
    /// For these objects.
    pub object_selector: LabelSelector,
    /// Seconds for an answer; 10 unless told.
    pub timeout_seconds: Option<i64>,
}

/// Whom a webhook calls.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WebhookClient {
    /// A service.
    pub service: Option<WebhookService>,
    /// Or a URL, kept as its host alone.
    pub url: Option<super::value::Blob>,
    /// Certificate that is trusted, PEM in base64; public.
    pub ca_bundle: Option<String>,
}

/// The service of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct WebhookService {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Port; 443 unless told.
    pub port: Option<i64>,
    /// Path.
    pub path: String,
}

/// What a webhook is called for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WebhookRule {
    /// Groups.
    pub api_groups: Many<String>,
    /// Resources.
    pub resources: Many<String>,
    /// `CREATE`, `UPDATE` …
    pub operations: Many<String>,
    /// `Namespaced`, `Cluster`, `*`.
    pub scope: String,
}
