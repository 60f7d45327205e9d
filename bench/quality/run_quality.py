"""Every quality figure of bench/README.md in one run: `python3 bench/quality --data DIR --score DIR`.

Runs `nightshift backtest` on the development halves with the release binary and its defaults, scores what it printed,
measures the speeds, and prints the table of targets with what was reached. Exit 0 when everything was measured,
whatever it reached; 1 when a command failed; 2 when data, scorers or binaries are not there.
"""

import argparse
import json
import sys
from pathlib import Path

import ablation
import crossval
import measure
import peers
import show
from shell import Failed, Place

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("metrics", "rca", "logs", "speed")


def arguments(given=None):
    a = argparse.ArgumentParser(prog="bench/quality", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--data", type=Path, help="folder of the data sets")
    a.add_argument("--score", type=Path, help="folder of the scorers")
    a.add_argument("--binary", type=Path, default=ROOT / "target/release/nightshift")
    a.add_argument("--detect-load", type=Path, default=ROOT / "target/release/examples/detect_load")
    a.add_argument("--out", type=Path, default=ROOT / "target/quality", help="where everything on the way is kept")
    a.add_argument("--check", action="store_true", help="only tell what data and scorers are missing")
    a.add_argument("--only", action="append", choices=PARTS, help="measure this part alone; may be repeated")
    a.add_argument("--log-lines", type=int, default=measure.LOG_LINES, help="lines to measure the speed on")
    a.add_argument("--series", type=int, default=100_000, help="series to measure the speed on")
    a.add_argument("--rounds", type=int, default=600, help="samples of each of them")
    a.add_argument("--peers", action="store_true", help="measure others beside it (installs them below --out)")
    a.add_argument("--ablation", action="store_true", help="switch each metric layer off in turn")
    a.add_argument("--cross-validate", action="store_true", help="thresholds from all categories but one")
    a.add_argument("--json", action="store_true", help="print JSON and no tables")
    a.add_argument("--readme", type=Path, help="also put the tables between the marks of this Markdown file")
    return a.parse_args(given)


def main(given=None):
    o = arguments(given)
    gone = [f"--{name} is not given: {what}" for name, what in
            (("data", "the folder of the data sets (bench/README.md says where they come from)"),
             ("score", "the folder of the scorers")) if getattr(o, name) is None]
    parts = o.only or PARTS
    if not gone:
        place = Place(o.data.resolve(), o.score.resolve(), o.binary.resolve(), o.detect_load.resolve(),
                      o.out.resolve(), o.out.resolve() / "venv")
        gone = measure.missing(place)
        if not o.check and not place.binary.exists():
            gone.append(f"{place.binary}: not built; cargo build --locked --release -p nightshift")
        if not o.check and "speed" in parts and not place.detect_load.exists():
            gone.append(f"{place.detect_load}: not built; "
                        "cargo build --locked --release -p nightshift-detect --example detect_load")
    if gone:
        print("bench-quality: cannot measure, missing:", *gone, sep="\n  ", file=sys.stderr)
        return 2
    if o.check:
        return 0
    place.out.mkdir(parents=True, exist_ok=True)
    try:
        found = everything(place, o, parts)
        text = json.dumps(found, indent=1, ensure_ascii=False)
        (place.out / "quality.json").write_text(text, encoding="utf-8")
        if o.readme is not None:
            o.readme.write_text(filled(o.readme.read_text(encoding="utf-8"), page(found)), encoding="utf-8")
    except Failed as e:
        print(f"bench-quality: {e}", file=sys.stderr)
        return 1
    print(text if o.json else page(found))
    return 0


MARKS = ("<!-- bench-quality: from here on written by the command -->", "<!-- bench-quality: to here -->")


def filled(text, tables):
    """A Markdown text with `tables` in place of what was between its marks. Raises `Failed` when it has none."""
    begin, end = (text.find(mark) for mark in MARKS)
    if not 0 <= begin < end:
        raise Failed(f"the file to write to has no line `{MARKS[0]}` with `{MARKS[1]}` below it")
    return f"{text[:begin]}{MARKS[0]}\n\n{tables}\n\n{text[end:]}"


def everything(place, o, parts):
    """All that was asked for, by name."""
    def tell(what):
        print(f"bench-quality: {what}", file=sys.stderr, flush=True)

    measured = {}
    found = {"commit": measure.commit(), "machine": measure.machine(), "targets": measured}
    if "metrics" in parts:
        tell("metrics")
        measured |= measure.metrics(place)
    if "rca" in parts:
        tell("causes")
        measured |= measure.causes(place)
    if "logs" in parts:
        tell("logs")
        measured |= measure.logs(place)
    if "speed" in parts:
        tell("speed of logs")
        measured |= measure.log_rate(place, o.log_lines)
        tell("speed of metrics")
        measured |= measure.sample_rate(place, o.series, o.rounds)
    if o.cross_validate and "metrics" in parts:
        tell("cross-validation")
        found["cross_validation"] = crossval.metrics(place, measured)
    if o.ablation and "metrics" in parts:
        tell("ablation")
        found["ablation"] = ablation.table(place)
    if o.peers:
        found["peers"] = peers.measure(place, parts, tell)
    return found


def page(found):
    """The tables, as Markdown."""
    machine = found["machine"]
    parts = [f"Commit {found['commit']}, {machine['cores']} cores, load average {machine['load_average']:.1f} before.",
             show.targets(found["targets"]), show.details(found["targets"])]
    if "cross_validation" in found:
        parts += ["### Cross-validation by category", show.cross_validation(found["cross_validation"])]
    if "ablation" in found:
        parts += ["### Without a layer", show.ablation(found["ablation"])]
    if "peers" in found:
        parts += ["### Peers in the same run", show.peers(found["peers"])]
    return "\n\n".join(p for p in parts if p)


if __name__ == "__main__":
    sys.exit(main())
