"""Checkpoints for engines that load Hugging Face models: compressed-tensors in safetensors files."""
