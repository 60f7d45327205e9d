#!/usr/bin/env python3
"""A Nightshift collector in Python (standard library only): do these URLs answer, and how fast?

It runs on and prints when it has something to say.

    [sources.http_probe]
    type = "exec"
    command = ["examples/collectors/http_probe.py", "--interval", "10", "http://127.0.0.1:8080/api/v1/health"]

Each probe gives `http_probe_up` (1 or 0), and `http_probe_duration_seconds` and `http_probe_status_code` where there
was an answer: a probe without one has no duration, which is not the same as zero. A change from up to down, or back,
is a log line as well.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request


def say(**fields):
    """One line of the schema. Flushed at once: a pipe would hold it back."""
    print(json.dumps({"v": 1, **fields}), flush=True)


def probe(url, timeout):
    """Status code or None, seconds, and what went wrong or None."""
    request = urllib.request.Request(url, headers={"User-Agent": "nightshift-http-probe/1"})
    began = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            answer.read(1 << 16)
            return answer.status, time.monotonic() - began, None
    except urllib.error.HTTPError as error:
        return error.code, time.monotonic() - began, f"status {error.code}"
    except (OSError, ValueError, urllib.error.URLError) as error:
        return None, time.monotonic() - began, str(getattr(error, "reason", error))


def main():
    parser = argparse.ArgumentParser(description="probe URLs and print JSON lines")
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between rounds (default 10)")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds for an answer (default 5)")
    parser.add_argument("--rounds", type=int, default=0, help="end after so many rounds (default 0: never)")
    options = parser.parse_args()
    if any(not url.startswith(("http://", "https://")) for url in options.urls):
        parser.error("a URL begins with http:// or https://")

    was_up = {}
    done = 0
    while True:
        down = 0
        for url in options.urls:
            status, seconds, problem = probe(url, options.timeout)
            up = status is not None and status < 500
            labels = {"url": url}
            say(type="metric", name="http_probe_up", kind="gauge", value=int(up), labels=labels)
            if status is not None:
                say(type="metric", name="http_probe_duration_seconds", kind="gauge", value=round(seconds, 6), labels=labels)
                say(type="metric", name="http_probe_status_code", kind="gauge", value=status, labels=labels)
            if was_up.get(url, True) and not up:
                say(type="log", severity="error", message=f"{url} does not answer: {problem}")
            elif was_up.get(url) is False and up:
                say(type="log", severity="info", message=f"{url} answers again")
            was_up[url] = up
            down += not up
        say(type="heartbeat", status="ok", detail=f"{len(options.urls) - down} of {len(options.urls)} URLs answer")
        done += 1
        if options.rounds and done >= options.rounds:
            return 0
        time.sleep(options.interval)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
