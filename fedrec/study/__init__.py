"""Splits, metrics, baselines, tables: how good a model is, said honestly."""
