"""The operator's page: what it knows, for people with a token of Kubernetes, in a browser."""
