"""The host of adapters: it finds layers, builds adapters on them, activates, merges, saves and takes out again."""
