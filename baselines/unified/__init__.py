"""What UniControl and Uni-ControlNet share: Stable Diffusion 1.5 out of a checkpoint in the layout of CompVis'
latent-diffusion (LDM), the way such a file is found and read, and the samplers' settings."""
