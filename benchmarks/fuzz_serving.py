"""Fuzz ``mlpx serve``: bodies made by hypothesis and requests of the OpenAPI document, for a given time.

Another client sends requests all the time, and each of its answers is compared with the proved bound. The run fails
where an answer is wrong or missing, where the log reports a defect, or where a worker died. A failure is reported with
the body that caused it. Run it with ``python -m benchmarks.fuzz_serving [--minutes 10]``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from time import monotonic

from hypothesis import settings

from tests.support.serving import serving
from tests.support.stress.checker import Checker
from tests.support.stress.fuzzing import ask_any_body, ask_by_document
from tests.support.stress.models import proved

EXAMPLES = {"bodies": 2000, "document": 30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    end, rounds = monotonic() + 60 * options.minutes, 0
    with tempfile.TemporaryDirectory(prefix="mlpx-fuzz-") as place:
        folder = Path(place)
        model = proved(folder / "models")
        with (
            serving(model.file.parent, "--max-rows", 1000) as service,
            Checker(service.address, "arm", model.answers, clients=1) as checker,
        ):
            while monotonic() < end:
                many, few = (settings(max_examples=each, deadline=None, database=None) for each in EXAMPLES.values())
                ask_any_body(service.address, model.file, many)
                ask_by_document(service.url, few)
                if defects := service.unexpected():
                    sys.exit("\n".join(["the log reports defects:", *defects[:5]]))
                rounds += 1
                print(f"round {rounds}: {checker.right:,} right answers to the other client", file=sys.stderr)
        if service.process.returncode:
            sys.exit(f"the server ended with code {service.process.returncode}")
    print(f"{rounds} rounds of {EXAMPLES['bodies']:,} bodies and the document; all {checker.right:,} answers to the")
    print("other client are right; no 500, no dead worker, no defect in the log")


if __name__ == "__main__":
    main()
