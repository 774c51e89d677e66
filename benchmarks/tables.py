"""Write the figures of benchmarks/results into the documents, so that none is typed by hand.

    python benchmarks/tables.py [--check]

A document asks for a table with a pair of comments, `<!-- table: NAME -->` and `<!-- end of table -->`; what stands
between them is replaced. `--check` changes nothing and fails where a document is not up to date.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from explain_tables import confused, named
from grepq_tables import pathways, without_labels
from loda_tables import injected
from lpf_tables import two_streams
from measuring import RESULTS, ROOT, make_parser
from neighbour_tables import every_label, side_by_side
from speed_tables import experts, files, loader, steps, towers
from stream_tables import STREAM
from world_tables import PHOTOGRAPHS, at_fifty, beside_simple, compared, modules, pairs, reliable, sure, unlike

DOCUMENTS = ("README.md", "model_card.md", "benchmarks/README.md")
_BLOCK = re.compile(r"<!-- table: ([a-z_0-9]+) -->\n.*?<!-- end of table -->", re.DOTALL)
_METHODS = {
    "adapted": "adapted (`grmp-iqa adapt`)",
    "ridge": "ridge on the same embedding",
    "statistics": "14 hand-made statistics, ridge",
}
_CONSTANT = {"zero_shot": "zero-shot, no label", "sharpness": "sharpness alone, no label"}
Result = dict[str, Any]


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is the head."""
    lines = [f"| {' | '.join(row)} |".replace("  |", " |") for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def source(result: Result) -> str:
    """The line below a table: how and where it was made."""
    shown = [name for name in ("torch", "transformers", "peft") if name in result["versions"]]
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in shown)
    date = f", {result['date']}" if "date" in result else ""
    return f"`{result['command']}`{date}; {result['machine']}; {versions}."


def cell(figures: Result, digits: int = 3) -> str:
    """Median, with lowest and highest where they differ."""
    median, low, high = (f"{figures[name]:.{digits}f}" for name in ("median", "low", "high"))
    return median if low == high else f"{median} [{low}, {high}]"


def between(pair: Result, digits: int = 3) -> str:
    """A difference and its interval."""
    difference, low, high = (f"{pair[name]:+.{digits}f}" for name in ("difference", "low", "high"))
    return f"{difference} [{low}, {high}]"


def photographs(result: Result) -> str:
    """SRCC by number of labels."""
    methods = result["methods"]
    shots = list(methods["adapted"])
    rows = [["SRCC, median [lowest, highest]", *(f"{count} labels" for count in shots)]]
    rows += [[title, *(cell(methods[name][count]["srcc"]) for count in shots)] for name, title in _METHODS.items()]
    for name, title in _CONSTANT.items():
        rows.append([title, cell(methods[name]["srcc"]), *[""] * (len(shots) - 1)])
    below = result["adapted_at_50_below_zero_shot"]
    return (
        f"{markdown(rows)}\n\n{result['pictures_scored']} {result['split']} photographs of BIQ2021, labels drawn from "
        f"{result['labels_from']} others, {result['draws']} draws, `{result['model']}@{result['revision']}`. With 50 "
        f"labels, {below['draws']} of {result['draws']} draws lie more than {below['margin']} below zero-shot. "
        f"`grmp-iqa adapt` with {result['adapt_seconds']['shots']} labels took {result['adapt_seconds']['seconds']} s."
    )


def subsets(result: Result) -> str:
    """SRCC inside each subset at 50 labels."""
    names = [("ss01", "private pictures"), ("ss02", "faults on purpose"), ("ss03", "stock photographs")]
    rows = [["SRCC inside the subset, 50 labels", *(f"{name} ({what})" for name, what in names)]]
    for method, title in (_METHODS | _CONSTANT).items():
        figures = result["methods"][method]
        figures = figures.get("50", figures)
        rows.append([title, *(cell(figures[f"srcc_{name}"]) for name, _ in names)])
    return markdown(rows)


