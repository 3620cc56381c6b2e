"""A hundred kills at random moments, and what else goes wrong on machines: python -m verification.chaos [--help].

Each scenario's commands are killed with SIGKILL, children and all, at moments that a seed chooses, and run again until
they end. Then their results must equal those of an undisturbed run bit for bit, with nothing left over, no lock in the
way and no traceback. Interrupted, it goes on: what was counted is in FOLDER/outcomes.jsonl.

Exits with 1 where a result differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ganseg_dist.data.phantom.folder import make_phantom
from verification.chaos import commands, deployment, faults
from verification.chaos.trial import KILLS, Outcome, Reference, Scenario, emptied


class Chaos:
    """The scenarios, and what was counted of them."""

    def __init__(self, folder: Path, kills: int, seed: int) -> None:
        self.folder, self.kills, self.seed = folder, kills, seed
        self.outcomes = folder / "outcomes.jsonl"

    def run(self, scenario: Scenario) -> None:
        """Go on until the scenario has its share of the kills."""
        wanted = max(1, round(self.kills * scenario.share / 100)) if scenario.share else 1
        while (missing := wanted - self._counted(scenario)) > 0:
            number = len(self._of(scenario))
            reference = self._reference(scenario)
            folder = emptied(self.folder / _name(scenario) / f"{number:03d}")
            rng = random.Random(f"{self.seed} {scenario.name} {number}")
            outcome = scenario.trial(folder, rng, reference, min(missing, KILLS))
            record = {"scenario": scenario.name, "trial": number, **asdict(outcome)}
            with self.outcomes.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{scenario.name}: trial {number}: {_described(outcome)}", flush=True)

    def table(self, scenarios: Sequence[Scenario]) -> tuple[list[str], bool]:
        """Rows of what was counted, and whether everything is equal."""
        rows = ["| disturbed | trials | kills | equal bit for bit |", "|---|---|---|---|"]
        whole = True
        for scenario in scenarios:
            records = self._of(scenario)
            equal = sum(not record["problems"] for record in records)
            whole &= equal == len(records)
            kills = sum(record["kills"] for record in records) if scenario.share else ""
            rows.append(f"| {scenario.name} | {len(records)} | {kills} | {equal} of {len(records)} |")
            rows += [f"  {scenario.name}, trial {record['trial']}: {problem}" for record in records
                     for problem in record["problems"]]  # fmt: skip
        return rows, whole

    def _reference(self, scenario: Scenario) -> Reference:
        file = self.folder / _name(scenario) / "reference.json"
        if file.exists():
            return Reference(**json.loads(file.read_text()))
        reference = scenario.reference(emptied(self.folder / _name(scenario) / "reference"))
        if not reference.digests:
            raise RuntimeError(f"{scenario.name}: its undisturbed run has no results")
        file.write_text(json.dumps(asdict(reference), indent=1))
        print(f"{scenario.name}: undisturbed in {reference.seconds:.0f} s", flush=True)
        return reference

    def _of(self, scenario: Scenario) -> list[dict]:
        lines = self.outcomes.read_text().splitlines() if self.outcomes.exists() else []
        records = map(json.loads, lines)
        return [record for record in records if record["scenario"] == scenario.name]

    def _counted(self, scenario: Scenario) -> int:
        records = self._of(scenario)
        return sum(record["kills"] for record in records) if scenario.share else len(records)


def _name(scenario: Scenario) -> str:
    return "-".join(scenario.name.replace(":", "").split())


def _described(outcome: Outcome) -> str:
    moments = ", ".join(f"{moment:g}" for moment in outcome.moments)
    killed = f"killed after {moments} s; " if moments else ""
    return f"{killed}{'; '.join(outcome.problems) or 'equal'}"


def main() -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("chaos"), help="for what the trials make, some GB")
    parser.add_argument("--kills", type=int, default=100, help="of all scenarios together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", action="append", metavar="SCENARIO", help="one scenario; repeat for several")
    args = parser.parse_args()
    folder = args.folder.resolve()
    cohort = folder / "cohort"
    if not cohort.exists():
        make_phantom(cohort, patients=8, healthy=1, sites=2, seed=1, spacing_mm=6.0)
    scenarios: list[Scenario] = [
        *commands.scenarios(cohort), *deployment.scenarios(cohort), *faults.scenarios(cohort)
    ]  # fmt: skip
    names = [scenario.name for scenario in scenarios]
    unknown = set(args.only or ()) - set(names)
    if unknown:
        parser.error(f"--only {unknown.pop()}: is none of {', '.join(names)}")
    chosen = [scenario for scenario in scenarios if not args.only or scenario.name in args.only]
    chaos = Chaos(folder, args.kills, args.seed)
    for scenario in chosen:
        chaos.run(scenario)
    rows, whole = chaos.table(chosen)
    print("\n".join(rows))
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
