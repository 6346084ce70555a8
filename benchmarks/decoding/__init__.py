"""The time of a token, a prompt and a first load, beside the original's and other engines'."""