def base_by_views(result: Result) -> str:
    """Zero-shot, and ridge by number of labels, of the embedded base seen through different views."""
    table = result["splits"]["test"]
    shots = list(next(iter(table.values()))["ridge"])
    rows = [["SRCC, test photographs", "zero-shot", *(f"ridge, {count} labels" for count in shots)]]
    for name, row in table.items():
        figures = [dict(zip(("median", "low", "high"), row["ridge"][count], strict=True)) for count in shots]
        rows.append([name, f"{row['zero_shot']:.3f}", *map(cell, figures)])
    return markdown(rows)


def golden(result: Result) -> str:
    """Deviations from the authors' modules."""
    rows = [["against the authors' modules", "largest deviation", "bound"]]
    rows += [[row["what"], f"{row['deviation']:.1e}", f"{row['bound']:.0e}"] for row in result["rows"]]
    return markdown(rows)


def data_sets(result: Result) -> str:
    """Opening a data set, and decoding beside bare Pillow."""
    opening, decoding = result["opening"], result.get("decoding")
    rows = [["data sets", "measured", "bound"]]
    rows.append(
        [
            f"opening {opening['rows']} rows from the cache, seconds",
            f"{opening['open_seconds']:.2f}",
            f"{opening['bound']}",
        ]
    )
    rows.append(["the first time, seconds", f"{opening['build_seconds']:.1f}", ""])
    if decoding:
        for what, title in (("processor_time", "second of processor time"), ("clock", "second and core, by the clock")):
            figures = decoding[what]
            rows.append([f"pictures a {title}: two workers", f"{figures['ours']:.0f}", ""])
            rows.append(["- bare Pillow, one thread", f"{figures['bare']:.0f}", ""])
            bound = f"{decoding['bound']}" if what == "processor_time" else ""
            rows.append(["- ratio", f"{figures['ratio']:.2f}", bound])
    load = f"\n\nLoad of the machine meanwhile: {decoding['load_of_the_machine'][0]}." if decoding else ""
    return f"{markdown(rows)}{load}"


def methods(result: Result) -> str:
    """SRCC of every method of the benchmark by number of labels, and what each differs from the adapter at 50."""
    counts = sorted({int(shots) for found in result["methods"].values() for shots in found if shots != "0"})
    head = [f"{count} labels" for count in counts]
    rows = [
        ["SRCC, median [worst, best draw]", *head, f"{result['compared_with']} better by, 50 labels", "seconds a fit"]
    ]
    for name, found in result["methods"].items():
        cells = [cell(found[str(count)]["srcc"]) if str(count) in found else "" for count in counts]
        if "0" in found:
            cells[0] = f"{cell(found['0']['srcc'])}, no label"
        pairs = [c for c in result["comparisons"] if (c["method"], c["shots"]) == (name, 50)]
        better = [f"{-c['difference']:.3f} [{-c['high']:.3f}, {-c['low']:.3f}]" for c in pairs]
        seconds = max(figures["seconds"]["median"] for figures in found.values())
        rows.append([name, *cells, *(better or [""]), f"{seconds:.1f}"])
    return (
        f"{markdown(rows)}\n\n{result['n_test']} test photographs, {result['draws']} draws, protocol "
        f"{result['protocol']}, `{result['model']}@{result['revision']}`; {result['minutes']} minutes of fitting and "
        f"scoring, at most {result['peak_memory_mib']:.0f} MiB. Seconds are the median at the number of labels where "
        "it is largest, scoring included; embeddings and statistics, computed once for all, are not."
    )


def differences(result: Result, digits: int = 3) -> str:
    """SRCC of every method by number of labels, and below what each differs from one of them, paired over draws."""
    counts = sorted({int(shots) for found in result["methods"].values() for shots in found if shots != "0"})
    reference, head = result["compared_with"], [f"{count} labels" for count in counts]
    rows, paired = [["SRCC, median [worst, best draw]", *head]], [[f"minus {reference} [95 % interval]", *head]]
    for name, found in result["methods"].items():
        cells = [cell(found[str(count)]["srcc"]) if str(count) in found else "" for count in counts]
        if "0" in found:
            cells[0] = f"{cell(found['0']['srcc'])}, no label"
        rows.append([name, *cells])
        pairs = {c["shots"]: c for c in result["comparisons"] if c["method"] == name}
        texts = [between(pairs[shots], digits) for shots in sorted(pairs)]
        if texts:
            paired.append([name, *texts])
    return (
        f"{markdown(rows)}\n\n{markdown(paired)}\n\n{result['n_test']} test pictures, {result['draws']} draws, "
        f"`{result['model']}@{result['revision']}`."
    )


