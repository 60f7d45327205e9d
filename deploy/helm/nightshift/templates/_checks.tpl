{{/* What no schema can say. Each refusal says what to do next. */}}
{{- define "nightshift.checks" -}}
{{- $v := .Values -}}
{{- $shared := and (eq $v.bus.type "kafka") (eq $v.store.type "postgres") -}}
{{- if and $v.act.enabled (not $v.act.namespaces) -}}
{{- fail "act.enabled needs act.namespaces: Nightshift never writes where it was not told to. Name the namespaces in which it may act." -}}
{{- end -}}
{{- range $v.act.namespaces -}}
{{- if has . (list "kube-system" "kube-public" "kube-node-lease") -}}
{{- fail (printf "act.namespaces: %s belongs to the cluster itself and the guard denies every plan there; take it off the list" .) -}}
{{- end -}}
{{- end -}}
{{- if not $v.act.enabled -}}
{{- range $key := list "nodes" "helmRollback" "deleteStuckPods" -}}
{{- if index $v.act $key -}}
{{- fail (printf "act.%s needs act.enabled with act.namespaces" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.watch.scope "namespaces") (not $v.watch.namespaces) -}}
{{- fail "watch.scope `namespaces` needs watch.namespaces: name those that are to be watched" -}}
{{- end -}}
{{- if and $v.act.nodes (eq $v.watch.scope "namespaces") -}}
{{- fail "act.nodes needs watch.scope `cluster`: a drain is refused while a node holds pods outside act.namespaces, and only who reads all namespaces can know that" -}}
{{- end -}}
{{- if $v.watch.namespaces -}}
{{- range $v.act.namespaces -}}
{{- if not (has . $v.watch.namespaces) -}}
{{- fail (printf "act.namespaces: %s is not among watch.namespaces; what is not watched cannot be healed" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $v.act.namespaces -}}
{{- if has . $v.watch.namespacesDenied -}}
{{- fail (printf "act.namespaces: %s is among watch.namespacesDenied; what is not watched cannot be healed" .) -}}
{{- end -}}
{{- end -}}
{{- if and $v.detect.autoscaling.enabled (not $shared) -}}
{{- fail (printf "detect.autoscaling needs bus.type kafka and store.type postgres (they are %s and %s): the embedded bus and SQLite serve one process, so workers in other pods would have nothing to read" $v.bus.type $v.store.type) -}}
{{- end -}}
{{- if and (gt (int $v.replicas) 1) (not $shared) -}}
{{- fail (printf "replicas %d needs bus.type kafka and store.type postgres (they are %s and %s): the embedded bus and SQLite serve one process" (int $v.replicas) $v.bus.type $v.store.type) -}}
{{- end -}}
{{- if and (gt (int $v.replicas) 1) (not $v.leaderElection.enabled) -}}
{{- fail "replicas above 1 need leaderElection.enabled: one of them must lead" -}}
{{- end -}}
{{- if gt (int $v.detect.autoscaling.minReplicas) (int $v.detect.autoscaling.maxReplicas) -}}
{{- fail "detect.autoscaling.minReplicas is above maxReplicas" -}}
{{- end -}}
{{- if and (eq $v.bus.type "kafka") (not $v.bus.kafka.bootstrapServers) -}}
{{- fail "bus.type kafka needs bus.kafka.bootstrapServers (host:port, several separated by commas)" -}}
{{- end -}}
{{- if and (eq $v.bus.type "kafka") $v.bus.kafka.sasl.mechanism (not (and $v.bus.kafka.sasl.username $v.bus.kafka.sasl.existingSecret)) -}}
{{- fail "bus.kafka.sasl.mechanism needs bus.kafka.sasl.username and bus.kafka.sasl.existingSecret" -}}
{{- end -}}
{{- if and (eq $v.store.type "postgres") (not $v.store.postgres.existingSecret) -}}
{{- fail "store.type postgres needs store.postgres.existingSecret: a Secret that holds the URL under store.postgres.key" -}}
{{- end -}}
{{- if and $v.watch.kubeconfig.contexts (not $v.watch.kubeconfig.existingSecret) -}}
{{- fail "watch.kubeconfig.contexts needs watch.kubeconfig.existingSecret" -}}
{{- end -}}
{{- end }}
