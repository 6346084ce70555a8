"""Statistics of keys, values and queries, and bases and ranks made from them."""