def starts(result: Result) -> str:
    """What learning each start took, and what its held-out tasks say."""
    rows = [["start", "steps", "held-out loss, before and after", "held-out SRCC, before and after", "minutes"]]
    for name, found in result["starts"].items():
        before, after = found["held_out_before"], found["held_out_after"]
        loss = f"{before['loss']:.4f}, {after['loss']:.4f} (step {after['step']})"
        cells = [str(found["recipe"]["steps"]), loss, f"{before['srcc']:.3f}, {after['srcc']:.3f}"]
        rows.append([name, *cells, f"{found['seconds'] / 60:.0f}"])
    return markdown(rows)


def rule(result: Result) -> str:
    """What the gradient rule sees, and what the readout owes to content."""
    head = [f"{result['watched_labels']} labels, train part", "cosine, first step", "cosine, mean of the steps"]
    rows = [[*head, "share of the quality gradient that lambda 1 takes out", "semantic / quality gradient, first step"]]
    for name, found in result["gradients"].items():
        names = ("cosine_first", "cosine_mean", "removed_mean", "length_first")
        rows.append([f"{name}, {found['steps']} steps", *(cell(found[key]) for key in names)])
    shifts = [["shift of the readout", *(f"{shots} labels" for shots in result["content"])]]
    contents = result["content"].values()
    chance = next(iter(contents))["share_by_chance"]
    shifts.append(
        [f"share along the scene anchors (by chance {chance})", *(cell(found["share"]) for found in contents)]
    )
    shifts.append(["SRCC as learnt", *(cell(found["srcc"]["as learnt"]) for found in contents)])
    for name in next(iter(contents))["minus_as_learnt"]:
        pairs = [found["minus_as_learnt"][name] for found in contents]
        shifts.append([f"- {name} [95 % interval]", *(between(pair) for pair in pairs)])
    return f"{markdown(rows)}\n\n{markdown(shifts)}\n\n{result['draws']} draws of BIQ2021's train part."


def labels(result: Result) -> str:
    """Labels of distorted photographs, and the orders that readouts fitted to them give."""
    rows = [["labels", "readout", "SRCC with the labels, other photographs", "SRCC with ratings, BIQ2021's train part"]]
    titles = {"base": "the base's", "pulled": "fitted, pulled to the base's", "free": "fitted freely"}
    for name, found in result["labels"].items():
        rows += [
            [name, titles[kind], *(f"{found[kind][what]:.3f}" for what in ("distorted", "real"))] for kind in titles
        ]
    return f"{markdown(rows)}\n\n{result['pictures']} distorted crops, {result['rated']} rated photographs."


def suggested(result: Result) -> str:
    """Suggested pictures against random ones: paired differences, and the random labels that would do as well."""
    rows = [["labels", "world", "random", "suggested - random [95 % interval]", "random labels that do as well"]]
    for title, worlds in result["chosen"].items():
        for world, found in worlds.items():
            same = "{equal} [{equal_low}, {equal_high}]".format(**found)
            rows.append([title, world, f"{found['random']:.3f}", between(found), same])
    return f"{markdown(rows)}\n\nMeans over {result['draws']} draws."


def foretold(result: Result) -> str:
    """Gain of 20 more random labels: foretold and come, by number of labels and by world."""
    rows = [["", "foretold", "came", "bounds, mean", "came within them", "cases"]]
    for title, found in result["foretold"].items():
        gains = [f"{found[name]:+.3f}" for name in ("gain", "came")]
        bounds = f"{found['low']:+.3f} to {found['high']:+.3f}"
        rows.append([title, *gains, bounds, f"{found['within']:.2f}", str(found["cases"])])
    apart = ", ".join(f"{world} {share:.2f}" for world, share in result["within_bounds_of_others"].items())
    return f"{markdown(rows)}\n\nShare within bounds that the other worlds alone would have set: {apart}."


