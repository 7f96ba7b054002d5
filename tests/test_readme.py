import json
import re
from pathlib import Path

import httpx

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_answer_in_the_readme_is_the_services(first_service: str) -> None:
    question, answer = re.findall(r"curl -d '(.+?)' localhost:8000/predict\n(.+)", README)[0]
    served = httpx.post(f"{first_service}/predict", content=question).json()
    assert json.loads(answer) == served


def test_the_readme_says_that_the_sample_is_synthetic() -> None:
    assert "**synthetic**" in README
