"""`kubectl crossdock`: clusters, jobs, logs and the operator's page, for who has a kubeconfig."""
