# shellcheck shell=bash
# Starting and stopping the parts of Kubernetes. Source it after ../lib.sh; it starts nothing by itself.
#
# One folder holds one server: keys, certificates, data, logs, and for each process NAME.pid and NAME.log.

k8s_state="$(testenv_dir)/kubernetes"

# programs: sets $kube, $kwok and $helm, building them where they are not in the cache.
programs() {
  local built
  built=$("$TESTENV_ROOT/go/kubernetes/build") || die "the Kubernetes programs could not be built"
  kube=$built/kube kwok=$built/kwok helm=$built/helm
}

# spawn FOLDER NAME COMMAND…: in a session of its own, so that it outlives the shell that started it.
spawn() {
  local folder=$1 name=$2
  shift 2
  setsid "$@" </dev/null >>"$folder/$name.log" 2>&1 &
  printf '%s\n' $! >"$folder/$name.pid"
  disown $!
}

# alive FOLDER NAME. The number may have been given to another program since: ours has its folder among its arguments.
alive() {
  [[ -s $1/$2.pid ]] && grep -q -s -z -F -- "$1/" "/proc/$(<"$1/$2.pid")/cmdline"
}

# halt FOLDER NAME: stops it and waits; does nothing when it does not run.
halt() {
  ! alive "$1" "$2" || stop_pid "$(<"$1/$2.pid")"
  rm -f -- "$1/$2.pid"
}

# wait_answer FOLDER NAME SECONDS URL: until it answers; ends at once when the process has died.
wait_answer() {
  local deadline=$((SECONDS + $3))
  until curl --silent --insecure --fail --max-time 2 --output /dev/null "$4"; do
    kill -0 "$(<"$1/$2.pid")" 2>/dev/null || { tail -n 15 "$1/$2.log" >&2; die "$2 has ended (its last lines are above; $1/$2.log)"; }
    ((SECONDS < deadline)) || { tail -n 15 "$1/$2.log" >&2; die "$2 does not answer after $3 s (its last lines are above; $1/$2.log)"; }
    sleep 0.1
  done
}

# start_etcd FOLDER: waits until it answers. Data is thrown away with the folder, so nothing is synced. The port is in FOLDER/etcd.port.
start_etcd() {
  local folder=$1 client peer
  ! alive "$folder" etcd || return 0
  [[ -s $folder/etcd.port ]] || free_port >"$folder/etcd.port"
  client=$(<"$folder/etcd.port") peer=$(free_port)
  spawn "$folder" etcd "$kube" etcd --data-dir "$folder/etcd" --unsafe-no-fsync --log-level=warn \
    --quota-backend-bytes=4294967296 \
    --listen-client-urls="http://127.0.0.1:$client" --advertise-client-urls="http://127.0.0.1:$client" \
    --listen-peer-urls="http://127.0.0.1:$peer" --initial-advertise-peer-urls="http://127.0.0.1:$peer" \
    --initial-cluster="default=http://127.0.0.1:$peer"
  wait_answer "$folder" etcd 30 "http://127.0.0.1:$client/health"
}

