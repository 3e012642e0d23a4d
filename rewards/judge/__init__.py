"""The judge: whether what the model answers is natural and fits what was said."""
