"""The prediction service: answers over HTTP from one verified version of a model."""
