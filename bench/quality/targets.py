"""What must be shown: the table of targets, and when a figure reaches one. No measuring here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One number of a row: what it must reach and what is aimed at; `at_most` where less is better.

    `digits`: shares of cases, lines and windows are published with two digits and are compared with two, so that 10
    of 13 reach 0.77; `None` compares what was measured as it is.
    """

    name: str
    must: float
    aim: float
    at_most: bool = False
    digits: int | None = None

    def reached(self, value):
        """"aim", "must" or "no"; "?" for what was not measured."""
        if value is None:
            return "?"
        value = value if self.digits is None else round(value + 1e-9, self.digits)
        for level, bound in (("aim", self.aim), ("must", self.must)):
            if value <= bound if self.at_most else value >= bound:
                return level
        return "no"


@dataclass(frozen=True)
class Row:
    """One row of the table: a set, what others reach on it, and its figures."""

    key: str
    title: str
    anchor: str
    figures: tuple


def share(name, must, aim):
    return Figure(name, must, aim, digits=2)


def rate(must, aim):
    return Figure("false alarms a week", must, aim, at_most=True)


TARGETS = (
    Row("nab-alert", "NAB, own alarms", "thresholds chosen on the data: random cut forest 56, HTM 73",
        (Figure("standard", 60, 70), rate(0.7, 0.5))),
    Row("nab-best", "NAB, best threshold", "ARTime 80.3 / 70.8 / 85.7; HTM 73.1 / 65.6 / 77.0",
        (Figure("standard", 73, 81), Figure("low FP", 66, 73), Figure("low FN", 77, 86))),
    Row("cloudmon-alert", "Cloud monitoring, own alarms", "seasonal median + MAD: 0.55 at 0.55",
        (share("window F1", 0.70, 0.80), rate(0.4, 0.3))),
    Row("petshop", "PetShop with graph", "authors' traversal 0.69 / 0.77",
        (share("top 1", 0.77, 0.90), share("top 3", 0.92, 1.00))),
    Row("petshop-no-graph", "PetShop without graph", "largest z-score 0.42 / 0.69",
        (share("top 1", 0.60, 0.77), share("top 3", 0.80, 0.92))),
    Row("nezha-ob", "Nezha, OnlineBoutique, metrics", "MicroRCA 0.16 / 0.63; z-score about 0.4",
        (share("AC@1", 0.70, 0.93), share("AC@3", 0.90, 0.97))),
    Row("nezha-ts", "Nezha, TrainTicket, metrics, logs, traces", "Nezha 0.87 / 0.98; z-score 0.2",
        (share("AC@1", 0.80, 0.95), share("AC@3", 0.95, 1.00))),
    Row("logs", "Logs, one configuration", "Drain3 0.79 / 0.72 / 0.39",
        (share("GA", 0.90, 0.97), share("FGA", 0.85, 0.92), share("PA", 0.65, 0.80))),
    Row("rca-ms", "Ranking time per case (ms)", "BARO, CIRCA: seconds",
        (Figure("longest", 50, 5, at_most=True),)),
    Row("log-rate", "Log lines a second, whole process, one core", "Drain3 39,000",
        (Figure("lines/s", 1e6, 3e6),)),
    Row("samples-all", "Samples a second, one core, 100,000 series, all layers", "–",
        (Figure("samples/s", 2e6, 5e6),)),
    Row("samples-cheap", "– cheap layers alone", "–", (Figure("samples/s", 5e6, 10e6),)),
)


def verdict(row, values):
    """What a row as a whole reached: the least of its figures."""
    order = ["?", "no", "must", "aim"]
    return min((f.reached(v) for f, v in zip(row.figures, values)), key=order.index)
