"""The one typed config tree. A recipe returns one, `override` edits it, every run saves it.

It imports nothing heavy, so `--help`, `--dry-run` and a sweep's driver stay fast.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator

from ganseg_dist.errors import ConfigError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[StrictInt, Field(ge=1)]
"""Strict, as every whole number here: a lax one takes true for 1."""
Widths = Annotated[tuple[Count, ...], Field(min_length=2, max_length=6)]


class Frozen(BaseModel):
    """A validated, immutable node of the tree; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class AugmentConfig(Frozen):
    """Ranges that the training transforms draw from; all zero switches augmentation off."""

    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 17.0
    """Rotation is drawn from [-rotation_degrees, rotation_degrees]."""
    scale: BelowOne = 0.15
    """Zoom is drawn from [1 - scale, 1 + scale]."""
    gain: BelowOne = 0.1
    """Per-modality contrast factor, from [1 - gain, 1 + gain]."""
    shift: BelowOne = 0.1
    """Per-modality brightness offset, from [-shift, shift] on the [-1, 1] scale."""


class DataConfig(Frozen):
    """What is read, how it is brought to one grid and who is in which split."""

    modalities: tuple[str, ...] | None = None
    """Input channels in order; none named: every modality that all cases have."""
    regions: tuple[Literal["wt", "tc", "et"], ...] | None = None
    """Heads of the segmenter; none named: whatever the cohort's labels allow."""
    size: Annotated[StrictInt, Field(ge=16, le=512, multiple_of=8)] = 128
    """Slices are size x size pixels."""
    spacing_mm: Positive = 1.5
    """In-plane pixel size; a head too large for the window is given coarser pixels rather than cut."""
    enhance: Literal["off", "sound", "paper"] = "off"
    """Contrast enhancement of GANet-Seg's Appendix C; paper is Eq. 16 as printed, which inverts contrast."""
    skull_stripped: bool = True
    """Whether the recipe expects brains without skulls; heads are then warned of."""
    blank_rate: Fraction = 0.35
    """Share of the tumour-free slices kept, drawn anew each epoch: a segmenter that never saw a
    healthy slice paints tumours on them. 0 drops all, as the GANet-Seg paper does."""
    validation_fraction: BelowOne = 0.15
    """Share of the patients that choose epochs and thresholds."""
    test_fraction: BelowOne = 0.2
    """Share of the patients that nothing is learnt or chosen from."""
    augment: AugmentConfig = AugmentConfig()

    @model_validator(mode="after")
    def _leaves_patients_to_train_on(self) -> DataConfig:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must stay below 1: someone must train")
        return self


class TrainConfig(Frozen):
    """The engine's own settings; they mean the same for every system."""

    epochs: Count = 30
    """Epochs of the system's main stage."""
    batch_size: Count = 80
    """Examples per step over all workers together."""
    learning_rate: Positive = 6e-5
    """Adam's, at the first epoch."""
    learning_rate_power: NonNegative = 0.75
    """lr(e) = learning_rate * (1 - e / epochs) ** power."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Adam's decay of the gradient's mean and of its square's."""
    weight_decay: NonNegative = 1e-4
    """Adam's: added to the gradient, as a share of the weights."""
    clip_norm: Positive | None = 10.0
    """Largest gradient norm of one network; none: no clipping."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the averaged weights that are validated and kept; none: the raw weights."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights a stage hands on, by its validation score."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 autocast on a GPU and fp32 on a CPU, where bf16 is slower."""
    threads: Count = 1
    """CPU threads per worker. Bitwise promises hold at a fixed count: sums differ in the last bit between counts."""
    loaders: Annotated[StrictInt, Field(ge=0)] = 0
    """Loader processes per worker; 0 reads the memory-mapped store in the training process."""
    balance_every: Count = 10
    """Steps between two readings of the gradient norms that balance a phase's terms."""
    examples_every: Count = 5
    """Epochs between two sets of example overlays."""


class HoleConfig(Frozen):
    """Random holes in healthy tissue that the generator learns to fill; sizes as a share of the slice's side."""

    count: Annotated[StrictInt, Field(ge=1, le=8)] = 2
    """Holes a slice."""
    smallest_radius: Annotated[float, Field(gt=0, lt=0.5)] = 0.04
    """Of a hole's outline, as a share of the slice's side."""
    largest_radius: Annotated[float, Field(gt=0, lt=0.5)] = 0.16
    """The same, at most."""
    roughness: BelowOne = 0.3
    """Relative wobble of the outline; 0 is an ellipse."""

    @model_validator(mode="after")
    def _ordered(self) -> HoleConfig:
        if self.smallest_radius > self.largest_radius:
            raise ValueError("smallest_radius must not exceed largest_radius")
        return self


