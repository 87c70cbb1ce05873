"""Hugging Face's format: published weights in, checkpoints out. No other room knows it or imports this."""
