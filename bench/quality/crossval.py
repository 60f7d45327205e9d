"""Cross-validation by category: what is chosen on all categories but one is tested on that one.

A large drop against the in-sample figure is over-fitting, and unseen data will show it.
"""

import json
from collections import defaultdict

from measure import METRIC_SETS, metric_values, nab_score

PROFILES = ("standard", "reward_low_FP_rate", "reward_low_FN_rate")


def categories(labels):
    """Names of the categories of a set, in order."""
    return sorted({name.split("/")[0] for name in labels})


def thresholds_without(place, name, jsonl, labels, folder):
    """For each category, the thresholds that are best on all the others, by profile."""
    chosen = {}
    for category in categories(labels):
        others = folder / f"{name}-without-{category}.json"
        others.write_text(json.dumps({k: v for k, v in labels.items() if not k.startswith(f"{category}/")}))
        chosen[category] = nab_score(place, name, jsonl, "--mode", "best", labels=others)["thresholds"]
    return chosen


def cut(jsonl, out, thresholds, profile):
    """Writes scores of 0 and 1: whether each row reaches the threshold of its category."""
    with open(jsonl, encoding="utf-8") as lines, open(out, "w", encoding="utf-8") as sink:
        for line in lines:
            row = json.loads(line)
            bound = thresholds.get(row["series"].split("/")[0], {}).get(profile)
            if bound is not None and row["score"] >= bound:
                place = {k: row[k] for k in ("row", "timestamp") if row.get(k) is not None}
                sink.write(json.dumps({"series": row["series"], **place, "score": 1.0}) + "\n")


def metrics(place, rows):
    """Per set: the figures of `--mode best` in-sample and with each category's threshold chosen on the others."""
    out = []
    for name in METRIC_SETS:
        labels = json.loads((place.data / name / "labels.json").read_text())
        jsonl = place.out / f"{name}.jsonl"
        chosen = thresholds_without(place, name, jsonl, labels, place.out)
        nab, per_category, operational = {}, defaultdict(dict), {}
        for profile in PROFILES:
            binary = place.out / f"{name}-{profile}.cut.jsonl"
            cut(jsonl, binary, chosen, profile)
            score = nab_score(place, name, binary, "--mode", "fixed", "--threshold", "0.5", "--by-category")
            nab[profile] = score["nab"][profile]
            if profile == "standard":
                operational = score["operational"]
                for category, figures in score["by_category"].items():
                    per_category[category] = figures
        held_out = {"nab": nab, "operational": operational}
        inside = rows[f"{name}-best"]["more"]["score"]
        out.append({
            "set": name,
            "in_sample": metric_values(name, "best", inside) + operational_of(inside),
            "cross_validated": metric_values(name, "best", held_out) + operational_of(held_out),
            "by_category": {c: {"in_sample": inside["by_category"][c]["nab"]["standard"],
                                "cross_validated": per_category[c]["nab"]["standard"],
                                "threshold": chosen[c]["standard"]} for c in categories(labels)},
        })
    return out


def operational_of(score):
    """Window F1 and false alarms a week."""
    return [score["operational"]["window_f1"], score["operational"]["fp_alarms_per_week"]]
