"""MGIE: LLaVA-7B describes the edit, and an InstructPix2Pix of its own makes it."""
