"""Name the variables that keep MLflow from reporting to its makers."""

NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
