"""Evaluation on held-out pairs, in the layout of the paper's Tables 2 and 3."""
