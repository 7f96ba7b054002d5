"""The offline half: turns a table into a published version of a model."""
