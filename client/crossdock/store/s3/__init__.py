"""S3, and what is compatible with it, by boto3. Nothing else in Crossdock imports boto3."""
