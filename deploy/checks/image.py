"""The image: its recipe by form, and the root that it will have, made here of the program that was built last."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from .report import DEPLOY, ROOT, Report, nightshift, run

# All of the image: the promise of the README.
BYTES_MAX = 60_000_000


def instructions(text: str) -> list[tuple[str, str]]:
    """(name, rest) of each instruction, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def recipe(report: Report) -> None:
    steps = instructions((DEPLOY / "docker" / "Dockerfile").read_text())
    froms = [rest for name, rest in steps if name == "FROM"]
    report.check(len(froms) >= 2, "Dockerfile: one stage only: the compiler would be part of the image")
    report.same(froms[-1], "scratch", "Dockerfile: the last stage")
    arguments = dict(rest.split("=", 1) for name, rest in steps if name == "ARG" and "=" in rest)
    for source in froms[:-1]:
        base = source.split()[0]
        named = re.fullmatch(r"\$\{(\w+)\}", base)
        image = arguments.get(named.group(1), "") if named else base
        report.check(named, f"Dockerfile: base {base} cannot be pinned from outside (make it an ARG)")
        report.check(is_neutral(image), f"Dockerfile: base `{image}` has no tag, or names a registry")
    last = [index for index, (name, _) in enumerate(steps) if name == "FROM"][-1]
    final = steps[last:]
    user = [rest for name, rest in final if name == "USER"]
    report.check(user and re.fullmatch(r"[1-9]\d*:[1-9]\d*", user[-1]), f"Dockerfile: USER {user} is no number above 0")
    report.check(not [1 for name, _ in final if name == "RUN"], "Dockerfile: the last stage runs something: it has no shell")
    report.check([1 for name, _ in final if name == "HEALTHCHECK"], "Dockerfile: no HEALTHCHECK")
    entry = [rest for name, rest in final if name == "ENTRYPOINT"]
    report.same(entry, ['["/usr/bin/nightshift"]'], "Dockerfile: ENTRYPOINT")
    build = " ".join(rest for name, rest in steps if name == "RUN")
    report.check("--locked" in build, "Dockerfile: builds without --locked")
    text = " ".join(rest for _, rest in steps)
    report.check("SOURCE_DATE_EPOCH" in text and "remap-path-prefix" in text, "Dockerfile: times or paths of the build show")


def is_neutral(image: str) -> bool:
    """A name with a tag that stays, and without a registry's host."""
    first, _, rest = image.partition("/")
    host = bool(rest) and ("." in first or ":" in first or first == "localhost")
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return bool(tag) and tag != "latest" and not host


def context(report: Report) -> None:
    """What the build needs is let in, and nothing that grows or is secret."""
    lines = [line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    report.same(lines[0], "*", ".dockerignore: begins with everything left out")
    let_in = {line[1:] for line in lines if line.startswith("!")}
    for path in sorted(let_in):
        report.check((ROOT / path).exists(), f".dockerignore: there is no {path}")
    needed = {"Cargo.toml", "Cargo.lock", "crates", "proto", "playbooks", "policies", "rules", "deploy/docker/rootfs"}
    members = re.search(r"^members = \[(.*)\]", (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    needed |= {member.strip(' "').removesuffix("/*") for member in members.split(",")}
    report.check(needed <= let_in, f".dockerignore: the build needs {sorted(needed - let_in)}")
    for path in ("target", ".git", "testenv", "deploy/compose"):
        report.check(path not in let_in, f".dockerignore: {path} is let in")
    # Files that a source takes in by a path outside its crate.
    crates = ROOT / "crates"
    for file in crates.glob("*/src/**/*.rs"):
        for path in re.findall(r'include_(?:str|bytes)!\("((?:\.\./)+[^"]+)"', file.read_text()):
            part = os.path.relpath(os.path.normpath(file.parent / path), ROOT).split(os.sep)[0]
            report.check(part in let_in or part == "..", f".dockerignore: {file.relative_to(ROOT)} takes in {path}")


def root(report: Report) -> None:
    """The root holds all that the program needs: it starts in it as a user who is not root."""
    binary = nightshift()
    if not binary:
        report.skip("image: no program is built (make build, or NIGHTSHIFT_BIN)")
        return
    with tempfile.TemporaryDirectory() as folder:
        # Others must get through to it.
        os.chmod(folder, 0o755)
        where = Path(folder) / "root"
        if os.geteuid() != 0:
            report.skip("image: its root is made by root (files get an owner)")
            return
        answer = run(DEPLOY / "docker" / "rootfs", binary, where, "1700000000")
        if not report.check(answer.returncode == 0, f"rootfs: {answer.stderr.strip()}"):
            return
        times = {path.lstat().st_mtime for path in [where, *where.rglob("*")]}
        report.same(times, {1700000000.0}, "rootfs: times of files")
        for shell in ("bin/sh", "usr/bin/sh", "bin/busybox"):
            report.check(not (where / shell).exists(), f"rootfs: has {shell}")
        loose = [str(p.relative_to(where)) for p in where.rglob("*") if p.lstat().st_mode & 0o6002 and not p.is_symlink()]
        report.same(loose, ["tmp"], "rootfs: what anybody may write, or runs as another")
        started = subprocess.run(
            ["chroot", "--userspec=65532:65532", where, "/usr/bin/nightshift", "--version"],
            capture_output=True,
            text=True,
            check=False,
        )
        report.check(started.returncode == 0, f"rootfs: the program does not start in it: {started.stderr.strip()}")
        size = sum(path.lstat().st_size for path in where.rglob("*") if path.is_file())
        if Path(binary).parent.name in ("release", "dist"):
            report.check(size < BYTES_MAX, f"image: {size} bytes of files, {BYTES_MAX} at most")
            print(f"image: {size} bytes of files")
        else:
            report.skip(f"size of the image: {binary} is no release build")


def start(report: Report) -> None:
    """Checks the image."""
    recipe(report)
    context(report)
    root(report)
