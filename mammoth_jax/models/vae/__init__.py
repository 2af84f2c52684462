"""The image autoencoder in the layout of FLUX."""

from mammoth_jax.models.vae.model import VAE, Posterior, postprocess
from mammoth_jax.models.vae.config import Tiling, VAEConfig

__all__ = ["VAE", "Posterior", "Tiling", "VAEConfig", "postprocess"]
