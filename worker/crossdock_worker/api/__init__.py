"""What the worker's routes do: thin handlers that read parameters and call one method."""
