"""GAN-OSMOSIS: one network that generates images from masks and segments them (docs/decisions)."""

from ganseg_dist.registry import SystemEntry

ENTRY = SystemEntry(
    config=f"{__name__}.config:GANOsmosisConfig",
    system=f"{__name__}.system:GANOsmosis",
    recipes=f"{__name__}.recipes:RECIPES",
    spaces="tune_spaces.gan_osmosis:SPACES",
)
