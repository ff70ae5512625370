"""Three-phase training (paper Sec. 4.2): naturalness, fidelity, combination."""
