"""How fast, and how much memory: ratios measured in one run."""
