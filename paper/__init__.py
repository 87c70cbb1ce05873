"""The paper's figures and claims, redrawn and judged from our runs."""
