"""Methods that invert an image with Stable Diffusion 1.4 and sample it again with the target prompt."""
