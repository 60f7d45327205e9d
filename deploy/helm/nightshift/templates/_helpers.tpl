{{/* Names and labels. */}}

{{- define "nightshift.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "nightshift.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "nightshift.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Name of a cluster-wide object: two releases in two namespaces must not share one. */}}
{{- define "nightshift.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "nightshift.fullname" .) -}}
{{- end }}

{{- define "nightshift.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "nightshift.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "nightshift.selectorLabels" -}}
app.kubernetes.io/name: {{ include "nightshift.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nightshift.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "nightshift.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: nightshift
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "nightshift.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{/* The subject of every binding. */}}
{{- define "nightshift.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "nightshift.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}

{{/* The `restricted` pod security standard, and a root that cannot be written. */}}
{{- define "nightshift.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with .Values.runAsGroup }}
runAsGroup: {{ int64 . }}
{{- end }}
{{- with .Values.fsGroup }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "nightshift.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Where and on what a pod runs: the same for servers and workers. */}}
{{- define "nightshift.scheduling" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "nightshift.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- if eq .Values.store.type "postgres" }}
- name: NIGHTSHIFT_STORE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.store.postgres.existingSecret }}
      key: {{ .Values.store.postgres.key }}
{{- end }}
{{- if and (eq .Values.bus.type "kafka") .Values.bus.kafka.sasl.mechanism }}
- name: NIGHTSHIFT_KAFKA_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.bus.kafka.sasl.existingSecret }}
      key: {{ .Values.bus.kafka.sasl.key }}
{{- end }}
{{- range $name, $ref := .Values.secretEnv }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $ref.secret }}
      key: {{ $ref.key }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "nightshift.volumeMounts" -}}
- name: data
  mountPath: /var/lib/nightshift
- name: config
  mountPath: /etc/nightshift
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if and (eq .Values.bus.type "kafka") .Values.bus.kafka.tls.enabled .Values.bus.kafka.tls.existingSecret }}
- name: kafka-tls
  mountPath: /etc/nightshift-kafka
  readOnly: true
{{- end }}
{{- end }}

{{- define "nightshift.volumes" -}}
- name: config
  projected:
    sources:
      - configMap:
          name: {{ include "nightshift.fullname" . }}
      {{- if .Values.playbooks }}
      - configMap:
          name: {{ include "nightshift.fullname" . }}-playbooks
          items:
            {{- range $name, $_ := .Values.playbooks }}
            - key: {{ $name }}
              path: playbooks/{{ $name }}
            {{- end }}
      {{- end }}
      {{- if .Values.policies }}
      - configMap:
          name: {{ include "nightshift.fullname" . }}-policies
          items:
            {{- range $name, $_ := .Values.policies }}
            - key: {{ $name }}
              path: policies/{{ $name }}
            {{- end }}
      {{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
{{- if and (eq .Values.bus.type "kafka") .Values.bus.kafka.tls.enabled .Values.bus.kafka.tls.existingSecret }}
- name: kafka-tls
  secret:
    secretName: {{ .Values.bus.kafka.tls.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- end }}
