"""What a model is: its manifest, the one encoder, the forward pass in numpy, and where its versions live.

Others use the modules that `__all__` names. `store` and `versions` keep versions, `manifest` and `parts` say
what is in one, `columns` and `dates` what an input takes, `scale` how far a model errs where; `predictor`,
`answers` and `explanation` answer, `golden` checks that they do; `sniffing`, `forms`, `records`, `cells` and
`names` read tables; `errors` are refusals; `tables` is printed.
"""

__all__ = [
    "answers",
    "cells",
    "columns",
    "dates",
    "errors",
    "explanation",
    "forms",
    "golden",
    "manifest",
    "names",
    "parts",
    "predictor",
    "records",
    "scale",
    "sniffing",
    "store",
    "tables",
    "versions",
]
