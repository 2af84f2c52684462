"""The image autoencoder in the layout of FLUX."""

from mammoth_jax.models.vae.config import Tiling, VAEConfig
from mammoth_jax.models.vae.model import VAE, Posterior, postprocess

__all__ = ["VAE", "Posterior", "Tiling", "VAEConfig", "postprocess"]
