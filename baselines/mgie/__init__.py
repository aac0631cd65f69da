"""MGIE: its language side runs by a recipe, the edit head and the diffusion model here."""
