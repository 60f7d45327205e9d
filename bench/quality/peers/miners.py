"""Template miners to compare with: `miners.py METHOD NAME=FILE …` prints what `backtest logs` prints."""

import argparse
import json
import sys


# What most people give Drain3: addresses, hexadecimal and decimal numbers that stand alone.
MASKS = (r"(?<![A-Za-z0-9])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9])", r"(?<![A-Za-z0-9])0x[0-9a-fA-F]+(?![A-Za-z0-9])",
         r"(?<![A-Za-z0-9])[-+]?\d+(?![A-Za-z0-9])")


def drain3(lines, masks=()):
    """Drain3 with its default configuration: the cluster of each line, and the final template of each cluster."""
    from drain3 import TemplateMiner
    from drain3.masking import MaskingInstruction
    from drain3.template_miner_config import TemplateMinerConfig

    config = TemplateMinerConfig()
    config.masking_instructions = [MaskingInstruction(mask, "*") for mask in masks]
    miner = TemplateMiner(config=config)
    ids = [miner.add_log_message(line)["cluster_id"] for line in lines]
    return ids, {c.cluster_id: c.get_template() for c in miner.drain.clusters}


def drain3_masked(lines):
    """The same with masks, one list for all systems."""
    return drain3(lines, MASKS)


METHODS = {"drain3": drain3, "drain3-masked": drain3_masked}


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("method", choices=METHODS)
    a.add_argument("input", nargs="+", help="NAME=FILE")
    o = a.parse_args()
    for name, _, file in (i.partition("=") for i in o.input):
        with open(file, encoding="utf-8", errors="replace", newline="\n") as f:
            ids, texts = METHODS[o.method](line.rstrip("\r\n") for line in f)
        # The texts are few: each is quoted once, so that printing is not what is measured.
        tails = {i: json.dumps({"template_id": f"t{i}", "template": t})[1:] for i, t in texts.items()}
        for n, i in enumerate(ids, 1):
            sys.stdout.write(f'{{"dataset": {json.dumps(name)}, "line": {n}, {tails[i]}\n')


if __name__ == "__main__":
    sys.exit(main())
