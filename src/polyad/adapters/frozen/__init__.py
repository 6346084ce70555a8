"""The frozen weight that an adapter changes, and products with it and a change."""
