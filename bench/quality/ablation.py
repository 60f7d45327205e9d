"""Ablation: each metric layer that can be switched off is, in turn, and the metric sets are scored again.

The switches are found in the configuration reference of the binary itself, so that a new layer is in the table
without being named here.
"""

import re

from measure import METRIC_SETS, backtest_metrics, metric_values, nab_score
from shell import text_of

SECTION = re.compile(r"^#?\s*\[(detect\.metrics\.[a-z_0-9.]+)\]\s*$")
SWITCH = re.compile(r"^#?\s*([a-z_0-9]+)\s*=\s*true\b")


def switches(reference):
    """What is on by default below `detect.metrics` and can be switched off: sections and keys."""
    section, found = None, []
    for line in reference.splitlines():
        if match := SECTION.match(line):
            section = match.group(1)
        elif re.match(r"^#?\s*\[", line):
            section = None
        # Features are of an entity with many series; these sets have one each.
        elif section and not section.startswith("detect.metrics.features") and (match := SWITCH.match(line)):
            found.append((section, match.group(1)))
    return found


def table(place):
    """Rows of (what is off, set figures): own alarms of both sets and NAB's best threshold."""
    reference = text_of([place.binary, "config", "reference"])
    out = [("nothing", measure(place, None, ""))]
    for section, key in switches(reference):
        name = section.removeprefix("detect.metrics.") + ("" if key == "enabled" else f".{key}")
        config = place.out / f"without-{name}.toml"
        config.write_text(f"[{section}]\n{key} = false\n")
        out.append((name, measure(place, config, f"-without-{name}")))
    return out


def measure(place, config, suffix):
    """Figures by row of the table of targets, for one configuration."""
    figures = {}
    for name in METRIC_SETS:
        jsonl, _, _ = backtest_metrics(place, name, config, suffix)
        for mode in ("alert", "best"):
            figures[f"{name}-{mode}"] = metric_values(name, mode, nab_score(place, name, jsonl, "--mode", mode))
    return figures
