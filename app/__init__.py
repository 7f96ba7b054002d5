"""The prediction service, `python -m app`: answers over HTTP from one verified version of a model."""
