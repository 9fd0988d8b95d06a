"""Finds every new LoRA checkpoint, scores it, and shows what got better and what got worse."""
