"""Look locked versions up among the known vulnerabilities: `python -m tests.audit requirements/serve.txt`.

It needs pip-audit. Exit codes: 0 nothing known, or no source of advisories answers, which it says;
1 a vulnerability, a version that the source does not know, or no audit for another reason. pip-audit's own
`--strict` would end at the first unknown version and hide what is known about the others.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

SOURCES = ("pypi", "osv")
UNREACHABLE = re.compile(r"ConnectionError|ConnectTimeout|ReadTimeout|Could not connect to")


class AuditFailed(Exception):
    """pip-audit ended without a report, and not because its source is out of reach."""


def main(locks: Sequence[str]) -> int:
    """Print what the first source that answers knows, and return the exit code."""
    for source in SOURCES:
        if versions := look_up(locks, source):
            faults = [fault for version in versions for fault in faults_of(version)]
            print(*faults, f"{len(versions)} locked versions, {len(faults)} findings ({source})", sep="\n")
            return 1 if faults else 0
    print(f"NOT AUDITED: no source of advisories answers here ({', '.join(SOURCES)}).")
    return 0


def look_up(locks: Sequence[str], source: str) -> list[dict[str, Any]]:
    """What the source says about each version, nothing if it does not answer; raises AuditFailed."""
    files = [word for lock in locks for word in ("--requirement", lock)]
    options = ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", source, *options, *files]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if not result.stdout:
        if UNREACHABLE.search(result.stderr):
            return []
        raise AuditFailed(result.stderr)
    versions: list[dict[str, Any]] = json.loads(result.stdout)["dependencies"]
    # A registry's mirror has the files and not one advisory: it knows no version at all.
    return [] if all("skip_reason" in version for version in versions) else versions


def faults_of(version: dict[str, Any]) -> list[str]:
    """A sentence for each vulnerability, or for why there is no telling."""
    if "skip_reason" in version:
        return [version["skip_reason"]]
    return [
        f"{version['name']} {version['version']}: {known['id']}, mended in {', '.join(known['fix_versions'])}"
        for known in version["vulns"]
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