# with_nodes FOLDER: before its API server is started first: node-api will be there, and the way to the nodes.
with_nodes() {
  local folder=$1 socket=$1/nodes.sock
  # The name of a socket has at most 107 bytes.
  ((${#socket} <= 100)) || socket=$(mktemp -u "/tmp/nightshift-test.XXXXXX.sock")
  printf '%s\n' "$socket" >"$folder/socket"
  free_port >"$folder/node.port"
  cat >"$folder/egress.yaml" <<EOF
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport: {uds: {udsName: "$socket"}}
EOF
}

# start_api FOLDER PORT ETCD_PORT [FLAG]…: does not wait. Keys and tokens stay what they are over a restart.
start_api() {
  local folder=$1 port=$2 etcd=$3
  shift 3
  printf '%s\n' "$port" >"$folder/api.port"
  [[ -s $folder/sa.key ]] || "$kube" make-key "$folder/sa.key"
  if [[ ! -s $folder/tokens.csv ]]; then
    (umask 077 && printf '%s,admin,admin,"system:masters"\n' "$(random_token)" >"$folder/tokens.csv")
  fi
  [[ ! -s $folder/egress.yaml ]] || set -- "$@" --egress-selector-config-file="$folder/egress.yaml"
  spawn "$folder" kube-apiserver "$kube" kube-apiserver --cert-dir="$folder/certs" \
    --etcd-servers="http://127.0.0.1:$etcd" --secure-port="$port" \
    --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --endpoint-reconciler-type=none \
    --service-cluster-ip-range=10.96.0.0/16 \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$folder/sa.key" --service-account-signing-key-file="$folder/sa.key" \
    --authorization-mode=RBAC --token-auth-file="$folder/tokens.csv" --allow-privileged=true \
    --audit-policy-file="$TESTENV_ROOT/kubernetes/audit.yaml" --audit-log-path="$folder/audit.log" --audit-log-maxsize=200 \
    --max-requests-inflight=2000 --max-mutating-requests-inflight=1000 \
    --kubelet-preferred-address-types=InternalIP "$@"
}

random_token() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

# write_kubeconfig FILE FOLDER TOKEN [NAMESPACE]
write_kubeconfig() {
  (umask 077 && cat >"$1.new" <<EOF
apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster:
    server: https://127.0.0.1:$(<"$2/api.port")
    certificate-authority-data: $(base64 -w0 <"$2/certs/apiserver.crt")
contexts:
- name: test
  context: {cluster: test, user: test, namespace: ${4:-default}}
users:
- name: test
  user:
    token: $3
EOF
  )
  mv -- "$1.new" "$1"
}

# wait_api FOLDER: until it is ready, then writes FOLDER/kubeconfig.
wait_api() {
  local folder=$1
  wait_answer "$folder" kube-apiserver 90 "https://127.0.0.1:$(<"$folder/api.port")/readyz"
  write_kubeconfig "$folder/kubeconfig" "$folder" "$(cut -d, -f1 "$folder/tokens.csv" | head -n 1)"
}

kctl() {
  local folder=$1
  shift
  "$kube" kubectl --kubeconfig "$folder/kubeconfig" "$@"
}

# start_controllers FOLDER: controller manager, scheduler and node-api, whichever does not run. Client limits are
# set for thousands of pods, and periods so short that a test need not wait for minutes.
start_controllers() {
  local folder=$1
  alive "$folder" kube-controller-manager || spawn "$folder" kube-controller-manager "$kube" kube-controller-manager \
    --kubeconfig="$folder/kubeconfig" --service-account-private-key-file="$folder/sa.key" \
    --root-ca-file="$folder/certs/apiserver.crt" --use-service-account-credentials --leader-elect=false --secure-port=0 \
    --kube-api-qps=1000 --kube-api-burst=2000 --concurrent-deployment-syncs=10 --concurrent-replicaset-syncs=20 \
    --horizontal-pod-autoscaler-sync-period=2s --horizontal-pod-autoscaler-downscale-stabilization=15s \
    --horizontal-pod-autoscaler-cpu-initialization-period=1s --horizontal-pod-autoscaler-initial-readiness-delay=1s \
    --node-monitor-period=2s --node-monitor-grace-period=25s --pvclaimbinder-sync-period=2s \
    --controllers='*,-certificatesigningrequest-approving-controller'
  alive "$folder" kube-scheduler || spawn "$folder" kube-scheduler "$kube" kube-scheduler \
    --kubeconfig="$folder/kubeconfig" --leader-elect=false --secure-port=0 --kube-api-qps=1000 --kube-api-burst=2000
  mkdir -p -- "$folder/logs"
  alive "$folder" node-api || spawn "$folder" node-api "$kube" node-api \
    --kubeconfig="$folder/kubeconfig" --port="$(<"$folder/node.port")" \
    --socket="$(<"$folder/socket")" --logs="$folder/logs"
}

# start_kwok FOLDER: it watches custom resources too, so their definitions must be there.
start_kwok() {
  local folder=$1
  python3 "$TESTENV_ROOT/kubernetes/stages.py" >"$folder/stages.yaml"
  # A node with the label nightshift.test/silent is left alone: its kubelet has died.
  alive "$folder" kwok || spawn "$folder" kwok "$kwok" --kubeconfig="$folder/kubeconfig" --config="$folder/stages.yaml" \
    --manage-nodes-with-label-selector='!nightshift.test/silent' \
    --node-lease-duration-seconds=40 --server-address=127.0.0.1:0 --cidr=10.240.0.1/12 --v=WARN
}

# first_objects FOLDER: what a fresh cluster with controllers is given; starts kwok and waits until all of it is in use.
first_objects() {
  local folder=$1
  "$TESTENV_ROOT/kubernetes/objects" "$(<"$folder/node.port")" >"$folder/objects.yaml"
  kctl "$folder" create --validate=false -f "$folder/objects.yaml" >"$folder/objects.log" 2>&1 ||
    { tail -n 5 "$folder/objects.log" >&2; die "the first objects of $folder are refused"; }
  settle "$folder" Established crd -l nightshift.test/loose=true
  start_kwok "$folder"
  settle "$folder" Ready nodes --all
  settle "$folder" Available apiservice/v1beta1.metrics.k8s.io
}

# settle FOLDER CONDITION OBJECTS…: until all of them have it. A `kubectl wait` fails on one that has no status yet.
settle() {
  local folder=$1 condition=$2
  shift 2
  wait_for 60 kctl "$folder" wait --for=condition="$condition" --timeout=60s "$@" ||
    { kctl "$folder" get "$@" >&2; die "not all of \`$*\` are $condition after 60 s"; }
}

# stop_server FOLDER: with SIGKILL, as its data is thrown away: an API server takes ten seconds to end by itself.
stop_server() {
  local part pids=()
  for part in kwok node-api kube-scheduler kube-controller-manager kube-apiserver etcd; do
    ! alive "$1" "$part" || pids+=("$(<"$1/$part.pid")")
    rm -f -- "$1/$part.pid"
  done
  if ((${#pids[@]})); then
    kill -9 "${pids[@]}" 2>/dev/null || true
    wait_for 10 not kill -0 "${pids[@]}" || warn "not all processes of $1 have ended: ${pids[*]}"
  fi
  [[ ! -s $1/socket ]] || rm -f -- "$(<"$1/socket")"
}
