"""Hugging Face: encoder-decoders and decoder language models as transformers opens them; safetensors alone."""
