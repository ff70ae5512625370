"""Photographs to clean, traceable square crops, with a reason for every rejection (Sec. 3.2)."""
