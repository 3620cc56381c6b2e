"""GANet-Seg: a GAN that inpaints healthy tissue, whose discriminator feeds a U-Net (docs/decisions)."""
