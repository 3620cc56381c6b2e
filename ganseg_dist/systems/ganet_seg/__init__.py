"""GANet-Seg: a GAN that inpaints healthy tissue, whose discriminator feeds a U-Net (docs/decisions)."""

from ganseg_dist.registry import SystemEntry

ENTRY = SystemEntry(
    config=f"{__name__}.config:GANetSegConfig",
    system=f"{__name__}.system:GANetSeg",
    recipes=f"{__name__}.recipes:RECIPES",
    spaces="tune_spaces.ganet_seg:SPACES",
    evidence=f"{__name__}.evidence:evidence",
    section=f"{__name__}.section:SECTION",
)
