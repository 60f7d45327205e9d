"""Tests of the quality bench on data and scorers made up here: `python3 bench/quality/test_quality.py`.

With `NIGHTSHIFT_BINARY` set to a binary, the whole run is tested with it; the suite of the workspace does so.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import ablation  # noqa: E402
import crossval  # noqa: E402
import measure  # noqa: E402
import run_quality as program  # noqa: E402
import show  # noqa: E402
from shell import Failed, run  # noqa: E402
from targets import TARGETS, Figure, verdict  # noqa: E402


# Scorers with the answers' form of the real ones. They read what they are given, so that a line that is no JSON fails.
NAB = """
import argparse, json
a = argparse.ArgumentParser()
for name in ("data", "labels", "jsonl", "mode", "threshold"): a.add_argument("--" + name)
a.add_argument("--by-category", action="store_true")
o = a.parse_args()
labels = json.load(open(o.labels))
rows = [json.loads(l) for l in open(o.jsonl)]
n = float(len(rows)) if o.mode == "fixed" else float(len(labels))
nab = {"standard": n, "reward_low_FP_rate": n, "reward_low_FN_rate": n}
op = {"windows": 2, "windows_found": 1, "window_f1": 0.5, "fp_alarms_per_week": 0.25}
one = {"nab": nab, "operational": op}
print(json.dumps({**one, "series": len(labels), "thresholds": dict.fromkeys(nab, 0.01),
                  "by_category": {k.split("/")[0]: one for k in labels}}))
"""
RCA = """
import argparse, json
a = argparse.ArgumentParser()
for name in ("truth", "jsonl"): a.add_argument("--" + name)
a.add_argument("--by-group", action="store_true")
o = a.parse_args()
got = {r["case"]: r for r in map(json.loads, open(o.jsonl))}
truth = json.load(open(o.truth))["cases"]
def summary(cases):
    right = sum(got[c]["ranking"][0]["service"] == truth[c]["root_cause"] for c in cases) / len(cases)
    return {"cases": len(cases), **dict.fromkeys(("AC@1", "AC@3", "AC@5", "Avg@5"), right)}
groups = sorted({t["group"] for t in truth.values()})
print(json.dumps({"service": summary(list(truth)),
                  "groups": {g: summary([c for c in truth if truth[c]["group"] == g]) for g in groups}}))
