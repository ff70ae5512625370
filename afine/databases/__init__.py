"""Readers of image-quality databases in the form in which their authors publish them."""
