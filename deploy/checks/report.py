"""What was checked, what was wrong, what could not be checked; and where the tools are."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "nightshift"


class Report:
    """Counts; prints what is wrong at once."""

    def __init__(self) -> None:
        self.checked = 0
        self.wrong: list[str] = []
        self.skipped: list[str] = []

    def check(self, holds: object, what: str) -> bool:
        """`what` says what is wrong when it does not hold."""
        self.checked += 1
        if not holds:
            self.wrong.append(what)
            print(f"WRONG: {what}", file=sys.stderr)
        return bool(holds)

    def same(self, have: object, want: object, what: str) -> bool:
        return self.check(have == want, f"{what}: {have!r}, not {want!r}")

    def skip(self, what: str) -> None:
        self.skipped.append(what)
        print(f"SKIPPED: {what}", file=sys.stderr)

    def end(self) -> int:
        strict = os.environ.get("NIGHTSHIFT_TESTENV_STRICT") == "1"
        print(f"deploy/check: {self.checked} checks, {len(self.wrong)} wrong, {len(self.skipped)} skipped", file=sys.stderr)
        if self.checked == 0 and not self.skipped:
            print("deploy/check: nothing was checked", file=sys.stderr)
            return 1
        return 1 if self.wrong or (strict and self.skipped) else 0


def run(*command: object, text: str | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Runs a command to its end; nothing is printed."""
    full = None if env is None else {**os.environ, **env}
    return subprocess.run([str(c) for c in command], input=text, env=full, capture_output=True, text=True, check=False)


def tool(variable: str, name: str) -> str | None:
    """A program from the environment, else from the PATH."""
    named = os.environ.get(variable)
    if named:
        return named if os.access(named, os.X_OK) else None
    return shutil.which(name)


def nightshift() -> str | None:
    """The program that was built last."""
    named = os.environ.get("NIGHTSHIFT_BIN")
    if named:
        return named
    built = [ROOT / "target" / profile / "nightshift" for profile in ("dist", "release", "debug", "demo")]
    built = [path for path in built if os.access(path, os.X_OK)]
    return str(max(built, key=lambda path: path.stat().st_mtime)) if built else None
