"""Run every check and print Markdown tables: python -m verification [--quick]. Exits with 1 where packages disagree."""

from __future__ import annotations

import sys

from verification import agreement, false_alarms

if __name__ == "__main__":
    quick = sys.argv[1:] == ["--quick"]
    code = agreement.main(["--quick"] if quick else [])
    print()
    raise SystemExit(max(code, false_alarms.main(["--repeats", "20"] if quick else [])))
