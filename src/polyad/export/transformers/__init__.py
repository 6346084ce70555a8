"""Models as folders that plain transformers loads with one of its own quantisers."""
