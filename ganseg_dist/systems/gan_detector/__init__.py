"""GAN augmentation for a lesion detector (docs/decisions)."""
