"""The operator: watches ShuffleClusters and ShuffleJobs, and brings the world to what they say."""
