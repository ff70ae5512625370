"""Training of the enhancer's ControlNet, conditioning net and PACA blocks."""
