"""Attention of a trained model turned into another form."""
