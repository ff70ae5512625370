"""Triplets (image 1, image 2, reference): what A-FINE learns from and is measured on."""
