"""Recipes: functions that return a config. A variant edits its base, so what differs is what is written."""

from __future__ import annotations

from collections.abc import Callable

from ganseg_dist.config import RunConfig
from ganseg_dist.errors import ConfigError
from ganseg_dist.recipes.dl_gan_cnn import dl_gan_cnn, dl_gan_cnn_debug, dl_gan_cnn_small
from ganseg_dist.recipes.gan_detector import gan_detector, gan_detector_debug, gan_detector_small
from ganseg_dist.recipes.gan_osmosis import gan_osmosis, gan_osmosis_debug, gan_osmosis_small
from ganseg_dist.recipes.ganet_seg import ganet_seg, ganet_seg_debug, ganet_seg_small
from ganseg_dist.suggestion import suggestion

RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        ganet_seg,
        ganet_seg_small,
        ganet_seg_debug,
        gan_osmosis,
        gan_osmosis_small,
        gan_osmosis_debug,
        gan_detector,
        gan_detector_small,
        gan_detector_debug,
        dl_gan_cnn,
        dl_gan_cnn_small,
        dl_gan_cnn_debug,
    )
}


def recipe(name: str) -> RunConfig:
    """The named recipe's config. Raises ConfigError listing the known ones."""
    if name not in RECIPES:
        known = f"known recipes: {', '.join(RECIPES)}"
        raise ConfigError(f"{name}: no such recipe; {suggestion(name, RECIPES, known)}")
    return RECIPES[name]()
