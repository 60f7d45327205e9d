# Shared by the scripts of this folder and of testenv/. Sourced, not run.

say() { printf '==> %s\n' "$*" >&2; }
warn() { printf '==> WARNING: %s\n' "$*" >&2; }
die() {
  printf '==> %s\n' "$*" >&2
  exit 1
}

# Where servers built for tests are kept between clones.
cache_dir() { printf '%s\n' "${NIGHTSHIFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nightshift}"; }

# Installs Debian packages without starting any service they bring; without root, prints the one line.
apt_install() {
  if [ "$(id -u)" != 0 ]; then
    die "these packages are missing:  sudo apt-get install -y --no-install-recommends $*"
  fi
  command -v apt-get >/dev/null || die "these packages are missing and this is no Debian: $*"
  say "installing $*"
  local policy=/usr/sbin/policy-rc.d held=0 log
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    held=1
  fi
  log=$(mktemp)
  local ok=0
  if DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$log" 2>&1; then
    ok=1
  elif apt-get update >"$log" 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$log" 2>&1; then
    ok=1
  fi
  [ $held = 0 ] || rm -f $policy
  if [ $ok = 0 ]; then
    tail -20 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}
