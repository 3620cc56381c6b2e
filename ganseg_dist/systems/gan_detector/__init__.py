"""GAN augmentation for a lesion detector (docs/decisions)."""

from ganseg_dist.registry import SystemEntry

ENTRY = SystemEntry(
    config=f"{__name__}.config:GANDetectorConfig",
    system=f"{__name__}.system:GANDetector",
    recipes=f"{__name__}.recipes:RECIPES",
    spaces="tune_spaces.gan_detector:SPACES",
)
