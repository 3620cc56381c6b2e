"""DL-GAN-CNN: a classifier that a GAN's feature maps are added to (docs/decisions)."""

from ganseg_dist.registry import SystemEntry

ENTRY = SystemEntry(
    config=f"{__name__}.config:DLGANCNNConfig",
    system=f"{__name__}.system:DLGANCNN",
    recipes=f"{__name__}.recipes:RECIPES",
    spaces="tune_spaces.dl_gan_cnn:SPACES",
)
