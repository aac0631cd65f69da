"""SEED-X-Edit (Ge et al. 2024, arXiv:2404.14396): a language model answers with the features of an image, and SDXL
draws it."""
