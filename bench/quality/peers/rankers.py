"""Rankings to compare with: `rankers.py METHOD --cases FILE` prints what `backtest rca` prints.

Metrics alone: neither takes a graph, logs or traces. Columns of pseudo services, `(front)`, are left out.
"""

import argparse
import csv
import gzip
import json
import math
import statistics
import sys
import time
from pathlib import Path


def table(path):
    """Times and columns of a wide CSV; `nan` where there is no data."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="", encoding="utf-8") as f:
        rows = csv.reader(f)
        names = next(rows)
        body = [[float(c) if c else math.nan for c in row] for row in rows]
    columns = dict(zip(names, map(list, zip(*body))))
    return columns.pop("timestamp"), {n: v for n, v in columns.items() if not n.startswith("(")}


def finite(values):
    return [v for v in values if math.isfinite(v)]


def zscore(normal, case, at):
    """Largest distance of a column from its normal mean since the alert, in normal standard deviations."""
    times, columns = case
    scores = {}
    for name, values in columns.items():
        before = finite(normal[1].get(name, [])) + finite(v for t, v in zip(times, values) if t < at)
        after = finite(v for t, v in zip(times, values) if t >= at)
        if len(before) < 2 or not after:
            continue
        mean, sd = statistics.fmean(before), statistics.pstdev(before)
        if sd > 0:
            scores[name] = max(abs(v - mean) for v in after) / sd
    return sorted(scores.items(), key=lambda s: (-s[1], s[0]))


def baro(normal, case, at):
    """BARO's own ranking, with the time of the alert given."""
    import pandas
    from baro.root_cause_analysis import robust_scorer

    times, columns = case
    # The normal minutes of a day lie on both sides of a case, so rows are told apart by number, not by time.
    before = [i for i, t in enumerate(times) if t < at]
    after = [i for i, t in enumerate(times) if t >= at]
    frame = {"time": normal[0] + [times[i] for i in before + after]}
    for name, values in columns.items():
        known = normal[1].get(name, [math.nan] * len(normal[0]))
        frame[name] = known + [values[i] for i in before + after]
    data = pandas.DataFrame(frame).ffill().fillna(0.0)
    answer = robust_scorer(data, anomalies=[len(normal[0]) + len(before)])
    return [(name, 1.0 / (i + 1)) for i, name in enumerate(answer["ranks"]) if name in columns]


METHODS = {"zscore": zscore, "baro": baro}


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("method", choices=METHODS)
    a.add_argument("--cases", type=Path, required=True)
    o = a.parse_args()
    normal = {}
    for line in filter(str.strip, o.cases.read_text(encoding="utf-8").splitlines()):
        case = json.loads(line)
        if case["normal"] not in normal:
            normal[case["normal"]] = table(o.cases.parent / case["normal"])
        metrics = table(o.cases.parent / case["metrics"])
        began = time.perf_counter()
        ranked = METHODS[o.method](normal[case["normal"]], metrics, case["alert"]["timestamp"])
        elapsed = (time.perf_counter() - began) * 1e3
        ranking = [dict(zip(("service", "metric"), name.split("|", 1)), score=score) for name, score in ranked[:50]]
        print(json.dumps({"case": case["case"], "ranking": ranking, "elapsed_ms": round(elapsed, 3)}))


if __name__ == "__main__":
    sys.exit(main())
