def pictures(cards): return {}