"""
LOGS = """
import argparse, json
a = argparse.ArgumentParser()
a.add_argument("--truth-dir"); a.add_argument("--jsonl")
o = a.parse_args()
rows = [json.loads(l) for l in open(o.jsonl)]
share = len({r["template_id"] for r in rows if "line" in r}) / 10
one = dict.fromkeys(("GA", "FGA", "PA", "PA_loose", "FTA"), share)
print(json.dumps({"Made": {**one, "found_templates": 2}, "average": one}))
"""
DETECT_LOAD = """#!/bin/sh
echo "all rounds          1.00 M samples/s"
echo "after warm-up       2.50 M samples/s"
"""


def make_world(root):
    """A data set of each kind, scorers, and a program in place of the load example, below `root`."""
    data, score = root / "data", root / "score"
    score.mkdir()
    for name, text in (("nab_score.py", NAB), ("rca_score.py", RCA), ("logparse_score.py", LOGS)):
        (score / name).write_text(text)
    wave = "timestamp,value\n" + "".join(f"{1_400_000_000 + 300 * i},{100 + i * 7919 % 13}\n" for i in range(400))
    for name in measure.METRIC_SETS:
        for category in ("a", "b"):
            folder = data / name / "series" / category
            folder.mkdir(parents=True)
            (folder / "x.csv").write_text(wave.replace("1400090000,", "1400090000,9"))
        (data / name / "labels.json").write_text(json.dumps({"a/x.csv": [], "b/x.csv": []}))
    for name, groups in (("rca-petshop", ["g"]), ("rca-nezha", ["ob/g", "ts/g"])):
        folder = data / name
        folder.mkdir()
        head = "timestamp,web|latency_p95,db|latency_p95\n"
        normal = "".join(f"{60 * i},{0.3 + i % 5 / 100},{0.1 + i % 3 / 100}\n" for i in range(60))
        ill = "".join(f"{60 * i},{(0.3 + i % 5 / 100) * (8 if i >= 105 else 1)},"
                      f"{(0.1 + i % 3 / 100) * (8 if i >= 105 else 1)}\n" for i in range(100, 112))
        (folder / "normal.csv").write_text(head + normal)
        (folder / "ill.csv").write_text(head + ill)
        (folder / "graph.csv").write_text("caller,callee\nweb,db\n")
        cases, truth = [], {}
        for i, group in enumerate(groups):
            cases.append(json.dumps({"case": f"c{i}", "metrics": "ill.csv", "normal": "normal.csv",
                                     "graph": "graph.csv", "alert": {"service": "web", "metric": "latency_p95",
                                                                     "timestamp": 6300}}))
            truth[f"c{i}"] = {"root_cause": "db", "group": group}
        (folder / "cases.jsonl").write_text("\n".join(cases) + "\n")
        (folder / "truth.json").write_text(json.dumps({"cases": truth}))
    made = data / "loghub" / "Made"
    made.mkdir(parents=True)
    lines = "".join(f"user {i} logged in\nsession {i} ended after {i * 3} ms\n" for i in range(20))
    (made / "Made.content.log").write_text(lines)
    load = root / "detect_load"
    load.write_text(DETECT_LOAD)
    load.chmod(0o755)
    return data, score, load


def call(*args):
    """Exit code, standard output and standard error of the program."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = program.main([str(a) for a in args])
    return code, out.getvalue(), err.getvalue()


class Parts(unittest.TestCase):
    def test_a_figure_reaches_what_it_must(self):
        share = Figure("top 1", 0.77, 0.90, digits=2)
        self.assertEqual([share.reached(v) for v in (10 / 13, 0.7649, 0.9, None)], ["must", "no", "aim", "?"])
        exact, fewer = Figure("score", 60, 70), Figure("rate", 0.7, 0.5, at_most=True)
        self.assertEqual([exact.reached(v) for v in (59.99, 60, 70.1)], ["no", "must", "aim"])
        self.assertEqual([fewer.reached(v) for v in (0.71, 0.7, 0.5)], ["no", "must", "aim"])

    def test_a_row_reaches_what_its_least_figure_does(self):
        row = next(r for r in TARGETS if r.key == "nab-alert")
        self.assertEqual(verdict(row, [71, 0.6]), "must")
        self.assertEqual(verdict(row, [71, 0.8]), "no")
        self.assertEqual(verdict(row, [71, None]), "?")

    def test_switches_are_found_in_the_reference(self):
        text = "[detect]\n# enabled = true\n[detect.metrics.ewma]\n# enabled = true\n" \
               "#[detect.metrics.absence]\n#enabled = false\n# [detect.metrics.evt]\n# part = true # why\n[detect.metrics.features.a]\nenabled = true\n[bus]\nx = true\n"
        self.assertEqual(ablation.switches(text), [("detect.metrics.ewma", "enabled"), ("detect.metrics.evt", "part")])

    def test_scores_are_cut_at_the_threshold_of_their_category(self):
        with tempfile.TemporaryDirectory() as folder:
            rows = [{"series": "a/x", "row": 1, "score": 0.4}, {"series": "a/x", "row": 2, "score": 0.5},
                    {"series": "b/x", "timestamp": "9", "score": 0.5}, {"series": "c/x", "row": 1, "score": 1.0}]
            given, out = Path(folder, "in"), Path(folder, "out")
            given.write_text("\n".join(map(json.dumps, rows)))
            crossval.cut(given, out, {"a": {"standard": 0.5}, "b": {"standard": 0.6}, "c": {"standard": None}},
                         "standard")
            self.assertEqual([json.loads(line) for line in out.read_text().splitlines()],
                             [{"series": "a/x", "row": 2, "score": 1.0}])

    def test_the_steady_rate_is_read(self):
        self.assertEqual(measure.steady_rate("all rounds  1.5 M samples/s\nafter warm-up   2.50 M samples/s\n"), 2.5e6)
        self.assertEqual(measure.steady_rate("all rounds  1.5 M samples/s\n"), 1.5e6)
        self.assertIsNone(measure.steady_rate("nothing"))

    def test_a_bar_does_not_end_a_cell(self):
        self.assertEqual(show.table(("a",), [("x | y",)]).splitlines()[-1], "| x \\| y |")

    def test_numbers_have_the_digits_they_deserve(self):
        self.assertEqual(show.numbers([None, 0.5, 59.94, 39_000, 3.2e6]), "– / 0.50 / 59.9 / 39,000 / 3.20 M")

    def test_tables_are_put_between_the_marks(self):
        begin, end = program.MARKS
        self.assertEqual(program.filled(f"a\n{begin}\nold\n{end}\nb\n", "new"), f"a\n{begin}\n\nnew\n\n{end}\nb\n")
        for text in ("", begin, f"{end}\n{begin}"):
            with self.assertRaises(Failed):
                program.filled(text, "new")

    def test_a_command_that_fails_says_why(self):
        with self.assertRaisesRegex(Failed, "(?s)ended with 3.*the reason"):
            run([sys.executable, "-c", "import sys; print('the reason', file=sys.stderr); sys.exit(3)"])
        with self.assertRaisesRegex(Failed, "no-such-program"):
            run(["no-such-program"])


