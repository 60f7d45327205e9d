"""Streaming detectors to compare with: `detectors.py METHOD --series DIR` prints what `backtest metrics` prints.

A score is 0 to 1 and depends on this row and earlier ones only. A row alerts where the score reaches the method's
own threshold and the row before did not. One configuration for all series.
"""

import argparse
import csv
import json
import math
import sys
from bisect import insort
from collections import deque
from datetime import datetime, timezone
from pathlib import Path

WINDOW = 1_000
WARMUP = 30


def seconds(text):
    try:
        return float(text)
    except ValueError:
        t = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return (t if t.tzinfo else t.replace(tzinfo=timezone.utc)).timestamp()


def rows_of(path):
    """Time and value (`None`: missing) of each row."""
    with open(path, newline="", encoding="utf-8") as f:
        rows = csv.reader(f)
        next(rows, None)
        for row in rows:
            try:
                value = float(row[1])
            except (IndexError, ValueError):
                value = None
            yield seconds(row[0]), value if value is not None and math.isfinite(value) else None


def of_distance(z, far=3.0):
    """A distance in sigmas as a score: 0.5 at `far`, towards 1 beyond."""
    return z / (z + far) if math.isfinite(z) else 1.0


class ZScore:
    """Distance from the mean of all rows before, in their standard deviations (Welford 1962)."""

    threshold = 0.5

    def __init__(self):
        self.n, self.mean, self.m2 = 0, 0.0, 0.0

    def score(self, _at, x):
        z = 0.0
        if self.n >= WARMUP:
            sd = math.sqrt(self.m2 / self.n)
            z = abs(x - self.mean) / sd if sd > 0 else (math.inf if x != self.mean else 0.0)
        self.n += 1
        delta = x - self.mean
        self.mean += delta / self.n
        self.m2 += delta * (x - self.mean)
        return of_distance(z)


class RollingGaussian:
    """The same over the last rows."""

    threshold = 0.5

    def __init__(self):
        self.last, self.sum, self.squares, self.shift = deque(), 0.0, 0.0, None

    def score(self, _at, x):
        # Sums of distances from the first value: a large level would eat the digits.
        self.shift = x if self.shift is None else self.shift
        y, n, z = x - self.shift, len(self.last), 0.0
        if n >= WARMUP:
            mean = self.sum / n
            sd = math.sqrt(max(0.0, self.squares / n - mean * mean))
            z = abs(y - mean) / sd if sd > 0 else (math.inf if y != mean else 0.0)
        self.last.append(y)
        self.sum, self.squares = self.sum + y, self.squares + y * y
        if len(self.last) > WINDOW:
            old = self.last.popleft()
            self.sum, self.squares = self.sum - old, self.squares - old * old
        return of_distance(z)


def median(ordered):
    n = len(ordered)
    return (ordered[n // 2] + ordered[(n - 1) // 2]) / 2


class SeasonalMad:
    """Distance from the median of the same hour of the day in the days before, in their MAD (scaled to sigma).

    The hour's MAD is floored with a tenth of the spread of all hours: an hour of equal values has none.
    """

    threshold = 0.5
    per_hour = 28 * 12

    def __init__(self):
        self.hours = [deque() for _ in range(24)]
        self.all, self.order = [], deque()

    def score(self, at, x):
        hour = self.hours[int(at // 3600) % 24]
        z = 0.0
        if len(hour) >= 8 and len(self.all) >= WARMUP:
            ordered = sorted(hour)
            middle = median(ordered)
            mad = 1.4826 * median(sorted(abs(v - middle) for v in ordered))
            spread = (self.all[len(self.all) * 3 // 4] - self.all[len(self.all) // 4]) / 1.349
            scale = max(mad, spread / 10)
            z = abs(x - middle) / scale if scale > 0 else (math.inf if x != middle else 0.0)
        hour.append(x)
        if len(hour) > self.per_hour:
            hour.popleft()
        self.order.append(x)
        insort(self.all, x)
        if len(self.order) > WINDOW:
            self.all.remove(self.order.popleft())
        return of_distance(z, 5.0)


class RobustScaled:
    """scikit-learn's RobustScaler over the last rows, fitted anew every 10 rows."""

    threshold = 0.5

    def __init__(self):
        from sklearn.preprocessing import RobustScaler

        self.scaler, self.last, self.n, self.ready = RobustScaler(), deque(maxlen=WINDOW), 0, False

    def score(self, _at, x):
        z = 0.0
        if self.ready:
            # A quartile range is 1.349 sigma of a normal distribution.
            z = abs(float((x - self.scaler.center_[0]) / self.scaler.scale_[0])) * 1.349
        self.last.append(x)
        self.n += 1
        if self.n >= WARMUP and self.n % 10 == 0:
            self.scaler.fit([[v] for v in self.last])
            self.ready = True
        return of_distance(z)


class Forest:
    """scikit-learn's IsolationForest over embeddings of 8 rows, fitted anew every 500 rows on the last 1,000."""

    threshold = 0.6
    lags, every = 8, 500

    def __init__(self):
        self.last, self.model, self.wait = deque(maxlen=WINDOW + self.lags), None, []

    def scores(self, values):
        """All scores of a series: each block is judged by the model of the blocks before it."""
        import numpy as np
        from numpy.lib.stride_tricks import sliding_window_view
        from sklearn.ensemble import IsolationForest

        x = np.asarray(values)
        out = np.zeros(len(x))
        for begin in range(0, len(x), self.every):
            end = min(begin + self.every, len(x))
            if begin >= self.every:
                seen = sliding_window_view(x[max(0, begin - WINDOW - self.lags):begin], self.lags)
                model = IsolationForest(random_state=0).fit(seen)
                out[begin:end] = -model.score_samples(sliding_window_view(x[begin - self.lags + 1:end], self.lags))
        return out.tolist()


class HalfSpaceTrees:
    """river's HalfSpaceTrees behind its MinMaxScaler, as in its documentation."""

    threshold = 0.95

    def __init__(self):
        from river import anomaly, compose, preprocessing

        self.model = compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=42))

    def score(self, _at, x):
        score = self.model.score_one({"x": x})
        self.model.learn_one({"x": x})
        return score


METHODS = {"zscore": ZScore, "rolling-gaussian": RollingGaussian, "seasonal-mad": SeasonalMad,
           "robust-scaler": RobustScaled, "isolation-forest": Forest, "half-space-trees": HalfSpaceTrees}


def replay(method, rows):
    """Score of each row; 0 where the value is missing."""
    detector = method()
    if hasattr(detector, "scores"):
        there = [i for i, (_, x) in enumerate(rows) if x is not None]
        out = [0.0] * len(rows)
        for i, score in zip(there, detector.scores([rows[i][1] for i in there])):
            out[i] = score
        return out
    return [0.0 if x is None else detector.score(at, x) for at, x in rows]


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("method", choices=METHODS)
    a.add_argument("--series", type=Path, required=True)
    o = a.parse_args()
    method = METHODS[o.method]
    for path in sorted(o.series.glob("*/*.csv")):
        name, before = f"{path.parent.name}/{path.name}", False
        for i, score in enumerate(replay(method, list(rows_of(path)))):
            over = score >= method.threshold
            if score > 0:
                print(json.dumps({"series": name, "row": i, "score": score, "alert": over and not before}))
            before = over


if __name__ == "__main__":
    sys.exit(main())
