"""Tree networks and networks of any graph."""
