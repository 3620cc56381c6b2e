"""GAN-assisted segmentation of tumours in medical images: one engine, four systems, four ways to run."""

__version__ = "0.1.0"
