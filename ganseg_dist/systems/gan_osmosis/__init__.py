"""GAN-OSMOSIS: one network that generates images from masks and segments them (docs/decisions)."""
