"""Stable Diffusion that sees the image to edit beside the noise: what InstructPix2Pix and its successors share."""
