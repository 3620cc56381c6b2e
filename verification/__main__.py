"""Every check in turn, as tables of Markdown: python -m verification [--quick]. 1 where two packages disagree."""

from __future__ import annotations

import sys

from verification import agreement, false_alarms

if __name__ == "__main__":
    quick = sys.argv[1:] == ["--quick"]
    code = agreement.main(["--quick"] if quick else [])
    print()
    raise SystemExit(max(code, false_alarms.main(["--repeats", "20"] if quick else [])))
