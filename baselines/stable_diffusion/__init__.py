"""Stable Diffusion 1.x, read from folders of diffusers or from a checkpoint in the layout of CompVis' latent-diffusion
(LDM): what the methods on it share."""
