"""Cases, rivals and reports that join the engine and the models."""
