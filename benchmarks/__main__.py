"""Every benchmark in turn, each in a process of its own, then one table.

python -m benchmarks [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Comparison

NAMES = ("lesionwise", "engine_step", "monai_loop", "two_workers", "federated_round", "sweep_overhead", "scaling")
"""Not included: swin_unetr, which needs a finished run to compare with; bad_sites and federated_settings, which need a
phantom and measure Dice."""


def run(name: str, *, quick: bool) -> list[Comparison] | None:
    """The benchmark's comparisons; None when it failed, in which case it has printed the error."""
    with tempfile.TemporaryDirectory(prefix="ganseg-benchmark-") as folder:
        output = Path(folder) / "comparisons.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(output), *(["--quick"] if quick else [])]
        if subprocess.run(command, cwd=Path(__file__).resolve().parents[1]).returncode:
            return None
        return [Comparison(**comparison) for comparison in json.loads(output.read_text())]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="seconds only: shows that all run, measures nothing")
    quick = options.parse_args().quick
    measured = {name: run(name, quick=quick) for name in NAMES}
    print("\n| benchmark | what | ratio | spread | ours | other |\n|---|---|---|---|---|---|")
    for name, comparisons in measured.items():
        for row in comparisons or []:
            spread = f"{row.low:.3f} to {row.high:.3f}, n {row.repeats}" if row.repeats > 1 else "one measurement"
            print(f"| {name} | {row.what} | {row.ratio:.3f} | {spread} | {row.ours} | {row.other} |")
    failed = [name for name, comparisons in measured.items() if comparisons is None]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
