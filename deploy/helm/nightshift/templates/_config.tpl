{{/*
The configuration. The chart makes a map of it, the value `config` is merged over that, and the result is written as
TOML. (Helm's own toToml writes whole numbers of a values file as fractions, which the configuration refuses.)
*/}}

{{/* A value in one line. Input: the value. JSON texts are TOML texts too. */}}
{{- define "nightshift.toml.value" -}}
{{- if kindIs "map" . -}}
{ {{- $first := true -}}
{{- range $key, $value := . -}}
{{- if not $first }},{{ end }} {{ include "nightshift.toml.key" $key }} = {{ include "nightshift.toml.value" $value -}}
{{- $first = false -}}
{{- end }} }
{{- else if kindIs "slice" . -}}
[
{{- range $i, $value := . -}}
{{- if $i }}, {{ end -}}
{{- include "nightshift.toml.value" $value -}}
{{- end -}}
]
{{- else if kindIs "float64" . -}}
{{- if eq . (floor .) -}}{{ printf "%.0f" . }}{{- else -}}{{ . }}{{- end -}}
{{- else if or (typeIs "json.Number" .) (kindIs "bool" .) (kindIs "int" .) (kindIs "int64" .) -}}
{{ . }}
{{- else -}}
{{ toJson (toString .) }}
{{- end -}}
{{- end }}

{{- define "nightshift.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ toJson . }}{{- end -}}
{{- end }}

{{/* A map with all below it. Input: dict "path" (dotted) "map". Maps become tables, but for lists of maps and references
to secrets, which stand in one line. */}}
{{- define "nightshift.toml.table" -}}
{{- $path := .path -}}
{{- range $key, $value := .map -}}
{{- if and (not (kindIs "invalid" $value)) (or (not (kindIs "map" $value)) (include "nightshift.toml.isReference" $value)) }}
{{ include "nightshift.toml.key" $key }} = {{ include "nightshift.toml.value" $value -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := .map -}}
{{- if and (kindIs "map" $value) (not (include "nightshift.toml.isReference" $value)) -}}
{{- $here := include "nightshift.toml.key" $key -}}
{{- if $path }}{{ $here = printf "%s.%s" $path $here }}{{ end }}

[{{ $here }}]
{{- include "nightshift.toml.table" (dict "path" $here "map" $value) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "nightshift.toml.isReference" -}}
{{- if and (eq (len .) 1) (or (hasKey . "env") (hasKey . "file") (hasKey . "vault")) -}}
{{- if or (kindIs "string" .env) (kindIs "string" .file) (kindIs "string" .vault) }}yes{{ end -}}
{{- end -}}
{{- end }}

{{/* What the values say, as a map (YAML). */}}
{{- define "nightshift.config.map" -}}
{{- $v := .Values -}}
# The host is a container: its load is the node's business.
default_sources: false
api:
  listen: 0.0.0.0:8080
metrics:
  listen: 0.0.0.0:9090
# Every call from elsewhere needs a token.
auth: {}
otlp:
  enabled: {{ $v.otlp.enabled }}
  {{- if $v.otlp.enabled }}
  grpc_listen: 0.0.0.0:4317
  http_listen: 0.0.0.0:4318
  {{- end }}
ingest:
  resolve:
    cluster: {{ $v.cluster | quote }}
bus:
  {{- if eq $v.bus.type "kafka" }}
  type: kafka
  bootstrap_servers: {{ $v.bus.kafka.bootstrapServers | quote }}
  replication: {{ int $v.bus.kafka.replication }}
  {{- with $v.bus.kafka.tls }}
  {{- if .enabled }}
  tls:
    {{- if .existingSecret }}
    ca_file: /etc/nightshift-kafka/ca.crt
    {{- if .clientCertificate }}
    cert_file: /etc/nightshift-kafka/tls.crt
    key_file: /etc/nightshift-kafka/tls.key
    {{- end }}
    {{- else }} {}
    {{- end }}
  {{- end }}
  {{- end }}
  {{- with $v.bus.kafka.sasl }}
  {{- if .mechanism }}
  sasl:
    mechanism: {{ .mechanism }}
    username: {{ .username | quote }}
    password: { env: NIGHTSHIFT_KAFKA_PASSWORD }
  {{- end }}
  {{- end }}
  {{- else }}
  type: embedded
  {{- end }}
store:
  {{- if eq $v.store.type "postgres" }}
  type: postgres
  url: { env: NIGHTSHIFT_STORE_URL }
  max_connections: {{ int $v.store.postgres.maxConnections }}
  {{- else }}
  type: sqlite
  {{- end }}
{{- if $v.topology }}
topology:
  file: topology.yaml
{{- end }}
plan:
  actuator: kubernetes
  {{- if $v.playbooks }}
  folder: playbooks
  {{- end }}
guard:
  # Nothing is changed while this is on.
  dry_run: {{ not $v.act.enabled }}
  {{- if and $v.act.enabled (eq $v.act.approval "always") }}
  # No plan is surer than this: each asks.
  confidence_min: 1
  {{- end }}
  {{- if $v.act.enabled }}
  limits:
    namespaces:
      {{- toYaml $v.act.namespaces | nindent 6 }}
  {{- end }}
  {{- if $v.policies }}
  policies:
    folder: policies
  {{- end }}
sources:
  kubernetes:
    type: kubernetes
    secrets: {{ $v.watch.secrets }}
    logs: {{ $v.watch.podLogs }}
    metrics: {{ $v.watch.metrics }}
    {{- if or $v.watch.namespaces $v.watch.namespacesDenied }}
    namespaces:
      allow: {{ toJson $v.watch.namespaces }}
      deny: {{ toJson $v.watch.namespacesDenied }}
    {{- end }}
    {{- if gt (int $v.replicas) 1 }}
    # Each replica watches its share; `index` comes from the pod's number.
    shard:
      of: {{ int $v.replicas }}
    {{- end }}
    {{- with $v.watch.kubeconfig }}
    {{- if .existingSecret }}
    kubeconfig: /etc/nightshift-kube/config
    {{- end }}
    {{- if .contexts }}
    # This cluster, by the pod's own account, and the others.
    clusters:
      - { name: {{ $v.cluster | quote }}, context: '' }
      {{- range .contexts }}
      - { name: {{ . | quote }}, context: {{ . | quote }} }
      {{- end }}
    {{- end }}
    {{- end }}
actuators:
  kubernetes:
    type: kubernetes
{{- end }}

{{/* nightshift.toml */}}
{{- define "nightshift.config" -}}
{{- $made := fromYaml (include "nightshift.config.map" .) -}}
{{- with $made.Error }}{{ fail . }}{{ end -}}
{{- $all := mergeOverwrite $made (deepCopy .Values.config) -}}
# Written by the chart from its values; `nightshift config reference` has every key.
{{ include "nightshift.toml.table" (dict "path" "" "map" $all) | trim }}
{{- end }}
