import io
import time

from ganseg_dist.console import PlainConsole
from ganseg_dist.engine.tracker import Progress
from ganseg_dist.tracking.progress import RichProgress


def at(epoch: int, batch: int, stage: str = "segmentation", **scores: float) -> Progress:
    return Progress(stage, epoch, 3, batch, 2, scores)


def plain() -> tuple[RichProgress, io.StringIO]:
    text = io.StringIO()
    return RichProgress(PlainConsole(file=text, force_terminal=False, width=40)), text


def test_progress_prints_one_line_per_epoch_without_terminal():
    shown, text = plain()
    for epoch in range(2):
        shown.progress(at(epoch, 1))
        shown.progress(at(epoch, 2))
        shown.epoch(2 * epoch + 2, {"segmentation/supervised/dice": 0.5, "segmentation/wt_dice": 0.123456})
    shown.close()
    assert text.getvalue().splitlines() == [
        "segmentation epoch 1/3  wt_dice 0.1235  supervised/dice 0.5",
        "segmentation epoch 2/3  wt_dice 0.1235  supervised/dice 0.5",
    ]


def test_progress_updates_bar_cheaply_on_terminal():
    text = io.StringIO()
    shown = RichProgress(PlainConsole(file=text, force_terminal=True, width=120))
    began = time.monotonic()
    for epoch in range(3):
        for batch in range(5000):
            shown.progress(Progress("segmentation", epoch, 3, batch + 1, 5000, {"wt_dice": 0.5}))
    assert time.monotonic() - began < 5
    shown.close()
    assert "segmentation epoch 3/3" in text.getvalue()
    assert "batch 5000/5000" in text.getvalue()
    assert "wt_dice 0.500" in text.getvalue()


def test_progress_of_a_round_counts_sites_and_names_those_it_waits_for():
    text = io.StringIO()
    shown = RichProgress(PlainConsole(file=text, force_terminal=True, width=160))
    shown.progress(Progress("segment", 1, 3, 2, 3, {}, "site", "waiting for south (2 min)"))
    shown.close()
    assert "site 2/3, waiting for south (2 min)" in text.getvalue()


def test_progress_close_prints_nothing_before_first_epoch():
    shown, text = plain()
    shown.close()
    assert text.getvalue() == ""
