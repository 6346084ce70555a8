"""Tucker decompositions and sums of them."""
