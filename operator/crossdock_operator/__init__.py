"""The operator: arrives with its own issue; the package holds its place in the layout."""
