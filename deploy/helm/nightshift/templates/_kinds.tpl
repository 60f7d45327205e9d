{{/*
What is watched, by API group. Only these, only get, list and watch; one list for the chart, so that a Role of one
namespace and the ClusterRole can never differ.
*/}}

{{/* Kinds that live in namespaces. */}}
{{- define "nightshift.rules.namespaced" -}}
- apiGroups: ['']
  resources:
    - pods
    - events
    - services
    - endpoints
    - persistentvolumeclaims
    - configmaps
    - serviceaccounts
    - resourcequotas
    - limitranges
  verbs: [get, list, watch]
{{- if .Values.watch.podLogs }}
- apiGroups: ['']
  resources: [pods/log]
  verbs: [get]
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, list, watch]
- apiGroups: [apps]
  resources: [deployments, replicasets, statefulsets, daemonsets, controllerrevisions]
  verbs: [get, list, watch]
- apiGroups: [batch]
  resources: [jobs, cronjobs]
  verbs: [get, list, watch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses, networkpolicies]
  verbs: [get, list, watch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch]
{{- if .Values.watch.metrics }}
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [get, list]
{{- end }}
{{- if .Values.watch.secrets }}
- apiGroups: ['']
  resources: [secrets]
  verbs: [get, list, watch]
{{- end }}
{{- if .Values.watch.customResources }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways, httproutes, grpcroutes, referencegrants]
  verbs: [get, list, watch]
- apiGroups: [argoproj.io]
  resources: [applications, appprojects, rollouts]
  verbs: [get, list, watch]
- apiGroups: [kyverno.io]
  resources: [policies, policyexceptions]
  verbs: [get, list, watch]
- apiGroups: [wgpolicyk8s.io]
  resources: [policyreports]
  verbs: [get, list, watch]
- apiGroups: [openreports.io]
  resources: [reports]
  verbs: [get, list, watch]
- apiGroups: [cert-manager.io]
  resources: [certificates, certificaterequests, issuers]
  verbs: [get, list, watch]
- apiGroups: [kustomize.toolkit.fluxcd.io]
  resources: [kustomizations]
  verbs: [get, list, watch]
- apiGroups: [helm.toolkit.fluxcd.io]
  resources: [helmreleases]
  verbs: [get, list, watch]
- apiGroups: [source.toolkit.fluxcd.io]
  resources: [gitrepositories, ocirepositories, helmrepositories]
  verbs: [get, list, watch]
- apiGroups: [keda.sh]
  resources: [scaledobjects, scaledjobs, triggerauthentications]
  verbs: [get, list, watch]
- apiGroups: [monitoring.coreos.com]
  resources: [prometheuses, prometheusrules, alertmanagers, alertmanagerconfigs, servicemonitors, podmonitors]
  verbs: [get, list, watch]
- apiGroups: [postgresql.cnpg.io]
  resources: [clusters]
  verbs: [get, list, watch]
- apiGroups: [operators.coreos.com]
  resources: [subscriptions, installplans, clusterserviceversions, catalogsources]
  verbs: [get, list, watch]
- apiGroups: [networking.istio.io]
  resources: [virtualservices, destinationrules, sidecars]
  verbs: [get, list, watch]
- apiGroups: [security.istio.io]
  resources: [peerauthentications, authorizationpolicies]
  verbs: [get, list, watch]
{{- end }}
{{- end }}

{{/* Kinds of the whole cluster. */}}
{{- define "nightshift.rules.clusterScoped" -}}
- apiGroups: ['']
  resources: [nodes, namespaces, persistentvolumes]
  verbs: [get, list, watch]
- apiGroups: [storage.k8s.io]
  resources: [storageclasses, csinodes, volumeattachments]
  verbs: [get, list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingressclasses]
  verbs: [get, list, watch]
- apiGroups: [scheduling.k8s.io]
  resources: [priorityclasses]
  verbs: [get, list, watch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles, clusterrolebindings]
  verbs: [get, list, watch]
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
  verbs: [get, list, watch]
- apiGroups: [certificates.k8s.io]
  resources: [certificatesigningrequests]
  verbs: [get, list, watch]
- apiGroups: [apiregistration.k8s.io]
  resources: [apiservices]
  verbs: [get, list, watch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get, list, watch]
{{- if .Values.watch.metrics }}
- apiGroups: [metrics.k8s.io]
  resources: [nodes]
  verbs: [get, list]
{{- end }}
{{- if .Values.watch.kubeletStats }}
- apiGroups: ['']
  resources: [nodes/stats]
  verbs: [get]
{{- end }}
{{- if .Values.watch.customResources }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses]
  verbs: [get, list, watch]
- apiGroups: [kyverno.io]
  resources: [clusterpolicies]
  verbs: [get, list, watch]
- apiGroups: [wgpolicyk8s.io]
  resources: [clusterpolicyreports]
  verbs: [get, list, watch]
- apiGroups: [openreports.io]
  resources: [clusterreports]
  verbs: [get, list, watch]
- apiGroups: [cert-manager.io]
  resources: [clusterissuers]
  verbs: [get, list, watch]
{{- end }}
{{- end }}