def demo(result: Result) -> str:
    """What `make demo` prints, by seed."""
    names = {"adapted": "adapted", "ridge": "ridge on embedding", "zero_shot": "zero-shot"}
    rows = [["SRCC, 50 ratings", *(f"seed {row['seed']}" for row in result["rows"]), "median"]]
    for name, title in names.items():
        values = [*(row[name] for row in result["rows"]), result["median"][name]]
        rows.append([title, *(f"{value:.3f}" for value in values)])
    return markdown(rows)


def imports(result: Result) -> str:
    """Start-up times."""
    return markdown(
        [
            ["start-up, median", "seconds", "bound"],
            ["`import grmp_hf` after `import transformers`", f"{result['import_seconds']:.3f}", f"{result['bound']}"],
            ["`grmp-iqa --help`, whole process", f"{result['help_seconds']:.3f}", f"{result['bound']}"],
        ]
    )


def _rows(file: str, **tables: Any) -> dict[str, tuple[str, Callable[[Result], str]]]:
    return {name: (file, lambda result, rows=rows: markdown(rows(result))) for name, rows in tables.items()}  # type: ignore[misc]


TABLES: dict[str, tuple[str, Callable[[Result], str]]] = {
    "biq2021": ("biq2021", photographs),
    "biq2021_subsets": ("biq2021", subsets),
    "biq2021_methods": ("biq2021_methods", methods),
    "biq2021_start": ("biq2021_start", differences),
    "starts": ("biq2021_start", starts),
    "distorted_start": ("distorted_start", differences),
    "biq2021_lambda": ("biq2021_lambda", functools.partial(differences, digits=4)),
    "rule": ("rule", rule),
    "labels": ("labels", labels),
    **_rows("pretraining", pretraining=steps, pretraining_loader=loader),
    "tiny_clip": ("tiny_clip", base_by_views),
    "golden": ("golden", golden),
    **_rows("scoring_speed", scoring_speed=towers, scoring_files=files),
    "data": ("data", data_sets),
    **{"suggest": ("suggest", suggested), "foretold": ("suggest", foretold)},
    "demo": ("demo", demo),
    "import": ("import", imports),
    **_rows("experts", experts=experts),
    **_rows("pairs", pairs=pairs),
    **_rows("modules", modules=modules),
    **_rows("compare", compare=compared, compare_reliable=reliable),
    **_rows("explain", explain=named, explain_confused=confused),
    **_rows("grepq", grepq=pathways, grepq_zero_shot=without_labels),
    **_rows("loda", loda=injected),
    **_rows("lpf", **{f"lpf_{world}": functools.partial(two_streams, world=world) for world in PHOTOGRAPHS}),
    **_rows(
        "neighbours",
        neighbours_all=every_label,
        **{f"neighbours_{name}": functools.partial(side_by_side, dataset=name) for name in PHOTOGRAPHS},
    ),
    **_rows("stream", **STREAM),
    **_rows("worlds", worlds_50=at_fifty, worlds=beside_simple, worlds_sure=sure, worlds_unlike=unlike),
}


def render(name: str) -> str:
    """One table with the line that says where it comes from."""
    file, table = TABLES[name]
    path = RESULTS / f"{file}.json"
    if not path.is_file():
        return "Not measured yet."
    return f"{table(result := json.loads(path.read_text(encoding='utf-8')))}\n\n{source(result)}"


def filled(text: str) -> str:
    """A document with its tables as they are now."""
    return _BLOCK.sub(lambda found: f"<!-- table: {found[1]} -->\n{render(found[1])}\n<!-- end of table -->", text)


def main() -> None:
    """Command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a document is not up to date")
    arguments = parser.parse_args()
    stale = []
    for name in DOCUMENTS:
        path = Path(ROOT, name)
        after = filled(before := path.read_text(encoding="utf-8"))
        if after != before:
            stale.append(name)
            if not arguments.check:
                path.write_text(after, encoding="utf-8")
    names = ", ".join(stale) or "none"
    print(f"not up to date: {names}" if arguments.check else f"written: {names}")
    if arguments.check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main()