class GANetSegConfig(Frozen):
    """GANet-Seg: an inpainting GAN of healthy tissue whose discriminator feeds a U-Net."""

    name: Literal["ganet_seg"] = "ganet_seg"
    reading: Literal["sound", "paper"] = "sound"
    """paper takes the text's equations literally where they contradict themselves (docs/decisions)."""
    gan: bool = True
    """False is the plain U-Net arm: the same segmenter and schedule without any GAN term."""
    widths: Widths = (64, 128, 256, 320)
    """Channels of the segmenting U-Net's levels, finest first."""
    generator_widths: Widths = (64, 128, 256, 320)
    """Channels of the inpainting U-Net's levels."""
    discriminator_widths: Widths = (64, 128, 256)
    """Channels of the PatchGAN's levels; each halves the resolution."""
    healthy_epochs: Count = 30
    """Epochs of pretraining on healthy tissue, at most."""
    healthy_patience: Count = 5
    """Epochs without a better hole reconstruction before pretraining stops."""
    healthy_learning_rate: Positive | None = None
    """Learning rate of the pretraining; none: train.learning_rate."""
    healthy_modalities: tuple[str, ...] | None = None
    """Channels the GAN sees; none: all. ("t1",) for a T1-only healthy cohort such as NFBS."""
    healthy_cohort: bool = False
    """Pretrain on a separate cohort of healthy subjects instead of the training patients' tumour-free slices."""
    discriminator_every: Count = 5
    """Generator steps to one discriminator step."""
    hole_l1_weight: NonNegative = 100.0
    """Weight of the L1 over the holes against the generator's adversarial term of 1."""
    holes: HoleConfig = HoleConfig()
    synthetic_lesion_weight: NonNegative = 1.0
    """Weight of the discriminator's loss on synthetic lesions in healthy tissue. With 0 it only learns to tell
    fillings from real tissue, and takes a real tumour for real."""
    supervised_epochs: Annotated[StrictInt, Field(ge=0)] | None = None
    """Epochs of phase 1, cross-entropy and Dice alone; none: a third of train.epochs, as the paper's 10 of 30."""
    adversarial_weight: NonNegative = 0.1
    """Share of the segmentation loss's gradient that the adversarial term is balanced to (Eqs. 9-10)."""
    size_weight: NonNegative = 0.1
    """The same for the size term."""
    sparsity_weight: NonNegative = 0.01
    """The same for the sparsity term."""
    balance_decay: BelowOne = 0.9
    """How much of a term's earlier balance stays when gradients are read anew."""
    balance_clip: tuple[Positive, Positive] = (1e-3, 1e3)
    """Smallest and largest factor that balancing gives a term."""
    score: Literal["mean", "min", "quantile"] = "quantile"
    """How patch realism becomes one score a slice."""
    score_quantile: Fraction = 0.05
    """Which quantile of the patches' realism the score quantile takes; low finds small lesions."""


class RunConfig(Frozen):
    """Everything that decides a run's weights."""

    recipe: str
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 0
    """Of the split, the weights, the order of the data and every random transform."""
    data: DataConfig = DataConfig()
    system: GANetSegConfig = GANetSegConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _networks_fit_the_slices(self) -> RunConfig:
        size, system = self.data.size, self.system
        for field, widths in (("widths", system.widths), ("generator_widths", system.generator_widths)):
            if size % 2 ** (len(widths) - 1):
                raise ValueError(
                    f"data.size: {size} is no multiple of {2 ** (len(widths) - 1)}, which the {len(widths)} widths of "
                    f"system.{field} need; take another size or fewer widths"
                )
        least = 2 * 2 ** len(system.discriminator_widths)  # instance norm needs more than one patch
        if size < least:
            raise ValueError(
                f"data.size: {size} is below {least}, which the {len(system.discriminator_widths)} widths of "
                "system.discriminator_widths need; take a larger size or fewer widths"
            )
        return self

    def to_json(self) -> str:
        """The resolved tree, readable and stable."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str, source: str = "config.json") -> RunConfig:
        """Raises ConfigError naming the source and the field."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(f"{source}: {_first_problem(error)}") from None

    @classmethod
    def load(cls, path: Path) -> RunConfig:
        """Read a saved config."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: is no text; give the config.json that a run saved") from None


def override(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Replace dotted fields, as in `{"train.epochs": 5}`; text values are read as JSON where they parse.

    The one way to vary a config: `--set`, a sweep and a federated run all come through here.
    Raises ConfigError naming the field, the value and, for an unknown field, the nearest known one.
    """
    tree = config.model_dump(mode="json")
    for field, value in changes.items():
        _assign(tree, field, _parsed(value))
    try:
        return RunConfig.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError(_first_problem(error)) from None


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """`["train.epochs=5"]` to `{"train.epochs": "5"}`."""
    changes = {}
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not equals or not field:
            raise ConfigError(f"--set {assignment}: expected FIELD=VALUE, such as train.epochs=5")
        changes[field.strip()] = value.strip()
    return changes


def _assign(tree: dict[str, Any], field: str, value: Any) -> None:
    *parents, last = field.split(".")
    node = tree
    for depth, name in enumerate([*parents, last]):
        if not isinstance(node, dict) or name not in node:
            known = [".".join([*parents[:depth], key]) for key in node] if isinstance(node, dict) else []
            near = difflib.get_close_matches(field, known, n=1, cutoff=0.0)
            raise ConfigError(f"{field}: no such field" + (f"; did you mean {near[0]}?" if near else ""))
        if name is not last or depth < len(parents):
            node = node[name]
    node[last] = value


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return [_parsed(part.strip()) for part in value.split(",")] if "," in value else value


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    given = problem.get("input")
    shown = "" if isinstance(given, dict) else f" (got {given!r})"
    if problem["type"] == "value_error" and not field:
        return problem["msg"].removeprefix("Value error, ")  # it relates fields of two nodes, and names them
    return f"{field or 'config'}: {problem['msg'].removeprefix('Value error, ')}{shown}"
