"""The stage `lab` of gpu_check.sh: which of our GEMM kernels is the fastest for each layer of some networks, and what a
table of the winners gains over the model that chooses without one (kernels/gemm/gemm_table.h)."""

import json
import statistics

import gpu_model as model
from gpu_core import bench, gpu_state, last_line, run

NETWORKS, BATCHES = "vgg16,vgg19,resnet18,resnet50,mobilenet_v2,lenet", "1,16,100"
ENDING = 40      # seconds of the stage that the sweep leaves: its last product, and `with_and_without`
WORTH_IT = 1.02  # gains that the report lists; the sweep keeps the model's choice below it
MOST_ROWS = 60


# ---------------------------------------------------------------------------------------------- measuring

def stage_lab(args, part):
    table = args.out / "gemm-table.txt"
    table.unlink(missing_ok=True)
    networks, batches = ("lenet", "1") if args.quick else (NETWORKS, BATCHES)
    part.save(networks=networks, batches=batches, rows=[], summary=None, methods={}, state=gpu_state(part))
    seconds = max(part.left() - ENDING, 0.5 * part.left())
    line = [args.switchback, "bench", "--sweep", networks, "--batches", batches, "--device", args.device, "--minutes",
            f"{seconds / 60:.3f}", "--save-table", table, "--quiet"]
    code, out, err = run(line, part)
    documents = [json.loads(text) for text in out.splitlines() if text.endswith("}")]
    summaries = [d for d in documents if "table" in d]
    rows = [d for d in documents if "table" not in d]
    part.save(rows=rows, summary=summaries[-1] if summaries else None, state_after=gpu_state(part))
    if summaries and summaries[-1]["left_out"]:
        part.note(f"no time for {summaries[-1]['left_out']} of the least layers, batches and precisions")
    if broken := [r for r in rows if "error" in r]:
        raise RuntimeError(f"{len(broken)} products: {broken[0]['layer']}: {broken[0]['error']}")
    if code != 0:
        raise RuntimeError(f"switchback bench --sweep: exit code {code}: {last_line(err)}")
    if not rows:
        raise RuntimeError("no product was measured")
    if not args.quick:
        with_and_without(args, part, table)


def with_and_without(args, part, table):
    """SmoothGrad of VGG19 as the model chooses and by the table, in turn: samples a second."""
    for precision in ("bf16", "fp32"):
        found = part.document["methods"].setdefault(precision, {"model": [], "table": []})
        for way, more in 2 * [("model", []), ("table", ["--gemm-table", table])]:
            if part.left() < 8:
                part.note(f"no time for SmoothGrad by the {way} in {precision}")
                return
            document = bench(args, part, "--method", "smoothgrad", "--model", "vgg19", "--weights", "random:0",
                             "--samples", 100, "--batch", 100, "--repeat", 3, "--precision", precision, *more)
            found[way].append(document["items_per_second"])
            part.save()


# ---------------------------------------------------------------------------------------------- the report

def whole(network, row):
    """How often a row's layer stands in a network, and its share of it."""
    return next(((u["count"], u["share"]) for u in row["uses"] if u["network"] == network), (0, 0))


def by_network(rows):
    """{(network, batch, precision): dict} of both directions together."""
    found = {}
    for row in rows:
        for network in (u["network"] for u in row["uses"]):
            count, share = whole(network, row)
            sums = found.setdefault((network, row["batch"], row["precision"]),
                                    dict(layers=0, share=0.0, model=0.0, winner=0.0))
            sums["layers"] += 1
            sums["share"] += share / 2  # each direction is half of it
            sums["model"] += count * row["model_ms"]
            sums["winner"] += count * row["winner_ms"]
    return found


