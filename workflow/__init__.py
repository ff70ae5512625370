"""The root configuration and the rules that chain the stages; knows all of them."""
