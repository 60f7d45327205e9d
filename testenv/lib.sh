# shellcheck shell=bash
# Helpers shared by everything under testenv/. Source it; it starts nothing by itself.
#
# Folders:
#   cache_dir    what is expensive to make and named by the hash of what made it; outside the clone, safe to delete
#   testenv_dir  what one checkout runs right now: NAME.env files (`export …` lines), data folders, logs, pid files

TESTENV_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
REPO_ROOT=$(dirname -- "$TESTENV_ROOT")

say() { printf 'testenv: %s\n' "$*" >&2; }
warn() { printf 'testenv: WARNING: %s\n' "$*" >&2; }
die() { printf 'testenv: ERROR: %s\n' "$*" >&2; exit 1; }

cache_dir() {
  local dir="${NIGHTSHIFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nightshift}"
  mkdir -p "$dir" && printf '%s\n' "$dir"
}

testenv_dir() {
  local dir="${NIGHTSHIFT_TESTENV_DIR:-$REPO_ROOT/target/testenv}"
  mkdir -p "$dir" && (cd "$dir" && pwd)
}

# need_cmd NAME HOW_TO_GET_IT
need_cmd() {
  command -v "$1" >/dev/null 2>&1 || die "\`$1\` is missing; get it with: $2"
}

# content_hash FILE…: 16 hexadecimal digits of what the files hold (not of their names).
content_hash() {
  cat -- "$@" | sha256sum | cut -c1-16
}

# A TCP port on loopback that was free a moment ago.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# write_env NAME VAR VALUE [VAR VALUE]…: (re)writes NAME.env in the testenv folder, whole or not at all.
write_env() {
  local file
  file="$(testenv_dir)/$1.env"
  shift
  while (($# >= 2)); do
    printf 'export %s=%q\n' "$1" "$2"
    shift 2
  done >"$file.new"
  mv -- "$file.new" "$file"
}

# install_held_back: runs "$@" while Debian's maintainer scripts may not start a service, and switches off again whatever
# they enabled for the next boot: a test needs the program, never a server on its usual port.
install_held_back() {
  local policy=/usr/sbin/policy-rc.d ours='' before after unit rc=0
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=yes
  fi
  before=$(enabled_units)
  "$@" || rc=$?
  after=$(enabled_units)
  while read -r unit; do
    [[ -z $unit ]] || systemctl disable --quiet "$unit" >/dev/null 2>&1 || warn "disable the service $unit yourself"
  done < <(comm -13 <(printf '%s\n' "$before") <(printf '%s\n' "$after"))
  [[ -z $ours ]] || rm -f -- "$policy"
  return "$rc"
}

enabled_units() {
  command -v systemctl >/dev/null 2>&1 || return 0
  { systemctl list-unit-files --type=service --state=enabled --no-legend --no-pager 2>/dev/null || true; } |
    awk '{ print $1 }' | sort
}

# missing_packages PACKAGE…: those that are not installed, one a line.
missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || printf '%s\n' "$package"
  done
}

# apt_install PACKAGE…: installs what is missing, quietly, services held back. Without root: prints the one line, exits 1.
apt_install() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null 2>&1 || die "this is no Debian: install what \`${missing[*]}\` holds by hand"
  ((EUID == 0)) || die "missing packages; run: sudo apt-get install -y --no-install-recommends ${missing[*]}"
  say "installing ${missing[*]}"
  install_held_back apt_quiet "${missing[@]}" || die "apt-get could not install ${missing[*]} (its last lines are above)"
}

# The first try is without `update`: it is slow, and mostly not needed.
apt_quiet() {
  local log rc=0
  log=$(mktemp)
  { apt_get install "$@" || { apt_get update && apt_get install "$@"; }; } >"$log" 2>&1 || rc=$?
  ((rc == 0)) || tail -n 20 "$log" >&2
  rm -f -- "$log"
  return "$rc"
}

# --no-remove: nothing that somebody installed goes away for a test (another syslog daemon, say).
apt_get() {
  local verb=$1
  shift
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 --no-install-recommends --no-remove "$verb" "$@"
}

# wait_for SECONDS COMMAND…: until the command succeeds; 1 when the time is over.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# stop_pid PID: ends a process that we started; waits up to 10 s before it is killed.
stop_pid() {
  kill "$1" 2>/dev/null || return 0
  wait_for 10 not kill -0 "$1" || kill -9 "$1" 2>/dev/null || true
}

not() { ! "$@"; }

# need_go: a Go toolchain that can get the one a go.mod asks for by itself (from 1.21 on; Debian 12 has 1.19).
need_go() {
  need_cmd go "a Go toolchain, 1.21 or newer, from https://go.dev/dl/"
  local have
  have=$(go env GOVERSION)
  [[ $(printf '%s\n' go1.21 "$have" | sort -V | head -n 1) == go1.21 ]] || die "$have is too old; get 1.21 or newer from https://go.dev/dl/"
}

# go_build FILE PACKAGE [FLAG]…: builds one program in the current folder's module, with $stamp for the linker. At low
# priority, so that a compile of our own beside it does not wait.
go_build() {
  local file=$1 package=$2 started=$SECONDS
  shift 2
  say "building ${file##*/} from Go modules (the first time takes minutes)"
  CGO_ENABLED=0 nice -n 19 \
    go build -buildvcs=false -trimpath -ldflags="-s -w ${stamp:-}" "$@" -o "$file" "$package" ||
    die "could not build ${file##*/}"
  say "${file##*/} built in $((SECONDS - started)) s"
}
