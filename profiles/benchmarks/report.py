"""The tables of the decoder benchmark."""

import numpy as np

MIB = 2**20


def summary(found: dict) -> list[dict]:
    """A row for every count of layers, prompt and runner; after them the whole model's,
    where several counts were measured."""
    setup = found["setup"]
    prompts = list(dict.fromkeys(turn["tokens"] for turn in found["turns"]))
    runners = [name for name in setup["runners"] if name not in found["missing"]]
    rows = [
        _measured(found, layers, tokens, name)
        for layers in setup["layers"]
        for tokens in prompts
        for name in runners
    ]
    if len(setup["layers"]) > 1:
        rows += [
            _extrapolated(rows, found["whole_layers"], tokens, name, runners[0])
            for tokens in prompts
            for name in runners
        ]
    return rows


def _measured(found: dict, layers: int, tokens: int, name: str) -> dict:
    """Milliseconds at p50 and p90; `times_ours` and `of_longest` compare turns of the same round."""
    turns = {}
    for turn in found["turns"]:
        if turn["layers"] == layers:
            turns.setdefault((turn["runner"], turn["tokens"]), []).append(turn)
    mine = turns[name, tokens]
    ours = turns[found["setup"]["runners"][0], tokens]
    longest = turns[name, max(tokens for _, tokens in turns)]
    facts = found["by_layers"][layers]
    machine = found["machine"]
    return {
        "layers": layers,
        "tokens": tokens,
        "runner": name,
        "extrapolated": False,
        "prefill": _percentiles([turn["prefill_ms"] for turn in mine])
        | {
            "times_ours": _ratio(mine, ours, "prefill_ms"),
            "of_longest": _ratio(mine, longest, "prefill_ms"),
            "floor": facts["operations"][tokens] / machine["matrix_rate"] * 1e3,
        },
        "step": _percentiles([ms for turn in mine for ms in turn["step_ms"]])
        | {
            "times_ours": _ratio(mine, ours, "step_ms"),
            "floor": (facts["weight_bytes"] + ours[0]["kv_bytes"]) / machine["bandwidth"] * 1e3,
        },
        "host": _percentiles([ms for turn in mine for ms in turn["host_ms"]]) if mine[0]["host_ms"] else None,
        "kv_bytes": mine[0]["kv_bytes"],
        "same_tokens": float(np.mean([a["token_ids"] == b["token_ids"] for a, b in zip(mine, ours)])),
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{p}": float(np.percentile(values, p)) for p in (50, 90)}


def _ratio(turns: list[dict], others: list[dict], figure: str) -> float:
    """The median over the rounds of one figure's ratio."""
    return float(
        np.median([np.median(a[figure]) / np.median(b[figure]) for a, b in zip(turns, others, strict=True)])
    )


def _extrapolated(rows: list[dict], layers: int, tokens: int, name: str, ours: str) -> dict:
    """The medians on the least-squares line through the measured counts of layers."""

    def at(runner: str, figure: str) -> float:
        mine = [row for row in rows if (row["runner"], row["tokens"]) == (runner, tokens)]
        line = np.polyfit([row["layers"] for row in mine], [row[figure]["p50"] for row in mine], 1)
        return float(np.polyval(line, layers))

    figures = {
        figure: {"p50": at(name, figure), "times_ours": at(name, figure) / at(ours, figure)}
        for figure in ("prefill", "step")
    }
    return {"layers": layers, "tokens": tokens, "runner": name, "extrapolated": True} | figures


PREFILL_HEAD = ["layers", "prompt", "runner", "prefill p50 ms", "p90", "x ours", "of longest", "floor"]
STEP_HEAD = [
    "layers",
    "prompt",
    "runner",
    "step p50 ms",
    "p90",
    "x ours",
    "tokens/s",
    "host ms p50",
    "p90",
    "KV MiB",
    "floor",
]
MEMORY_HEAD = [
    "layers",
    "runner",
    "peak RSS MiB",
    "of it files now",
    "logits' cosine to transformers",
    "to genai",
]


def markdown(results: dict) -> str:
    lines = [*_setup_lines(results), ""]
    lines += _table(PREFILL_HEAD, map(_prefill_cells, results["rows"]))
    lines += _table(STEP_HEAD, map(_step_cells, results["rows"]))
    lines += _table(MEMORY_HEAD, _memory_cells(results))
    lines += _notes(results)
    return "\n".join(lines) + "\n"


def _setup_lines(results: dict) -> list[str]:
    setup = results["setup"]
    machine = results["machine"]
    layers = " and ".join(map(str, setup["layers"]))
    return [
        f"{setup['llm']}: {layers} of {results['whole_layers']} layers, random weights, int4 (LM head int8), "
        f"float32 activations, {setup['threads']} threads, {setup['processes']} processes of "
        f"{setup['rounds']} rounds",
        f"{machine['cpu']}: {machine['bandwidth'] / 1e9:.1f} GB/s, {machine['matrix_rate'] / 1e9:.0f} "
        "GFLOP/s float32 (the floors)",
    ]


def _notes(results: dict) -> list[str]:
    notes = []
    for layers, facts in results["by_layers"].items():
        if facts["equal_matrices"]:
            equal, total = facts["equal_matrices"]
            notes.append(
                f"{layers} layers: {equal} of {total} quantised matrices are equal in our graph and "
                "genai's, byte for byte"
            )
    for name in results["missing"]:
        notes.append(f"{name} is not installed and was left out")
    notes.append(
        "'x ours' above 1 is slower than ours; 'about' marks the whole model, on the line through the "
        "layers measured."
    )
    return notes


def _prefill_cells(row: dict) -> list[str]:
    figures = row["prefill"]
    return [
        *_names(row),
        *_numbers(figures, "p50", "p90", digits=1),
        *_numbers(figures, "times_ours", "of_longest", digits=3),
        *_numbers(figures, "floor", digits=1),
    ]


def _step_cells(row: dict) -> list[str]:
    figures = row["step"]
    return [
        *_names(row),
        *_numbers(figures, "p50", "p90", digits=1),
        *_numbers(figures, "times_ours", digits=3),
        f"{1e3 / figures['p50']:.1f}",
        *_numbers(row.get("host") or {}, "p50", "p90", digits=2),
        f"{row['kv_bytes'] / MIB:.1f}" if "kv_bytes" in row else "",
        *_numbers(figures, "floor", digits=1),
    ]


def _memory_cells(results: dict) -> list[list[str]]:
    rows = []
    for layers, facts in results["by_layers"].items():
        for name, memory in facts["memory"].items():
            peak = f"{memory['peak'] / MIB:,.0f}"
            mapped = f"{memory['mapped'] / MIB:,.0f}"
            cosines = [_cosine(facts["cosine"], peer, name) for peer in ("transformers", "genai")]
            rows.append([str(layers), name, peak, mapped, *cosines])
    return rows


def _cosine(cosines: dict, peer: str, name: str) -> str:
    return f"{cosines[peer][name]:.5f}" if peer in cosines else ""


def _names(row: dict) -> list[str]:
    return [
        f"about {row['layers']}" if row["extrapolated"] else str(row["layers"]),
        str(row["tokens"]),
        row["runner"],
    ]


def _numbers(figures: dict, *names: str, digits: int) -> list[str]:
    return [f"{figures[name]:.{digits}f}" if name in figures else "" for name in names]


def _table(head: list[str], rows) -> list[str]:
    ruler = ["---" if name == "runner" else "---:" for name in head]
    return ["| " + " | ".join(cells) + " |" for cells in (head, ruler, *rows)] + [""]
