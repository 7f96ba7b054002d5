import json
import re
from pathlib import Path

import httpx
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_answer_in_the_readme_is_the_services(first_service: str) -> None:
    question, answer = re.findall(r"curl -d '(.+?)' localhost:8000/predict\n(.+)", README)[0]
    served = httpx.post(f"{first_service}/predict", content=question).json()
    shown = json.loads(answer)
    numbers = (*shown.pop("interval").values(), shown.pop("prediction"))
    assert numbers == pytest.approx((*served.pop("interval").values(), served.pop("prediction")), rel=1e-9)
    assert shown == served


def test_the_readme_says_that_the_sample_is_synthetic() -> None:
    assert "**synthetic**" in README
