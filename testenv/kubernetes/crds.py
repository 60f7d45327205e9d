#!/usr/bin/env python3
"""Prints definitions of the custom resources that the tests use, as one JSON list.

They take any field: a test is about what Nightshift makes of an object, not about the schema of its maker. Group,
version, kind, plural and scope are the real ones; those with a status have it as a subresource.
"""
import json

# group, version, scope (N = namespaced, C = cluster), {kind: plural}, status is a subresource
TABLE = [
    ("argoproj.io", "v1alpha1", "N", {"Application": "applications", "AppProject": "appprojects", "Rollout": "rollouts"}, False),
    ("kyverno.io", "v1", "C", {"ClusterPolicy": "clusterpolicies"}, True),
    ("kyverno.io", "v1", "N", {"Policy": "policies"}, True),
    ("kyverno.io", "v2", "N", {"PolicyException": "policyexceptions"}, False),
    ("wgpolicyk8s.io", "v1alpha2", "N", {"PolicyReport": "policyreports"}, False),
    ("wgpolicyk8s.io", "v1alpha2", "C", {"ClusterPolicyReport": "clusterpolicyreports"}, False),
    ("openreports.io", "v1alpha1", "N", {"Report": "reports"}, False),
    ("openreports.io", "v1alpha1", "C", {"ClusterReport": "clusterreports"}, False),
    ("gateway.networking.k8s.io", "v1", "C", {"GatewayClass": "gatewayclasses"}, True),
    ("gateway.networking.k8s.io", "v1", "N", {"Gateway": "gateways", "HTTPRoute": "httproutes", "GRPCRoute": "grpcroutes"}, True),
    ("gateway.networking.k8s.io", "v1beta1", "N", {"ReferenceGrant": "referencegrants"}, False),
    ("kustomize.toolkit.fluxcd.io", "v1", "N", {"Kustomization": "kustomizations"}, True),
    ("helm.toolkit.fluxcd.io", "v2", "N", {"HelmRelease": "helmreleases"}, True),
    ("source.toolkit.fluxcd.io", "v1", "N", {"GitRepository": "gitrepositories", "HelmRepository": "helmrepositories"}, True),
    ("cert-manager.io", "v1", "N", {"Certificate": "certificates", "CertificateRequest": "certificaterequests", "Issuer": "issuers"}, True),
    ("cert-manager.io", "v1", "C", {"ClusterIssuer": "clusterissuers"}, True),
    ("keda.sh", "v1alpha1", "N", {"ScaledObject": "scaledobjects", "ScaledJob": "scaledjobs", "TriggerAuthentication": "triggerauthentications"}, True),
    ("monitoring.coreos.com", "v1", "N", {"Prometheus": "prometheuses", "ServiceMonitor": "servicemonitors", "PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules", "Alertmanager": "alertmanagers"}, True),
    ("postgresql.cnpg.io", "v1", "N", {"Cluster": "clusters", "Backup": "backups"}, True),
    ("operators.coreos.com", "v1alpha1", "N", {"Subscription": "subscriptions", "ClusterServiceVersion": "clusterserviceversions", "InstallPlan": "installplans", "CatalogSource": "catalogsources"}, True),
    ("security.istio.io", "v1", "N", {"PeerAuthentication": "peerauthentications", "AuthorizationPolicy": "authorizationpolicies"}, True),
    ("networking.istio.io", "v1", "N", {"VirtualService": "virtualservices", "DestinationRule": "destinationrules"}, True),
]
# Older versions that are still served and asked for.
ALSO = {"HTTPRoute": ["v1beta1"], "Gateway": ["v1beta1"], "GatewayClass": ["v1beta1"], "PolicyException": ["v2beta1"]}


def definition(group, version, scope, kind, plural, status):
    versions = []
    for name in [version] + ALSO.get(kind, []):
        entry = {
            "name": name,
            "served": True,
            "storage": name == version,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        }
        if status:
            entry["subresources"] = {"status": {}}
        versions.append(entry)
    metadata = {"name": f"{plural}.{group}", "labels": {"nightshift.test/loose": "true"}}
    if group.endswith(".k8s.io"):  # names of Kubernetes' own need a reason
        metadata["annotations"] = {"api-approved.kubernetes.io": "unapproved, a loose definition for tests"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": group,
            "scope": "Namespaced" if scope == "N" else "Cluster",
            "names": {"kind": kind, "listKind": kind + "List", "plural": plural, "singular": kind.lower()},
            "versions": versions,
        },
    }


def main():
    items = [
        definition(group, version, scope, kind, plural, status)
        for group, version, scope, kinds, status in TABLE
        for kind, plural in kinds.items()
    ]
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1))


if __name__ == "__main__":
    main()
