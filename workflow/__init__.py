"""The root configuration and the rules that chain the stages; the only package that knows all of them."""
