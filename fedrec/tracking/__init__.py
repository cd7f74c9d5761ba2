"""What TensorBoard, MLflow and W&B are told of a run. `metrics.jsonl` stays the source; none of it changes a result."""
