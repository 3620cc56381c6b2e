"""Help texts that several commands share."""

from __future__ import annotations

DATA_HELP = "The cohort: a folder as BraTS, Decathlon, nnU-Net or kaggle_3m lay it out, or a CSV manifest."
LAYOUT_HELP = "Read DATA as brats, decathlon, kaggle_lgg or manifest; recognised when not given."
RUN_HELP = "A run's name, its folder or its MLflow id."
SET_HELP = "A field of the config, as in train.epochs=5; repeatable. ganseg recipes RECIPE lists them."
