"""Prints what was measured as Markdown tables, ready for bench/README.md."""

import math

from targets import TARGETS, verdict


def number(value):
    """A figure with as many digits as it deserves."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    if abs(value) >= 100_000:
        return f"{value / 1e6:.2f} M"
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 0.01 else f"{value:.2f}"


def numbers(values):
    return " / ".join(map(number, values))


def table(head, rows):
    """A Markdown table. A bar in a cell, as of a pipe, would end the cell, in code too."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join(lines + ["| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows])


def targets(measured):
    """The table of targets with what was reached."""
    words = {"aim": "**aim**", "must": "yes", "no": "**no**", "?": "not measured"}
    rows = []
    for row in TARGETS:
        got = measured.get(row.key, {"values": [None] * len(row.figures), "command": "not run"})
        title = f"{row.title}: {' / '.join(f.name for f in row.figures)}"
        sign = [("≤ " if f.at_most else "") for f in row.figures]
        must = " / ".join(s + number(f.must) for s, f in zip(sign, row.figures))
        aim = " / ".join(s + number(f.aim) for s, f in zip(sign, row.figures))
        reached = words[verdict(row, got["values"])]
        rows.append((title, row.anchor, must, aim, numbers(got["values"]), reached, f"`{got['command']}`"))
    return table(("set: figures", "anchor", "must", "aim", "ours", "reached", "command"), rows)


def details(measured):
    """What stands behind the table: categories, sets, what was left out, times."""
    parts = []
    for name in ("nab", "cloudmon"):
        rows = [row for mode in ("alert", "best") for row in metric_rows(measured, name, mode)]
        if not rows:
            continue
        head = ("set", "mode", "NAB standard", "low FP", "low FN", "windows found", "window F1", "false alarms a week")
        parts.append(f"### {name}, by category\n\n" + table(head, rows))
    if "rca-ms" in measured:
        more = measured["rca-ms"]["more"]
        rows = []
        for name, score in more["left_out"].items():
            rows.append((f"{name}, {score['service']['cases']} cases", *ranks(score["service"])))
            fine = score.get("service_and_metric")
            if fine:
                rows.append((f"– service and metric, {fine['cases']}", *ranks(fine)))
            if " " not in name:
                rows += [(f"– {group}, {s['cases']}", *ranks(s)) for group, s in score["groups"].items()]
        parts.append("### Causes\n\n" + table(("set", "top 1", "top 3", "top 5", "Avg@5"), rows))
        parts.append(f"Ranking a case: {number(more['median_ms'])} ms in the middle, {number(more['longest_ms'])} ms at "
                     f"the longest (`elapsed_ms`); whole commands: {', '.join(more['walls'])}.")
    for key in ("logs", "logs-raw"):
        if key in measured:
            rows = [(name, *(f"{s[k]:.3f}" for k in ("GA", "FGA", "PA", "PA_loose", "FTA")), s.get("found_templates", ""))
                    for name, s in measured[key]["more"]["score"].items()]
            title = "messages" if key == "logs" else "raw lines"
            parts.append(f"### Logs, {title}\n\n"
                         + table(("set", "GA", "FGA", "PA", "PA loose", "FTA", "templates"), rows))
    if "log-rate" in measured:
        more = measured["log-rate"]["more"]
        cpu, walls = (", ".join(f"{s:.2f}" for s in more[k]) for k in ("cpu_s", "wall_s"))
        parts.append(f"Log lines: {more['lines']:,} in {cpu} s on the core, {walls} s of wall time; "
                     f"{more['memory_bytes'] / 2**20:.0f} MiB at most.")
    return "\n\n".join(parts)


def metric_rows(measured, name, mode):
    """The whole set and each of its categories."""
    if f"{name}-{mode}" not in measured:
        return []
    score = measured[f"{name}-{mode}"]["more"]["score"]
    every = [(f"all, {score['series']} series", score), *score["by_category"].items()]
    rows = []
    for title, s in every:
        nab, o = s["nab"], s["operational"]
        rows.append((title, mode, number(nab["standard"]), number(nab["reward_low_FP_rate"]),
                     number(nab["reward_low_FN_rate"]), f"{o['windows_found']} of {o['windows']}",
                     number(o["window_f1"]), number(o["fp_alarms_per_week"])))
    return rows


def ranks(s):
    return [number(s[k]) for k in ("AC@1", "AC@3", "AC@5", "Avg@5")]


def cross_validation(sets):
    """In-sample and cross-validated side by side."""
    head = ("set", "figures", "in-sample", "threshold from the other categories")
    rows, categories = [], []
    for s in sets:
        names = "NAB standard / low FP / low FN / window F1 / false alarms a week" if s["set"] == "nab" else \
            "window F1 / false alarms a week"
        inside, outside = s["in_sample"], s["cross_validated"]
        if s["set"] != "nab":
            inside, outside = inside[-2:], outside[-2:]
        rows.append((s["set"], names, numbers(inside), numbers(outside)))
        for category, c in s["by_category"].items():
            categories.append((f"{s['set']} {category}", "NAB standard", number(c["in_sample"]),
                               f"{number(c['cross_validated'])} at {number(c['threshold'])}"))
    return table(head, rows + categories)


def ablation(rows):
    """What each layer brings."""
    head = ("off", "NAB own alarms: standard / false alarms a week", "NAB best: standard / low FP / low FN",
            "cloud own alarms: window F1 / false alarms a week", "cloud best: window F1 / false alarms a week")
    keys = ("nab-alert", "nab-best", "cloudmon-alert", "cloudmon-best")
    return table(head, [(off, *(numbers(figures[k]) for k in keys)) for off, figures in rows])


def peers(rows):
    """Others on the same data in the same run."""
    return table(("peer", "set", "figures", "measured", "command"),
                 [(r["peer"], r["set"], r["figures"], r["measured"], f"`{r['command']}`" if r["command"] else "")
                  for r in rows])
