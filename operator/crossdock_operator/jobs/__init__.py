"""ShuffleJobs run: registered with their cluster's workers, and their stages as Indexed Jobs."""
