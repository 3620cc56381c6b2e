"""A sweep's trial that hospitals train together: a simulated federation in the trial's process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ray import tune

from ganseg_dist.config import RunConfig
from ganseg_dist.data.cohort import Cohort, Split
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.engine.tracker import Tracker
from ganseg_dist.errors import FederationError
from ganseg_dist.federation.privacy import withholds_scores
from ganseg_dist.studies.sweeps.request import Hospitals
from ganseg_dist.studies.sweeps.trainers import Monitors, Setup, TrialJob, TrialTrainer
from ganseg_dist.systems import outline_system
from ganseg_dist.systems.base import monitors_of
from server.grids import Answer
from server.simulation import Simulation, simulate, validate_sites


@dataclass(frozen=True, slots=True)
class FederatedTrialTrainer(TrialTrainer):
    """Trains a trial as `ganseg federate --local` trains its federated arm, one site after the other."""

    hospitals: Hospitals
    answer: Answer
    """The hospitals' app."""

    def validate_setup(self, config: RunConfig, cohort: Cohort, split: Split) -> Setup:
        """Epochs have no scores with differential privacy, nor where a single hospital could send them.

        Raises as `validate_sites` does.
        """
        chosen = validate_sites(config, cohort, split, self.hospitals.sites, self.hospitals.skew)
        return Setup(chosen.scores_rounds and not withholds_scores(config), chosen.warnings())

    def train(self, values: dict[str, object], job: TrialJob) -> None:
        """Resume after the last round in the run's folder. A federation that cannot continue ends without a score."""
        config = job.config_of(values)
        run = job.run_of(str(tune.get_context().get_trial_name()))
        monitors = monitors_of(outline_system(config))
        request = replace(
            job.request, config=config, run_name=run.name, workers=1, local=True, split=job.split, tags=job.tags
        )
        rounds = ReportedRounds(FolderCheckpoints(run.checkpoints), config, monitors, job)
        try:
            trial = Simulation(request, self.hospitals.sites, self.hospitals.skew, command=job.command, sweep=job.sweep)
            simulate(trial, self.answer, tracker=rounds)
        except FederationError:
            job.report_without_score()
            return
        job.report_end(run, config, monitors)


class ReportedRounds(Tracker):
    """Reports each round to Tune when the next one ends, as a round's checkpoint is written after its tracker call."""

    def __init__(self, checkpoints: FolderCheckpoints, config: RunConfig, monitors: Monitors, job: TrialJob) -> None:
        self.checkpoints, self.config, self.monitors, self.job = checkpoints, config, monitors, job

    def epoch(self, step: int, scores: Mapping[str, float]) -> None:
        """Report the round before this one. Tune gets no checkpoint: the run's folder holds what resuming needs."""
        newest = self.checkpoints.newest()
        if newest is not None:
            self.job.report_epoch(newest, self.config, self.monitors, keep=False)
