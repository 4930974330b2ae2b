"""What jobs report to Prometheus, MLflow and people."""
