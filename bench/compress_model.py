"""What does `compress` find for a model, and does the floor hold on data that it never saw?

    python bench/compress_model.py --model MODEL --data CALIBRATION --evaluate FILE.py:SEARCHED
        --judge FILE.py:HELD_OUT [--goal size --goal speed] [--max-drop 1%] [--minutes 10]
        [--target NAME] [--cache FOLDER] [--save FOLDER] [--json OUT.json]

The search goes by the metric of `--evaluate`; its result is judged by that of `--judge`, on other
data. One row a goal; `metric`, `drop` and the interval are on the judge's data. Sizes and times
are ratios to the model as it came; of three figures the last two are a 95 % interval.
Exits 1 if a result is worse than the original in what was sought.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from evaluating import Judge, Row, judging_parser, results_folder, tabulate

from onnxcomp import Aim, Settings, search_pipeline
from onnxcomp.errors import FloorError
from onnxcomp.report import pipeline_in_words
from onnxcomp.search.aims import GOALS


def rows(arguments: argparse.Namespace, judge: Judge, folder: Path) -> Iterator[Row]:
    """Search for each goal, and yield what was found."""
    for goal in arguments.goal or GOALS[:1]:
        aim = Aim(
            goal=goal, target=arguments.target, minutes=arguments.minutes, cache=arguments.cache
        )
        settings = Settings(
            evaluate=arguments.evaluate,
            max_drop=arguments.max_drop,
            samples=arguments.samples,
            threads=arguments.threads,
        )
        started = time.monotonic()
        try:
            found = search_pipeline(
                arguments.model, data=arguments.data, aim=aim, settings=settings
            )
        except FloorError as error:
            yield {"goal": goal, "status": str(error)}
            continue
        result = folder / f"{arguments.model.stem}.{goal}.onnx"
        report = found.save(result)
        timed, searched = report.benchmark[0], report.search
        yield {
            "goal": goal,
            "status": pipeline_in_words(searched.trials[searched.chosen].recipe),
            "size_ratio": report.size_ratio,
            "searched_drop": report.metric.drop,
            **judge.figures(result),
            "cpu_ratio": tuple(timed.cpu_ratio.model_dump().values()),
            "trials": len(searched.trials),
            "minutes": (time.monotonic() - started) / 60,
        }


def main() -> int:
    parser = judging_parser(__doc__.partition("\n")[0])
    parser.add_argument("--judge", required=True, help="metric on data that the search never sees")
    parser.add_argument("--goal", action="append", choices=GOALS)
    parser.add_argument("--target")
    parser.add_argument("--max-drop", default="1%")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cache")
    arguments = parser.parse_args()
    judge = Judge(arguments.model, arguments.judge, arguments.threads)
    with results_folder(arguments.save) as folder:
        done = tabulate(judge, rows(arguments, judge, folder), arguments.json)
    return int(any(row.get("size_ratio", 0.0) < 1 for row in done))


if __name__ == "__main__":
    sys.exit(main())
