"""What strings the rooms together: start the model plane, the demo, the report."""
