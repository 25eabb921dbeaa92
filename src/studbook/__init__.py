"""An offline lab that breeds small language models."""
