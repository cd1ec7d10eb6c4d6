"""Executors of attached engines and workers of clusters are scaled by what workers say."""
