"""DL-GAN-CNN: a classifier that a GAN's feature maps are added to (docs/decisions)."""
