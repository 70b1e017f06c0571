#!/usr/bin/env python3
"""What tools/gpu_check.sh measured, in one report; and what our kernels should take, without any GPU.

    tools/bench/gpu_report.py --parts FOLDER [--resources FILE]           FOLDER/REPORT.md and REPORT.json
    tools/bench/gpu_report.py --predict [--gpu h200] [--resources FILE] [--batches 64]

FILE is what tools/cuda_resources.py --json writes (default: resources.json in FOLDER or beside the bundle); without it,
occupancy knows no registers. Beside every measured convolution stands the predicted time (gpu_model.py)."""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

import gpu_lab
import gpu_model as model
from gpu_maps import OCCLUSION_PRECISIONS, backward_ms
from gpu_measure import SANITIZERS, stages

ROOT = Path(__file__).resolve().parent.parent.parent


def read_json(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def microseconds(seconds):
    return f"{1e6 * seconds:.1f}"


def spread(values):
    return f"{statistics.median(values):.4g} ({min(values):.4g}–{max(values):.4g})"


# ---------------------------------------------------------------------------------------------- predictions

def assumptions(sheet):
    rates = ", ".join(f"{p} {sheet[p] / 1e12:.1f}" for p in model.PRECISIONS)
    return [f"- card: {sheet['name']}, {sheet['processors']} multiprocessors; data sheet: "
            f"{sheet['bandwidth'] / 1e12} TB/s, TFLOP/s {rates} (dense)",
            f"- least: the largest of bytes over {model.MEMORY} of the bandwidth, products over the units' rate (of Hopper's "
            "tensor cores what mma.sync reaches), bytes of shared memory, and instructions as counted in the machine code "
            "(kernels/hot_loops.txt), as if nothing waited; in whole rounds of blocks over the multiprocessors",
            "- clocks: the data sheet's, in GHz " + ", ".join(f"{p} {sheet['clock'][p] / 1e9:.2f}" for p in model.PRECISIONS),
            f"- likely: at {model.LIKELY} of what bounds a multiprocessor, a guess; no launch under {1e6 * model.LAUNCH} µs",
            "- bytes: input, output and weights once, partial sums of a split product written and read"]


def prediction_table(convs, batch, resources, sheet):
    lines = [f"## Convolutions, N = {batch}", "", "Forward / back, likely µs, and what bounds them: m memory, a arithmetic, s "
             "shared memory, i instructions, l launch.", "", "| layer | GFLOP | " + " | ".join(model.PRECISIONS[:3]) + " |", "|---" * 5 + "|"]
    for conv in convs:
        cells = []
        for precision in model.PRECISIONS[:3]:
            ways = [model.predict_conv(conv, batch, precision, backward, resources, sheet) for backward in (False, True)]
            cells.append(" / ".join(f"{microseconds(p.seconds)} {p.bound[0]}" for p in ways))
        lines.append(f"| {conv.name} | {conv.flops(batch) / 1e9:.1f} | {' | '.join(cells)} |")
    return lines


def smoothgrad_prediction(resources, sheet):
    lines = ["## SmoothGrad, VGG19 at 224x224, N = 100, in one batch", "",
             "| precision | least ms | likely ms | likely samples/s | ms at the data sheet's rate |", "|---" * 5 + "|"]
    for precision in model.PRECISIONS:
        least, _ = model.predict_smoothgrad(100, precision, resources, sheet, least=True)
        seconds, floor = model.predict_smoothgrad(100, precision, resources, sheet)
        lines.append(f"| {precision} | {1e3 * least:.1f} | {1e3 * seconds:.1f} | {100 / seconds:.0f} | {1e3 * floor:.1f} |")
    return lines


def predictions(sheet, resources, batches):
    rows = resources["kernels"] if resources else []
    lines = [f"# Predicted times of our kernels on an {sheet['name']}", "",
             "Computed by `tools/bench/gpu_report.py --predict`; nothing here is measured.", "",
             *assumptions(sheet), "", *smoothgrad_prediction(rows, sheet)]
    for batch in batches:
        lines += ["", *prediction_table(model.distinct_convs(), batch, rows, sheet)]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------- measured

def card_of(parts):
    """The data sheet of the GPU that was measured, or None."""
    gpus = ((parts.get("info") or {}).get("switchback") or {}).get("gpus") or [{}]
    name = gpus[0].get("name", "")
    return next((sheet for key, sheet in model.SHEETS.items() if key.upper() in name.upper()), None)


def stage_table(parts):
    lines = ["| stage | result | seconds | |", "|---|---|---|---|"]
    for stage in stages():
        part = parts.get(stage)
        if part is None:
            lines.append(f"| {stage} | not run | | |")
            continue
        remarks = [part["reason"]] if part.get("reason") else []
        if "ran" in part:
            what = "comparisons" if stage == "torch" else "tests ran"
            remarks.append(f"{part['ran']} {what}, {len(part.get('failed', {}))} failed")
        if "shards_run" in part:
            remarks.append(f"{part['shards_run']} of {part['shards']} shards, {len(part['errors'])} with errors")
        remarks += part.get("notes", [])
        text = "; ".join(remarks).replace("|", "/").replace("\n", " ")
        lines.append(f"| {stage} | {part['status']} | {part.get('seconds', '')} | {text} |")
    return lines


def machine_facts(parts):
    info = parts.get("info") or {}
    lines = [f"- {k}: {v}" for k, v in (info.get("nvidia_smi") or {}).items()]
    if info.get("state"):
        lines.append("- at the start: " + ", ".join(f"{k} {v}" for k, v in info["state"].items()))
    own = info.get("switchback")
    if own:
        lines.append(f"- switchback {own['version']} ({own['commit']}), {own['build']['compiler']}")
        for gpu in own["gpus"]:
            lines.append(f"- {gpu['device']}: {gpu['name']}, compute capability {gpu['compute_capability']}, "
                         f"{gpu['multiprocessors']} multiprocessors, driver {gpu['driver']}, runtime {gpu['runtime']}; "
                         + ", ".join(gpu["libraries"]))
    peer = next((p["peer"] for p in parts.values() if p and p.get("peer")), None)
    if peer:
        lines.append("- PyTorch: " + ", ".join(f"{k} {v}" for k, v in peer.items()))
    return lines


def failures(parts):
    lines = []
    for stage in ("suite", "torch", *SANITIZERS):
        part = parts.get(stage) or {}
        for name, message in list(part.get("failed", {}).items())[:40]:
            lines += [f"### {stage}: {name}", "```", message, "```"]
        for message in part.get("errors", [])[:10]:
            lines += [f"### {stage}", "```", message, "```"]
    return ["", "## Failures", "", *lines] if lines else []


def torch_table(part):
    """The largest norm-wise errors against float64: a line for each network, algorithm and precision."""
    kinds = {"logits": "logits", ": loaded": "maps, reference's gates loaded",
             ": own tape": "maps, float64 with own gates", ": free": "maps, run freely"}
    largest = {}
    for row in part["rows"]:
        kind = next((k for k in kinds if row["what"].endswith(k) or k == "logits" and " logits " in row["what"]), None)
        named = re.match(r"(\w+) (own|direct|cudnn|auto|winograd|tf32|bf16|fp16) ", row["what"])
        if kind and named and isinstance(row.get("value"), float):
            errors = largest.setdefault(named.groups(), {})
            errors[kind] = max(errors.get(kind, 0), row["value"])
    lines = ["", "## Errors against PyTorch in float64 (largest, norm-wise)", "",
             "| network | --conv or --precision | " + " | ".join(kinds.values()) + " |",
             "|---" * (2 + len(kinds)) + "|"]
    for (network, way), errors in largest.items():
        cells = [f"{errors[k]:.1e}" if k in errors else "" for k in kinds]
        lines.append(f"| {network} | {way} | " + " | ".join(cells) + " |")
    return lines


def ceilings(part, sheet):
    lines = ["", "## Ceilings of this card, by PyTorch", "", "| | median (min–max) | of the data sheet |",
             "|---|---|---|"]
    if part.get("copy"):
        c = part["copy"]
        share = f"{100 * c['median'] / sheet['bandwidth']:.0f} %" if sheet else ""
        lines.append(f"| device copy, TB/s read and written | {c['median'] / 1e12:.2f} ({c['min'] / 1e12:.2f}–"
                     f"{c['max'] / 1e12:.2f}) | {share} |")
    for precision, c in part.get("gemm", {}).items():
        share = f"{100 * c['median'] / sheet[precision]:.0f} %" if sheet else ""
        lines.append(f"| matrix product {precision}, TFLOP/s | {c['median'] / 1e12:.1f} ({c['min'] / 1e12:.1f}–"
                     f"{c['max'] / 1e12:.1f}) | {share} |")
    return lines


def conv_rows(part, resources, sheet):
    """The stage's rows with the prediction and ratios added."""
    convs, precision, rows = model.distinct_convs(), part["precision"], []
    for row in part["rows"]:
        row = dict(row)
        conv = next((c for c in convs if c.shape(row["batch"]) == row["shape"]), None)
        if conv:
            row |= dict(layer=conv.name, flops=conv.flops(row["batch"]))
            if sheet:
                p = model.predict_conv(conv, row["batch"], precision, row["backward"], resources, sheet)
                row |= dict(predicted_ms=1e3 * p.seconds, predicted_kernel=p.name, bound=p.bound)
        for engine in ("own", "cudnn", "direct"):
            if row.get(f"{engine}_ms"):
                row[f"{engine}_median"] = statistics.median(row[f"{engine}_ms"])
        if row.get("own_median") and row.get("cudnn_median"):
            row["cudnn_over_own"] = row["cudnn_median"] / row["own_median"]
        rows.append(row)
    return rows


def conv_table(stage, rows):
    lines = ["", f"## {stage}: ms, median (min–max)", "",
             "| layer | N | way | kernel | own | predicted | measured / predicted | TFLOP/s | cuDNN | cuDNN / own |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        own, theirs = r.get("own_ms") or r.get("direct_ms"), r.get("cudnn_ms")
        kernel = r.get("own_algorithm") or r.get("direct_algorithm") or ""
        predicted, middle = r.get("predicted_ms"), statistics.median(own) if own else None
        if r.get("own_algorithm") and predicted and kernel != r["predicted_kernel"]:
            kernel += f" (predicted: {r['predicted_kernel']})"
        cells = [r.get("layer", r["shape"]), str(r["batch"]), "back" if r["backward"] else "forward", kernel,
                 spread(own) if own else r.get("own_error", ""), f"{predicted:.4g}" if predicted else "",
                 f"{middle / predicted:.2f}" if own and predicted else "",
                 f"{r['flops'] / middle / 1e9:.1f}" if own and "flops" in r else "",
                 spread(theirs) if theirs else r.get("cudnn_error", ""),
                 f"{r['cudnn_over_own']:.2f}" if "cudnn_over_own" in r else ""]
        lines.append("| " + " | ".join(c.replace("|", "/") for c in cells) + " |")
    ratios = [r["cudnn_over_own"] for r in rows if "cudnn_over_own" in r]
    if ratios:
        lines += ["", f"cuDNN's time over ours: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to "
                  f"{max(ratios):.2f}; ours is faster in {sum(r > 1 for r in ratios)} of {len(ratios)}."]
    return lines


def sides_table(part, unit, mine):
    """`mine`: the sides whose ratios to all others are shown."""
    lines = [f"| | {unit} | " + "".join(f"{name} is … times (pairs) | " for name in mine) + "peak memory |",
             "|---" * (3 + len(mine)) + "|"]
    for name, row in part["sides"].items():
        rates = row["per_second"] or [row["before"]]
        cells = []
        for own in mine:
            pairs = [a / b for a, b in zip(part["sides"][own]["per_second"], row["per_second"])]
            cells.append("" if name in mine or not pairs else spread(pairs))
        memory = f"{row['peak_bytes'] / 2**20:.0f} MiB" if row.get("peak_bytes") else ""
        batch = f", batch {row['batch']}" if "batch" in row and "batch" not in name else ""
        lines.append("| " + " | ".join([f"{name}{batch}", spread(rates), *cells, memory]) + " |")
    return lines


def smoothgrad_table(part, resources, sheet):
    lines = ["", f"## SmoothGrad, VGG19, N = {part['samples']}, {part['precision']}: samples/s, median (min–max)", ""]
    mine = [name for name in part["sides"] if name.startswith("switchback")]
    lines += sides_table(part, "samples/s", mine)
    if sheet:
        seconds, _ = model.predict_smoothgrad(100, part["precision"], resources, sheet)
        lines.append(f"| predicted, batch 100 | {100 / seconds:.4g} |" + " |" * (1 + len(mine)))
    if part.get("map_error"):
        lines += ["", "Error of the map against float64 (same weights, image, noise; norm-wise): "
                  + ", ".join(f"{k} {v:.2e}" for k, v in part["map_error"].items())]
    return lines


def occlusion_table(part, sheet):
    lines = ["", f"## Occlusion, VGG19, mask {part['mask']} at every {part['stride']}th pixel, {part['precision']}: "
             "positions/s, median (min–max)", ""]
    mine = [name for name in part["sides"] if name.startswith("switchback incremental")]
    lines += sides_table(part, "positions/s", mine)
    counted = (part.get("ours") or {}).get("incremental")
    if counted:
        places = counted["items_per_call"]
        if sheet:
            arithmetic, launches, least = model.predict_occlusion(
                places, counted["flops_per_item"], counted["window_groups"], part["precision"], sheet)
            lines.append(f"| predicted, incremental | {places / max(arithmetic, launches):.4g} |" +
                         " |" * (1 + len(mine)))
            lines += ["", f"Predicted for {places:.0f} positions: {1e3 * arithmetic:.1f} ms of arithmetic at what our "
                      f"kernels reach of the rate ({1e3 * least:.1f} ms at the data sheet's), {1e3 * launches:.1f} ms "
                      "if launches were all."]
        lines += ["", f"Counted: {counted['flops_per_item'] / 1e9:.2f} GFLOP a position, {counted['flop_ratio']:.2f} "
                  f"times less than whole forward passes, in {counted['window_groups']} groups of windows; the first "
                  f"call took {counted['ms_first_call']:.0f} ms."]
    if part.get("drop_error"):
        lines += ["", "Largest error of a drop against float64, relative to the logit: "
                  + ", ".join(f"{k} {v:.1e}" for k, v in part["drop_error"].items())]
    return lines


def etalon_table(part, resources, sheet):
    lines = []
    if part["lenet"]["ours_ms"]:
        lines += jacobian_table(part["lenet"], "LeNet, ten etalons of one image, rows and biases")
    if not part["sides"]:
        return lines
    lines += ["", f"## VGG16, {part['outputs']} etalons of one image, fp32: etalons (or images) a second", "",
              *sides_table(part, "per second", [n for n in part["sides"] if n == "switchback etalon"])]
    own = part["sides"].get("switchback etalon")
    passes = backward_ms(part)
    if own and passes:
        batch, least = min(passes.items(), key=lambda item: item[1])
        ratio = 1e3 / statistics.median(own["per_second"]) / least
        lines += ["", f"One etalon takes {ratio:.2f} times as long as one of our backward passes at their best batch, "
                  f"{batch}: {least:.3f} ms."]
    if own and sheet:
        seconds, floor = model.predict_etalons(part["outputs"], own["batch"], "fp32", resources, sheet)
        lines += ["", f"Predicted for all: {1e3 * seconds:.0f} ms, {part['outputs'] / seconds:.4g} a second "
                  f"({1e3 * floor:.0f} ms at the data sheet's rate)."]
    return lines


def jacobian_table(part, title="LeNet, ten outputs of one image"):
    lines = ["", f"## {title}: ms, median (min–max)", "", "| | ms | ours is … times as fast |", "|---|---|---|"]
    if not part["ours_ms"]:
        return lines
    middle = statistics.median(part["ours_ms"])
    lines.append(f"| switchback | {spread(part['ours_ms'])} | |")
    for name, values in sorted(part["ways"].items(), key=lambda item: statistics.median(item[1])):
        lines.append(f"| PyTorch, {name} | {spread(values)} | {statistics.median(values) / middle:.2f} |")
    return lines


def report(parts, resources):
    rows, sheet = resources["kernels"] if resources else [], card_of(parts)
    lines = ["# GPU check", "", *machine_facts(parts), "", *stage_table(parts), *failures(parts)]
    merged = {}
    if (parts.get("torch") or {}).get("rows"):
        lines += torch_table(parts["torch"])
    if parts.get("ceilings"):
        lines += ceilings(parts["ceilings"], sheet)
    for precision in model.PRECISIONS:
        part = parts.get(f"smoothgrad-{precision}") or {}
        if part.get("sides"):
            lines += smoothgrad_table(part, rows, sheet)
    for precision in OCCLUSION_PRECISIONS:
        part = parts.get(f"occlusion-{precision}") or {}
        if part.get("sides"):
            lines += occlusion_table(part, sheet)
    if (parts.get("jacobian") or {}).get("ours_ms"):
        lines += jacobian_table(parts["jacobian"])
    if (parts.get("etalon") or {}).get("lenet"):
        lines += etalon_table(parts["etalon"], rows, sheet)
    for precision in model.PRECISIONS:
        part = parts.get(f"conv-{precision}") or {}
        if part.get("rows"):
            merged[f"conv-{precision}"] = conv_rows(part, rows, sheet)
            lines += conv_table(f"conv-{precision}", merged[f"conv-{precision}"])
    if (parts.get("lab") or {}).get("rows"):
        lines += gpu_lab.report(parts["lab"], rows, sheet)
    if sheet:
        lines += ["", "## What is predicted, and how", "", *assumptions(sheet)]
    return "\n".join(lines) + "\n", dict(parts=parts, convolutions=merged)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--parts", type=Path, help="the folder that gpu_check.sh wrote")
    what.add_argument("--predict", action="store_true", help="print the predictions")
    parser.add_argument("--gpu", default="h200", choices=list(model.SHEETS), help="whose data sheet (default h200)")
    parser.add_argument("--batches", default="64", help="of the predicted convolutions (default 64)")
    parser.add_argument("--resources", type=Path, help="from tools/cuda_resources.py --json")
    args = parser.parse_args()
    if args.resources and not read_json(args.resources):
        parser.error(f"{args.resources} is no JSON file")
    places = [args.resources] if args.resources else [(args.parts or ROOT) / "resources.json", ROOT / "resources.json"]
    resources = next((found for found in map(read_json, places) if found), None)
    if args.predict:
        print(predictions(model.SHEETS[args.gpu], resources, [int(n) for n in args.batches.split(",")]), end="")
        return 0
    parts = {stage: part for stage in stages() if (part := read_json(args.parts / f"{stage}.json"))}
    if not parts:
        sys.exit(f"gpu_report: error: {args.parts} has no stage's result")
    text, document = report(parts, resources)
    print(text, end="")
    (args.parts / "REPORT.md").write_text(text)
    (args.parts / "REPORT.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
