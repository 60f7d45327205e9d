#!/usr/bin/env python3
"""Prints kwok's configuration, its stages: what nodes, pods and claims do in the test cluster, and how they fail.

A pod without a fault runs at once; a pod of a Job completes. A pod has a fault when
  - its annotation or label `nightshift.test/fault` names one of FAULTS below (`nightshift.test/fault-container` picks the
    container, else it is the first; `nightshift.test/reason`, `…/message`, `…/exit-code`, `…/event-reason` and
    `…/event-message` override the text), or
  - the tag of one of its images contains `missing` or `bad` (image-pull) or `crash` (crash-loop), or
  - `nightshift.test/needs-memory-mib` is more than the memory limit of that container (oom), or
  - a probe asks for a port that its container, which lists ports, does not have (not-ready, liveness).
So a new template without the cause heals the workload, and so does removing the annotation from the pod itself.

Others: `nightshift.test/keep` (a deleted pod stays), `…/run-for` (a Job's pod, default 500ms), `…/delay` (between two
steps of a fault). On nodes `nightshift.test/node` (see NODE_FAULTS; the pods of such a node stay ready), and the label
`nightshift.test/silent`: its kubelet is dead, and after 25 s the node and its pods are not ready.
Claims of a class whose provisioner is `nightshift.test/volume` get a volume, also a bigger one (with the annotation
`nightshift.test/fault: provisioning` none). An Argo CD Application carries out its `operation` (with
`nightshift.test/fault: sync` it fails), a CloudNativePG Cluster makes `targetPrimary` its primary (with
`nightshift.test/fault: promotion` it does not).
"""
import json

A = "nightshift.test/"

NOT_FOUND = 'failed to pull and unpack image "IMAGE": failed to resolve reference "IMAGE": IMAGE: not found'
BACK_OFF = "Back-off restarting failed container CONTAINER in pod POD"


def pull(text, first="ErrImagePull"):
    return {
        "class": "waiting", "reasons": [first, "ImagePullBackOff"],
        "messages": [text, 'Back-off pulling image "IMAGE": ErrImagePull: ' + text],
        "events": [["Failed", 'Failed to pull image "IMAGE": ' + text], ["BackOff", 'Back-off pulling image "IMAGE"']],
    }


def waiting(reason, message, event, text=None):
    return {"class": "waiting", "reasons": [reason], "messages": [message], "events": [[event, text or "Error: " + message]]}


def crash(code, reason="Error", message="", events=(), **more):
    return {
        "class": "crash", "exit": code, "reason": reason, "message": message,
        "events": [*[list(e) for e in events], ["BackOff", BACK_OFF]], **more,
    }


SANDBOX = 'Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "4f1c": '

FAULTS = {
    "image-pull": pull(NOT_FOUND),
    "image-denied": pull('failed to pull and unpack image "IMAGE": failed to authorize: failed to fetch anonymous token: 401 Unauthorized: pull access denied, repository does not exist or may require authorization'),
    "image-rate-limit": pull('failed to copy: httpReadSeeker: failed open: unexpected status code 429 Too Many Requests - toomanyrequests: You have reached your pull rate limit'),
    "image-platform": pull('failed to pull and unpack image "IMAGE": no match for platform in manifest: not found'),
    "image-invalid": waiting("InvalidImageName", 'Failed to apply default image tag "IMAGE": couldn\'t parse image name "IMAGE": invalid reference format', "InspectFailed"),
    "image-never": waiting("ErrImageNeverPull", 'Container image "IMAGE" is not present with pull policy of Never', "ErrImageNeverPull"),
    "stuck-creating": waiting("ContainerCreating", "", "FailedCreatePodSandBox", SANDBOX + "plugin type=\"bridge\" failed (add): connection refused"),
    "cni-exhausted": waiting("ContainerCreating", "", "FailedCreatePodSandBox", SANDBOX + "failed to allocate for range 0: no IP addresses available in range set"),
    "mount": waiting("ContainerCreating", "", "FailedMount", 'MountVolume.SetUp failed for volume "data" : mount failed: exit status 32'),
    "attach": waiting("ContainerCreating", "", "FailedAttachVolume", 'Multi-Attach error for volume "data" Volume is already exclusively attached to one node and can\'t be attached to another'),
    "config-error": waiting("CreateContainerConfigError", 'configmap "settings" not found', "Failed"),
    "run-as-root": waiting("CreateContainerConfigError", 'container has runAsNonRoot and image will run as root (pod: "POD_NAMESPACE", container: CONTAINER)', "Failed"),
    "create-error": waiting("CreateContainerError", 'failed to create containerd container: failed to mkdir "/data": read-only file system', "Failed"),
    "hook": waiting("PostStartHookError", 'Exec lifecycle hook ([/bin/hook]) for Container "CONTAINER" in Pod "POD" failed - error: command exited with 126', "FailedPostStartHook", "PostStartHook failed"),
    "crash-loop": crash(1),
    "exec-missing": crash(128, "StartError", 'failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "/app/server": stat /app/server: no such file or directory', [["Failed", 'Error: failed to create containerd task: exec: "/app/server": stat /app/server: no such file or directory']], waiting="RunContainerError"),
    "exec-denied": crash(126, "StartError", 'failed to create containerd task: OCI runtime create failed: runc create failed: unable to start container process: exec: "/app/server": permission denied', [["Failed", 'Error: exec: "/app/server": permission denied']], waiting="RunContainerError"),
    "segfault": crash(139),
    "oom": crash(137, "OOMKilled"),
    "liveness": {**crash(137, keeps="running"), "events": [["Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 503"], ["Killing", "Container CONTAINER failed liveness probe, will be restarted", "Normal"]]},
    "oom-recovered": {"class": "ready", "exit": 137, "reason": "OOMKilled", "events": []},
    "error-recovered": {"class": "ready", "exit": 1, "reason": "Error", "events": []},
    "restarting": {"class": "restarting", "exit": 1, "reason": "Error", "events": [["BackOff", BACK_OFF]]},
    "not-ready": {"class": "not-ready", "events": [["Unhealthy", "Readiness probe failed: Get \"http://10.0.0.1:8081/healthz\": dial tcp 10.0.0.1:8081: connect: connection refused"]]},
    "startup": {"class": "not-ready", "events": [["Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 503"]]},
    "failed": {"class": "failed", "exit": 1, "reason": "Error", "events": []},
    "evicted": {"class": "evicted", "reason": "Evicted", "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. Container CONTAINER was using 812Mi, request is 128Mi, has larger consumption of memory. ", "events": [["Evicted", "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. "]]},
    "sidecar-stuck": {"class": "sidecar", "events": []},
    "init-crash": {"class": "init-crash", "exit": 1, "reason": "Error", "message": "", "events": [["BackOff", BACK_OFF]]},
    "init-hang": {"class": "init-hang", "events": []},
}