class Whole(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def test_what_is_missing_is_said(self):
        code, out, err = call()
        self.assertEqual((code, out), (2, ""))
        self.assertIn("--data is not given", err)
        code, _, err = call("--data", self.root / "none", "--score", self.root)
        self.assertEqual(code, 2)
        for name in ("nab/series", "rca-nezha/truth.json", "loghub", "nab_score.py"):
            self.assertIn(name, err)
        data, score, _ = make_world(self.root)
        self.assertEqual(call("--data", data, "--score", score, "--check")[0], 0)
        code, _, err = call("--data", data, "--score", score, "--binary", self.root / "none")
        self.assertEqual(code, 2)
        self.assertIn("not built", err)

    @unittest.skipUnless(os.environ.get("NIGHTSHIFT_BINARY"), "needs NIGHTSHIFT_BINARY")
    def test_everything_is_measured_and_in_one_table(self):
        data, score, load = make_world(self.root)
        given = ["--data", data, "--score", score, "--binary", os.environ["NIGHTSHIFT_BINARY"], "--detect-load", load,
                 "--out", self.root / "out", "--log-lines", "400", "--cross-validate", "--ablation"]
        code, out, err = call(*given)
        self.assertEqual(code, 0, err)
        for row in TARGETS:
            line = next(x for x in out.splitlines() if x.startswith(f"| {row.title}:"))
            self.assertNotIn("not measured", line)
        self.assertIn("| 2.50 M |", out)
        self.assertIn("| ewma |", out)
        found = json.loads((self.root / "out/quality.json").read_text())
        self.assertEqual(found["targets"]["logs"]["values"], [0.2] * 3, "two templates were mined")
        self.assertEqual(found["targets"]["log-rate"]["more"]["lines"], 400)
        self.assertEqual(found["targets"]["nab-best"]["values"], [2.0] * 3)
        self.assertEqual({s["set"] for s in found["cross_validation"]}, set(measure.METRIC_SETS))
        code, out, _ = call(*given, "--only", "logs", "--json")
        self.assertEqual((code, list(json.loads(out)["targets"])), (0, ["logs"]))


if __name__ == "__main__":
    unittest.main()
