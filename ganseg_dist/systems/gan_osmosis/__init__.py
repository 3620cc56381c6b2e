"""GAN-OSMOSIS: one network that paints images from masks and segments them (docs/decisions)."""