NODE_FAULTS = {
    "not-ready": ["Ready", "False", "KubeletNotReady", "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized", "NodeNotReady"],
    "memory-pressure": ["MemoryPressure", "True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "NodeHasInsufficientMemory"],
    "disk-pressure": ["DiskPressure", "True", "KubeletHasDiskPressure", "kubelet has disk pressure", "NodeHasDiskPressure"],
    "pid-pressure": ["PIDPressure", "True", "KubeletHasInsufficientPID", "kubelet has insufficient PID available", "NodeHasInsufficientPID"],
    "network-unavailable": ["NetworkUnavailable", "True", "NoRouteCreated", "RouteController failed to create a route", "NodeNetworkUnavailable"],
}

# --- selectors (jq) -----------------------------------------------------------------------------------------------------

FAULTY = f"""
def tag: (.image // "") | split("@")[0] | split("/")[-1] | split(":")[1] // "";
def mib: if endswith("Gi") then (.[:-2] | tonumber * 1024) elif endswith("Mi") then (.[:-2] | tonumber)
  elif endswith("Ki") then (.[:-2] | tonumber / 1024) elif endswith("G") then (.[:-1] | tonumber * 953.67)
  elif endswith("M") then (.[:-1] | tonumber * 0.95367) elif endswith("k") then (.[:-1] | tonumber * 0.00095367)
  else (tonumber / 1048576) end;
def lost($c): (.httpGet.port // .tcpSocket.port // .grpc.port) as $p | $p != null and ($c.ports // []) != []
  and ([$c.ports[] | select(.containerPort == $p or (.name != null and .name == $p))] | length) == 0;
(.metadata.annotations // {{}}) as $a | (.metadata.labels // {{}}) as $l |
($a["{A}fault-container"] // .spec.containers[0].name) as $hit |
if ($a["{A}fault"] // $l["{A}fault"]) != null then "yes"
elif any(.spec.containers[], (.spec.initContainers // [])[]; tag | contains("missing") or contains("bad") or contains("crash")) then "yes"
elif $a["{A}needs-memory-mib"] != null
  and any(.spec.containers[] | select(.name == $hit) | .resources.limits.memory | select(. != null);
          mib < ($a["{A}needs-memory-mib"] | tonumber)) then "yes"
elif any(.spec.containers[]; . as $c | any((.readinessProbe, .livenessProbe, .startupProbe) | select(. != null); lost($c))) then "yes"
else "no" end"""

# Names config maps or secrets: node-api says when they are there (refs.go).
HELD = """
def must: .optional != true;
if any(.status.conditions[]?; .type == "PodReadyToStartContainers" and .status == "True")
  and all(.status.containerStatuses[]?, .status.initContainerStatuses[]?; .state.waiting.reason != "CreateContainerConfigError") then "no"
elif any(.spec.containers[], (.spec.initContainers // [])[];
    any(.envFrom[]?; (.configMapRef // .secretRef) | . != null and must)
    or any(.env[]?.valueFrom | select(. != null); (.configMapKeyRef // .secretKeyRef) | . != null and must))
  or any(.spec.volumes[]?; (.name | startswith("kube-api-access-") | not)
    and (((.configMap // .secret) | . != null and must)
      or any(.projected.sources[]?; (.configMap // .secret) | . != null and must))) then "yes"
else "no" end"""

FAULT_DELAY = f"""
.metadata.annotations["{A}delay"] //
(if .status.containerStatuses == null then "100ms"
 else ((.status.startTime // .metadata.creationTimestamp) | (now - fromdate)
   | if . < 15 then "1s" elif . < 120 then "5s" else "20s" end) end)"""

NODE_CHANGED = f"""
(.metadata.annotations["{A}node"] // "") as $want |
([.status.conditions[]? | {{key: .type, value: .status}}] | from_entries) as $c |
(if $c.Ready == null then "new" elif $c.Ready != "True" then "not-ready" elif $c.MemoryPressure == "True" then "memory-pressure"
 elif $c.DiskPressure == "True" then "disk-pressure" elif $c.PIDPressure == "True" then "pid-pressure"
 elif $c.NetworkUnavailable == "True" then "network-unavailable" elif $c.Ready == "Unknown" then "unknown" else "" end) as $have |
if $want == $have then "no" else "yes" end"""

# --- templates (Go) -----------------------------------------------------------------------------------------------------

# Sets $fault (a name of FAULTS), $f (its row), $hit (the container) and what else the templates share.
PRELUDE = """
{{ $faults := fromJson `@FAULTS@` }}
{{ $root := . }}{{ $now := Now }}
{{ $a := or .metadata.annotations dict }}{{ $l := or .metadata.labels dict }}
{{ $fault := or (get $a "@A@fault") (get $l "@A@fault") }}
{{ $first := index .spec.containers 0 }}
{{ $hit := or (get $a "@A@fault-container") $first.name }}
{{ if not $fault }}
  {{ range $init := list false true }}{{ range (ternary $root.spec.initContainers $root.spec.containers $init) }}
    {{ $tag := .image | splitList "@" | first | splitList "/" | last }}
    {{ if contains ":" $tag }}{{ $tag = last (splitList ":" $tag) }}{{ else }}{{ $tag = "" }}{{ end }}
    {{ if not $fault }}
      {{ if or (contains "missing" $tag) (contains "bad" $tag) }}{{ $fault = "image-pull" }}{{ $hit = .name }}
      {{ else if contains "crash" $tag }}{{ $fault = ternary "init-crash" "crash-loop" $init }}{{ $hit = .name }}{{ end }}
    {{ end }}
  {{ end }}{{ end }}
{{ end }}
{{ if and (not $fault) (get $a "@A@needs-memory-mib") }}{{ $fault = "oom" }}{{ end }}
{{ if not $fault }}{{ range $c := .spec.containers }}{{ if $c.ports }}
  {{ range $kind := list "readinessProbe" "startupProbe" "livenessProbe" }}{{ $probe := get $c $kind }}{{ if $probe }}
    {{ range $how := list "httpGet" "tcpSocket" "grpc" }}{{ $port := dig $how "port" "" $probe | print }}{{ if $port }}
      {{ $found := false }}
      {{ range $c.ports }}{{ if or (eq $port (print .containerPort)) (eq $port (print .name)) }}{{ $found = true }}{{ end }}{{ end }}
      {{ if and (not $found) (not $fault) }}
        {{ $fault = ternary "liveness" (ternary "startup" "not-ready" (eq $kind "startupProbe")) (eq $kind "livenessProbe") }}
        {{ $hit = $c.name }}
      {{ end }}
    {{ end }}{{ end }}
  {{ end }}{{ end }}
{{ end }}{{ end }}{{ end }}
{{ $f := or (get $faults (or $fault "none")) dict }}{{ $class := or $f.class "healthy" }}
{{ if and $fault (eq $class "healthy") }}{{ $class = "waiting" }}{{ $f = dict "reasons" (list $fault) "messages" (list "no such fault") "events" list }}{{ end }}
{{ if and (or (eq $class "crash") (eq $class "liveness")) (eq .spec.restartPolicy "Never") }}{{ $class = "failed" }}{{ end }}
{{ if and (or (eq $class "init-crash") (eq $class "init-hang")) .spec.initContainers (not (get $a "@A@fault-container")) (get $a "@A@fault") }}
  {{ $hit = (first .spec.initContainers).name }}{{ end }}
{{ $image := "" }}{{ $inInit := false }}
{{ range .spec.containers }}{{ if eq .name $hit }}{{ $image = .image }}{{ end }}{{ end }}
{{ range .spec.initContainers }}{{ if eq .name $hit }}{{ $image = .image }}{{ $inInit = true }}{{ end }}{{ end }}
{{ $exit := or (get $a "@A@exit-code") (print (or $f.exit 0)) }}
{{ $reason := or (get $a "@A@reason") $f.reason "" }}
{{ $message := or (get $a "@A@message") $f.message "" | replace "IMAGE" $image | replace "CONTAINER" $hit }}
{{ $was := dict }}
{{ range (concat (or .status.containerStatuses list) (or .status.initContainerStatuses list)) }}{{ $was = set $was .name . }}{{ end }}
{{ $old := or (get $was $hit) dict }}
{{ $restarts := 0 }}{{ if $old.restartCount }}{{ $restarts = atoi (print $old.restartCount) }}{{ end }}
{{ $start := or .status.startTime .metadata.creationTimestamp }}
{{ $age := sub (now | unixEpoch | int64) (toDate "2006-01-02T15:04:05Z07:00" $start | unixEpoch | int64) }}
{{ $back := printf "back-off 10s restarting failed container=%s pod=%s_%s(%s)" $hit .metadata.name .metadata.namespace .metadata.uid }}
{{ $conditions := dict }}{{ range .status.conditions }}{{ $conditions = set $conditions .type . }}{{ end }}
""".replace("@FAULTS@", json.dumps(FAULTS).replace("`", "'")).replace("@A@", A)

# Conditions keep the time of their last change.
CONDITIONS = """
conditions:
{{ range $type := list "PodReadyToStartContainers" "Initialized" "ContainersReady" "Ready" }}
{{ $status := "True" }}
{{ if and (not $up) (or (eq $type "Ready") (eq $type "ContainersReady")) }}{{ $status = "False" }}{{ end }}
{{ if and $initing (eq $type "Initialized") }}{{ $status = "False" }}{{ end }}
{{ if and $bare (eq $type "PodReadyToStartContainers") }}{{ $status = "False" }}{{ end }}
{{ $before := or (get $conditions $type) dict }}
- type: {{ $type }}
  status: "{{ $status }}"
  lastTransitionTime: {{ if eq (print $before.status) $status }}{{ $before.lastTransitionTime | Quote }}{{ else }}{{ $now | Quote }}{{ end }}
  {{ if and (eq $type "Ready") $fault }}
  lastProbeTime: {{ $now | Quote }}
  {{ end }}
  {{ if eq $status "True" }}
  reason: ""
  message: ""
  {{ else if eq $type "Initialized" }}
  reason: ContainersNotInitialized
  message: {{ printf "containers with incomplete status: [%s]" $hit | Quote }}
  {{ else if ne $type "PodReadyToStartContainers" }}
  reason: {{ if eq $class "failed" }}PodFailed{{ else }}ContainersNotReady{{ end }}
  message: {{ printf "containers with unready status: [%s]" $hit | Quote }}
  {{ end }}
{{ end }}
{{ range .spec.readinessGates }}
- lastTransitionTime: {{ $now | Quote }}
  status: "True"
  type: {{ .conditionType | Quote }}
{{ end }}
startTime: {{ or .status.startTime $now | Quote }}
{{ if not .status.podIP }}
{{ with NodeIPsWith .spec.nodeName }}
hostIP: {{ index . 0 | Quote }}
hostIPs:
{{ range . }}
- ip: {{ . | Quote }}
{{ end }}
{{ end }}
{{ with PodIPsWith .spec.nodeName false ( or .metadata.uid "" ) ( or .metadata.name "" ) ( or .metadata.namespace "" ) }}
podIP: {{ index . 0 | Quote }}
podIPs:
{{ range . }}
- ip: {{ . | Quote }}
{{ end }}
{{ end }}
{{ end }}
"""

RUNNING = """
  ready: true
  started: true
  state:
    running:
      startedAt: {{ dig "state" "running" "startedAt" $now $before | Quote }}
"""
COMPLETED = """
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ $now | Quote }}
      finishedAt: {{ $now | Quote }}
"""
HEAD = """
{{ $before := or (get $was $c.name) dict }}
- name: {{ $c.name | Quote }}
  image: {{ $c.image | Quote }}
  imageID: {{ printf "%s@sha256:%s" $c.image (sha256sum $c.image) | Quote }}
  containerID: {{ printf "containerd://%s" (sha256sum (printf "%s/%s" $root.metadata.uid $c.name)) | Quote }}
  {{ $count := atoi (print (or $before.restartCount 0)) }}
"""
KEPT = """
  restartCount: {{ $count }}
  {{ if $before.lastState }}
  lastState:
{{ YAML $before.lastState 2 }}
  {{ end }}
"""
INIT_DONE = (
    """
{{ if .spec.initContainers }}
initContainerStatuses:
{{ range $c := .spec.initContainers }}"""
    + HEAD + KEPT + """
  {{ if eq (print $c.restartPolicy) "Always" }}"""
    + RUNNING + """
  {{ else if dig "state" "terminated" "" $before }}
  ready: true
  state:
{{ YAML $before.state 2 }}
  {{ else }}
  ready: true
  state:""" + COMPLETED + """
  {{ end }}
{{ end }}
{{ end }}
"""
)

HEALTHY = (
    PRELUDE + "{{ $up := true }}{{ $initing := false }}{{ $bare := false }}phase: Running\n" + CONDITIONS
    + "containerStatuses:\n{{ range $c := .spec.containers }}" + HEAD + KEPT + RUNNING + "{{ end }}\n" + INIT_DONE
)

COMPLETE = (
    PRELUDE + """
phase: Succeeded
conditions:
{{ range $type := list "Ready" "ContainersReady" }}
- type: {{ $type }}
  status: "False"
  reason: PodCompleted
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
containerStatuses:
{{ range $c := .spec.containers }}""" + HEAD + KEPT + """
  ready: false
  started: false
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ dig "state" "running" "startedAt" $now $before | Quote }}
      finishedAt: {{ $now | Quote }}
{{ end }}
"""
)

TERMINATED = """
    terminated:
      exitCode: {{ $exit }}
      reason: {{ $reason | Quote }}
      message: {{ $message | Quote }}
      startedAt: {{ dig "state" "running" "startedAt" (now | dateModify "-2s" | date "2006-01-02T15:04:05Z07:00") $old | Quote }}
      finishedAt: {{ $now | Quote }}
"""

# One step of a pod with a fault. The first of a crash loop is a container that runs.
FAULT = (
    PRELUDE + """
{{ $fresh := not .status.containerStatuses }}
{{ $up := or (eq $class "ready") (eq $class "restarting") }}
{{ $initing := or (hasPrefix "init-" $class) $inInit }}
{{ $bare := and (eq $class "waiting") (eq (first (or $f.reasons (list ""))) "ContainerCreating") }}
{{ $phase := "Running" }}
{{ if or $initing (and (eq $class "waiting") (eq (len .spec.containers) 1)) }}{{ $phase = "Pending" }}{{ end }}
{{ if $bare }}{{ $phase = "Pending" }}{{ end }}
{{ if or (eq $class "failed") (eq $class "evicted") }}{{ $phase = "Failed" }}{{ end }}
phase: {{ $phase }}
{{ if eq $class "evicted" }}
reason: {{ $reason }}
message: {{ $message | Quote }}
{{ end }}
""" + CONDITIONS + """
{{ if ne $class "evicted" }}
containerStatuses:
{{ range $i, $c := .spec.containers }}""" + HEAD + """
  {{ if and $initing }}
  restartCount: {{ $count }}
  ready: false
  started: false
  state:
    waiting:
      reason: PodInitializing
  {{ else if $bare }}
  restartCount: {{ $count }}
  ready: false
  started: false
  state:
    waiting:
      reason: ContainerCreating
  {{ else if eq $class "sidecar" }}
  restartCount: 0
  {{ if eq $i 0 }}
  ready: false
  started: false
  state:
  {{ if dig "state" "terminated" "" $before }}
{{ YAML $before.state 2 }}
  {{ else }}""" + COMPLETED + """
  {{ end }}
  {{ else }}""" + RUNNING + """
  {{ end }}
  {{ else if ne $c.name $hit }}
  {{ if eq $class "failed" }}
  restartCount: {{ $count }}
  ready: false
  started: false
  state:""" + COMPLETED + """
  {{ else }}""" + KEPT + RUNNING + """
  {{ end }}
  {{ else if eq $class "waiting" }}""" + KEPT + """
  {{ $n := 0 }}
  {{ if and (gt (len $f.reasons) 1) (eq (dig "state" "waiting" "reason" "" $old) (first $f.reasons)) }}{{ $n = 1 }}{{ end }}
  ready: false
  started: false
  state:
    waiting:
      reason: {{ or (get $a "@A@reason") (index $f.reasons $n) | Quote }}
      message: {{ or (get $a "@A@message") (index $f.messages $n) | replace "IMAGE" $image | replace "CONTAINER" $hit | replace "POD_NAMESPACE" (printf "%s_%s" $root.metadata.name $root.metadata.namespace) | replace "POD" $root.metadata.name | Quote }}
  {{ else if eq $class "crash" }}
  ready: false
  {{ if $fresh }}
  restartCount: 0
  started: true
  state:
    running:
      startedAt: {{ $now | Quote }}
  {{ else }}
  restartCount: {{ add $count 1 }}
  started: {{ if and $f.keeps (lt $count 5) }}true{{ else }}false{{ end }}
  {{ if and $f.keeps (lt $count 5) }}
  state:
    running:
      startedAt: {{ $now | Quote }}
  {{ else if and $f.waiting (lt $count 2) }}
  state:
    waiting:
      reason: {{ $f.waiting }}
      message: {{ $message | Quote }}
  {{ else }}
  state:
    waiting:
      reason: CrashLoopBackOff
      message: {{ $back | Quote }}
  {{ end }}
  lastState:""" + TERMINATED + """
  {{ end }}
  {{ else if eq $class "ready" }}
  {{ if dig "lastState" "terminated" "" $before }}""" + KEPT + RUNNING + """
  {{ else }}
  restartCount: {{ add $count 1 }}
  ready: true
  started: true
  state:
    running:
      startedAt: {{ $now | Quote }}
  lastState:""" + TERMINATED + """
  {{ end }}
  {{ else if eq $class "restarting" }}
  restartCount: {{ add $count 1 }}
  ready: true
  started: true
  state:
    running:
      startedAt: {{ $now | Quote }}
  lastState:""" + TERMINATED + """
  {{ else if eq $class "not-ready" }}""" + KEPT + """
  ready: false
  started: {{ ne $fault "startup" }}
  state:
    running:
      startedAt: {{ dig "state" "running" "startedAt" $now $before | Quote }}
  {{ else }}
  restartCount: {{ $count }}
  ready: false
  started: false
  state:""" + TERMINATED + """
  {{ end }}
{{ end }}
{{ end }}
{{ if and .spec.initContainers $initing }}
initContainerStatuses:
{{ $passed := false }}
{{ range $c := .spec.initContainers }}""" + HEAD + """
  {{ if ne $c.name $hit }}
  restartCount: {{ $count }}
  {{ if $passed }}
  ready: false
  started: false
  state:
    waiting:
      reason: PodInitializing
  {{ else }}
  ready: true
  state:
  {{ if dig "state" "terminated" "" $before }}
{{ YAML $before.state 2 }}
  {{ else }}""" + COMPLETED + """
  {{ end }}
  {{ end }}
  {{ else }}
  {{ $passed = true }}
  ready: false
  {{ if eq $class "init-hang" }}
  restartCount: 0
  started: true
  state:
    running:
      startedAt: {{ dig "state" "running" "startedAt" $now $before | Quote }}
  {{ else if eq $class "waiting" }}
  restartCount: 0
  started: false
  {{ $n := 0 }}
  {{ if and (gt (len $f.reasons) 1) (eq (dig "state" "waiting" "reason" "" $old) (first $f.reasons)) }}{{ $n = 1 }}{{ end }}
  state:
    waiting:
      reason: {{ index $f.reasons $n | Quote }}
      message: {{ index $f.messages $n | replace "IMAGE" $image | Quote }}
  {{ else }}
  restartCount: {{ add $count 1 }}
  started: false
  state:
    waiting:
      reason: CrashLoopBackOff
      message: {{ $back | Quote }}
  lastState:""" + TERMINATED + """
  {{ end }}
  {{ end }}
{{ end }}
{{ else }}""" + INIT_DONE + """
{{ end }}
"""
).replace("@A@", A)


def event(n):
    """The n-th event of a fault, counted up. Where a fault has fewer, its last one again; where it has none, a normal one."""
    return (
        PRELUDE + """
{{ $events := or $f.events list }}
{{ $n := @N@ }}{{ if ge $n (len $events) }}{{ $n = sub (len $events) 1 | int }}{{ end }}
{{ $row := list "Started" "Started container CONTAINER" }}{{ if $events }}{{ $row = index $events $n }}{{ end }}
apiVersion: v1
kind: Event
metadata:
  name: {{ printf "%s.%s-%d" .metadata.name (or $fault "none") (max $n 0) | Quote }}
  namespace: {{ .metadata.namespace }}
involvedObject:
  kind: Pod
  apiVersion: v1
  name: {{ .metadata.name | Quote }}
  namespace: {{ .metadata.namespace | Quote }}
  uid: {{ .metadata.uid | Quote }}
  fieldPath: {{ printf "spec.%s{%s}" (ternary "initContainers" "containers" $inInit) $hit | Quote }}
source:
  component: kubelet
  host: {{ .spec.nodeName | Quote }}
type: {{ if and $events (lt (len $row) 3) }}Warning{{ else }}Normal{{ end }}
{{ $last := eq $n (sub (len $events) 1 | int) }}
reason: {{ if and $last (get $a "@A@event-reason") }}{{ get $a "@A@event-reason" | Quote }}{{ else }}{{ index $row 0 | Quote }}{{ end }}
{{ $text := index $row 1 }}{{ if and $last (get $a "@A@event-message") }}{{ $text = get $a "@A@event-message" }}{{ end }}
message: {{ $text | replace "IMAGE" $image | replace "CONTAINER" $hit | replace "POD" (printf "%s_%s(%s)" .metadata.name .metadata.namespace .metadata.uid) | Quote }}
firstTimestamp: {{ $start | Quote }}
lastTimestamp: {{ $now | Quote }}
count: {{ if $events }}{{ max (add $restarts 1) (add 1 (div $age 5)) }}{{ else }}1{{ end }}
"""
    ).replace("@A@", A).replace("@N@", str(n))


NODE = """
{{ $faults := fromJson `@FAULTS@` }}{{ $now := Now }}
{{ $row := or (get $faults (or (get (or .metadata.annotations dict) "@A@node") "none")) (list "" "" "" "") }}
{{ $old := dict }}{{ range .status.conditions }}{{ $old = set $old .type . }}{{ end }}
conditions:
{{ range NodeConditions }}
{{ $status := .status }}{{ $reason := .reason }}{{ $message := .message }}
{{ if eq .type (index $row 0) }}{{ $status = index $row 1 }}{{ $reason = index $row 2 }}{{ $message = index $row 3 }}{{ end }}
{{ $before := or (get $old .type) dict }}
- type: {{ .type | Quote }}
  status: {{ $status | Quote }}
  reason: {{ $reason | Quote }}
  message: {{ $message | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ if eq (print $before.status) $status }}{{ $before.lastTransitionTime | Quote }}{{ else }}{{ $now | Quote }}{{ end }}
{{ end }}
{{ if not .status.addresses }}
{{ $h := adler32sum .metadata.name | int64 }}
addresses:
- type: InternalIP
  address: 10.{{ add 1 (mod (div $h 62500) 200) }}.{{ mod (div $h 250) 250 }}.{{ add 1 (mod $h 250) }}
- type: Hostname
  address: {{ .metadata.name | Quote }}
{{ end }}
daemonEndpoints:
  kubeletEndpoint:
    Port: 10250
{{ range $list := list "allocatable" "capacity" }}
{{ if not (get $.status $list) }}
{{ $list }}:
  cpu: "32"
  memory: 128Gi
  ephemeral-storage: 200Gi
  pods: "250"
{{ end }}
{{ end }}
{{ $info := or .status.nodeInfo dict }}
nodeInfo:
  architecture: {{ or $info.architecture "amd64" }}
  bootID: {{ or $info.bootID .metadata.uid | Quote }}
  containerRuntimeVersion: {{ or $info.containerRuntimeVersion "containerd://2.1.4" }}
  kernelVersion: {{ or $info.kernelVersion "6.12.0" }}
  kubeProxyVersion: ""
  kubeletVersion: {{ or $info.kubeletVersion "v1.36.3" }}
  machineID: {{ or $info.machineID .metadata.uid | Quote }}
  operatingSystem: {{ or $info.operatingSystem "linux" }}
  osImage: {{ or $info.osImage "kwok" | Quote }}
  systemUUID: {{ or $info.systemUUID .metadata.uid | Quote }}
phase: Running
"""
NODE_EVENT = """
{{ $faults := fromJson `@FAULTS@` }}{{ $now := Now }}
{{ $name := or (get (or .metadata.annotations dict) "@A@node") "ready" }}
{{ $row := or (get $faults $name) (list "" "" "" "" "NodeReady") }}
apiVersion: v1
kind: Event
metadata:
  name: {{ printf "%s.%s" .metadata.name $name | Quote }}
  namespace: default
involvedObject:
  kind: Node
  apiVersion: v1
  name: {{ .metadata.name | Quote }}
  uid: {{ .metadata.name | Quote }}
source:
  component: kubelet
  host: {{ .metadata.name | Quote }}
type: {{ if eq $name "ready" }}Normal{{ else }}Warning{{ end }}
reason: {{ index $row 4 | Quote }}
message: {{ printf "Node %s status is now: %s" .metadata.name (index $row 4) | Quote }}
firstTimestamp: {{ $now | Quote }}
lastTimestamp: {{ $now | Quote }}
count: 1
"""
NODE, NODE_EVENT = (t.replace("@FAULTS@", json.dumps(NODE_FAULTS)).replace("@A@", A) for t in (NODE, NODE_EVENT))

PROVISIONER = A + "volume"
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata:
  name: {{ or .spec.volumeName (printf "pvc-%s" .metadata.uid) }}
  annotations:
    pv.kubernetes.io/provisioned-by: @P@
spec:
  accessModes:
{{ YAML .spec.accessModes 1 }}
  capacity:
    storage: {{ .spec.resources.requests.storage | Quote }}
  persistentVolumeReclaimPolicy: Delete
  storageClassName: {{ .spec.storageClassName | Quote }}
  volumeMode: {{ default "Filesystem" .spec.volumeMode }}
  claimRef:
    apiVersion: v1
    kind: PersistentVolumeClaim
    name: {{ .metadata.name | Quote }}
    namespace: {{ .metadata.namespace | Quote }}
    uid: {{ .metadata.uid | Quote }}
  hostPath:
    path: /tmp/nightshift-test-volumes/{{ .metadata.uid }}
""".replace("@P@", PROVISIONER)
CLAIM_EVENT = """
{{ $now := Now }}
apiVersion: v1
kind: Event
metadata:
  name: {{ printf "%s.provisioning" .metadata.name | Quote }}
  namespace: {{ .metadata.namespace }}
involvedObject:
  kind: PersistentVolumeClaim
  apiVersion: v1
  name: {{ .metadata.name | Quote }}
  namespace: {{ .metadata.namespace }}
  uid: {{ .metadata.uid | Quote }}
source:
  component: @P@
type: Warning
reason: ProvisioningFailed
message: {{ printf "failed to provision volume with StorageClass %q: rpc error: code = ResourceExhausted desc = the pool has no space left" .spec.storageClassName | Quote }}
firstTimestamp: {{ $now | Quote }}
lastTimestamp: {{ $now | Quote }}
count: 3
""".replace("@P@", PROVISIONER)

# What the controllers of some custom resources would do: Argo CD carries out an operation, CloudNativePG a promotion.
ARGO = """
{{ $now := now | date "2006-01-02T15:04:05Z07:00" }}
{{ $failed := get (or .metadata.annotations dict) "@A@fault" }}
{{ $revision := dig "operation" "sync" "revision" "" . }}
{{ $revision = or $revision (dig "spec" "source" "targetRevision" "" .) "HEAD" }}
{{ $history := dig "status" "history" (list) . }}
{{ $id := 0 }}{{ range $history }}{{ $id = max $id (add 1 (atoi (print .id))) }}{{ end }}
operation: null
status:
  operationState:
    operation:
{{ YAML .operation 3 }}
    phase: {{ ternary "Failed" "Succeeded" (eq (print $failed) "sync") }}
    message: {{ ternary "one or more objects failed to apply" "successfully synced (all tasks run)" (eq (print $failed) "sync") | Quote }}
    startedAt: {{ $now | Quote }}
    finishedAt: {{ $now | Quote }}
    syncResult:
      revision: {{ $revision | Quote }}
  {{ if ne (print $failed) "sync" }}
  sync:
    status: Synced
    revision: {{ $revision | Quote }}
  health:
    status: Healthy
  history:
  {{ if $history }}
{{ YAML $history 1 }}
  {{ end }}
  - id: {{ $id }}
    revision: {{ $revision | Quote }}
    deployedAt: {{ $now | Quote }}
    source:
{{ YAML (dig "operation" "sync" "source" (dig "spec" "source" (dict) .) .) 3 }}
  {{ end }}
""".replace("@A@", A)
PROMOTED = """
currentPrimary: {{ .status.targetPrimary | Quote }}
currentPrimaryTimestamp: {{ now | date "2006-01-02T15:04:05.000000Z07:00" | Quote }}
phase: Cluster in healthy state
"""
OURS = '.metadata.annotations["volume.kubernetes.io/storage-provisioner"]'

# --- stages -------------------------------------------------------------------------------------------------------------


def jq(key, *values, absent=False, unless=False):
    operator = ("DoesNotExist" if absent else "Exists") if not values else ("NotIn" if unless else "In")
    entry = {"key": key.strip(), "operator": operator}
    if values:
        entry["values"] = list(values)
    return {"jq": entry}


def stage(name, kind, when, steps, delay=None, delay_from=None, group="v1"):
    spec = {"resourceRef": {"apiGroup": group, "kind": kind}, "selector": {"matchExpressions": when}, "steps": steps}
    if delay is not None or delay_from:
        spec["delay"] = {"durationMilliseconds": delay or 0}
        if delay_from:
            spec["delay"]["durationFrom"] = {"jq": {"expression": delay_from.strip()}}
    return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec}


def status(template):
    return {"patch": {"subresource": "status", "root": "status", "template": template}}


def apply(template, subresource=""):
    return {"apply": {"template": template, "type": "merge", "subresource": subresource}}


HERE = jq(".metadata.deletionTimestamp", absent=True)
READY = '.status.conditions[]? | select(.type == "Ready") | .status'
CLAIM = jq(OURS, PROVISIONER)

STAGES = [
    stage("pod-delete", "Pod", [
        jq(".metadata.deletionTimestamp"), jq(".metadata.finalizers", absent=True),
        jq(f'.metadata.annotations["{A}keep"]', absent=True),
    ], [{"delete": True}], delay=300),
    stage("pod-run", "Pod", [
        jq(READY, "True", unless=True), HERE, jq(".status.phase", "Pending", "Running"), jq(FAULTY, "no"), jq(HELD, "no"),
    ], [status(HEALTHY)], delay=50),
    stage("pod-complete", "Pod", [
        jq(".metadata.ownerReferences[]?.kind", "Job"), jq(".status.phase", "Running"), HERE, jq(READY, "True"), jq(FAULTY, "no"),
    ], [status(COMPLETE)], delay=500, delay_from=f'.metadata.annotations["{A}run-for"]'),
    stage("pod-fault", "Pod", [
        jq(".status.phase", "Pending", "Running"), HERE, jq(FAULTY, "yes"),
    ], [apply(event(0)), apply(event(1)), status(FAULT)], delay=1000, delay_from=FAULT_DELAY),
    stage("node-change", "Node", [HERE, jq(NODE_CHANGED, "yes")], [apply(NODE_EVENT), status(NODE)]),
    stage("node-heartbeat", "Node", [HERE, jq(NODE_CHANGED, "no")], [status(NODE)], delay=60000),
    stage("claim-provision", "PersistentVolumeClaim", [
        CLAIM, HERE, jq(".spec.volumeName", absent=True), jq(f'.metadata.annotations["{A}fault"]', "provisioning", unless=True),
    ], [apply(VOLUME)]),
    stage("claim-fault", "PersistentVolumeClaim", [
        CLAIM, HERE, jq(".spec.volumeName", absent=True), jq(f'.metadata.annotations["{A}fault"]', "provisioning"),
    ], [apply(CLAIM_EVENT)], delay=200),
    stage("claim-expand", "PersistentVolumeClaim", [
        CLAIM, HERE, jq(".status.phase", "Bound"),
        jq('if .status.capacity.storage == .spec.resources.requests.storage then "no" else "yes" end', "yes"),
    ], [apply(VOLUME), status("capacity:\n  storage: {{ .spec.resources.requests.storage | Quote }}\n")], delay=300),
    stage("volume-delete", "PersistentVolume", [
        jq('.metadata.annotations["pv.kubernetes.io/provisioned-by"]', PROVISIONER), HERE,
        jq(".spec.persistentVolumeReclaimPolicy", "Delete"), jq(".status.phase", "Released"),
    ], [{"delete": True}]),
    stage("argo-operation", "Application", [HERE, jq(".operation")], [
        {"patch": {"type": "merge", "template": ARGO}},
    ], delay=500, group="argoproj.io/v1alpha1"),
    stage("postgres-promotion", "Cluster", [
        HERE, jq('if .status.targetPrimary != null and .status.targetPrimary != .status.currentPrimary then "yes" else "no" end', "yes"),
        jq(f'.metadata.annotations["{A}fault"]', "promotion", unless=True),
    ], [{"patch": {"subresource": "status", "root": "status", "type": "merge", "template": PROMOTED}}], delay=500, group="postgresql.cnpg.io/v1"),
]


# Thousands of pods: the defaults are four at a time.
SETTINGS = {
    "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
    "kind": "KwokConfiguration",
    "options": {"podPlayStageParallelism": 16, "nodePlayStageParallelism": 8, "nodeLeaseParallelism": 8, "podsOnNodeSyncParallelism": 8},
}


def main():
    for item in [SETTINGS, *STAGES]:
        print("---")
        print(json.dumps(item))


if __name__ == "__main__":
    main()
