"""The offline half: turns a table into a published version of a model.

A program uses the modules that `__all__` names: `pipeline` has `fit` and `compare`, `recipe` what they are
asked for, `data` and `stability` the errors DataError and Unstable that they raise, `sample` a table to try.
"""

__all__ = ["data", "pipeline", "recipe", "sample", "stability"]
