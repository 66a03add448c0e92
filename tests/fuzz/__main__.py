"""python -m tests.fuzz [KIND...] [--count N] [--seed N]: one table, and every bad outcome above it."""

from __future__ import annotations

import argparse
import logging
import sys

from tests.fuzz import GOOD, KINDS, Outcome, kind_of, table


def main() -> int:
    """Try every kind that is asked for; return 1 if there was a bad outcome."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"all by default: {', '.join(KINDS)}")
    parser.add_argument("--count", type=int, help="inputs of each kind, fewer than a whole run tries")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    unknown = [name for name in given.kinds if name not in KINDS]
    if unknown:
        parser.error(f"{unknown[0]} is no kind: {', '.join(KINDS)}")
    logging.disable(logging.INFO)  # fairseq tells of every step
    found: dict[str, list[Outcome]] = {}
    for name in given.kinds or KINDS:
        found[name] = []
        for each in kind_of(name)(given.count or KINDS[name][1], given.seed):
            found[name].append(each)
            if each.result not in GOOD:
                print(f"{name}: {each.result}: {each.what}: {each.detail}", file=sys.stderr, flush=True)
    print(table(found))
    return int(any(each.result not in GOOD for outcomes in found.values() for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
