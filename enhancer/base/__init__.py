"""A small base model (autoencoder, denoiser, text encoder) for runs without pretrained weights."""