def predicted_ms(row, resources, sheet):
    """Of the model's choice, or None where the model of gpu_model.py does not reach: phases, groups."""
    product = row["product"]
    if not sheet or product["phases"] > 1 or product["groups"] > 1:
        return None
    rows, columns, depth, taps = (product[name] for name in ("rows", "columns", "depth", "taps"))
    operands = row["batch"] * rows * (depth + columns) + columns * depth * taps  # of stride 1
    key = model.Product(row["batch"], rows, columns, depth, (taps,), operands)
    kernels = model.gemm_kernels(key, row["precision"], sheet, row["bytes"])
    return 1e3 * model.predict_kernels(kernels, row["precision"], resources, sheet).seconds


def network_table(rows):
    lines = ["| network | N | precision | layers and ways | of its arithmetic or traffic | by the model, ms | "
             "by the table, ms | gain |", "|---" * 8 + "|"]
    for (network, batch, precision), s in by_network(rows).items():
        lines.append(f"| {network} | {batch} | {precision} | {s['layers']} | {100 * min(s['share'], 1):.0f} % | "
                     f"{s['model']:.4g} | {s['winner']:.4g} | {s['model'] / s['winner']:.3f} |")
    return lines


def layer_table(rows, resources, sheet):
    lines = ["| layer | input | N | precision | way | model's choice | ms | predicted | winner | ms | gain | TFLOP/s |",
             "|---" * 12 + "|"]
    saved = sorted(rows, key=lambda r: r["winner_ms"] - r["model_ms"])
    for r in [r for r in saved if r["gain"] >= WORTH_IT][:MOST_ROWS]:
        predicted = predicted_ms(r, resources, sheet)
        cells = [r["layer"], "x".join(map(str, r["input"])), r["batch"], r["precision"],
                 "back" if r["backward"] else "forward", r["model"], f"{r['model_ms']:.4g}",
                 f"{predicted:.4g}" if predicted else "", r["winner"], f"{r['winner_ms']:.4g}", f"{r['gain']:.2f}",
                 f"{r['flops'] / r['winner_ms'] / 1e9:.1f}"]
        lines.append("| " + " | ".join(str(c).replace("|", "/") for c in cells) + " |")
    return lines


def deviation(rows, resources, sheet):
    """How far the predictions are off, by precision."""
    lines = []
    for precision in model.PRECISIONS:
        ratios = [r["model_ms"] / p for r in rows if r["precision"] == precision
                  and (p := predicted_ms(r, resources, sheet))]
        if ratios:
            lines.append(f"Measured over predicted, {precision}: median {statistics.median(ratios):.2f}, "
                         f"{min(ratios):.2f} to {max(ratios):.2f} ({len(ratios)} products).")
    return lines


def report(part, resources, sheet):
    rows = [r for r in part["rows"] if "error" not in r]
    lines = ["", "## Lab: the fastest GEMM kernels", "",
             "Times without fused epilogues, operands not in the L2. All kernels of a product left the same bits, or "
             "it stands under failures; where nothing gains 2 % the model's choice stays. `gemm-table.txt`, for "
             "`--gemm-table`, has all winners."]
    if summary := part.get("summary"):
        lines += ["", f"{summary['measured']} products in {summary['seconds']:.0f} s, {summary['failed']} failed, "
                  f"{summary['left_out']} (some of them no products) left out for want of time."]
    if rows:
        lines += ["", *network_table(rows), "", *layer_table(rows, resources, sheet), "",
                  *deviation(rows, resources, sheet)]
    for precision, found in part.get("methods", {}).items():
        if found["model"] and found["table"]:
            by_model, by_table = statistics.median(found["model"]), statistics.median(found["table"])
            lines += ["", f"SmoothGrad of VGG19, {precision}, batch 100: {by_model:.4g} samples/s by the model, "
                      f"{by_table:.4g} by the table ({by_table / by_model:.3f})."]
    if failed := [r for r in part["rows"] if "error" in r]:
        lines += ["", "### lab: failures", "```", *[f"{r['layer']}, batch {r['batch']}, {r['precision']}, "
                  f"{'back' if r['backward'] else 'forward'}: {r['error']}" for r in failed[:40]], "```"]
    return lines
