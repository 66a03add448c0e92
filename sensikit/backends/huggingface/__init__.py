"""Models of transformers: encoder-decoders and decoder language models."""
