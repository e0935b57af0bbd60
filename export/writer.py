"""One command's work: a checkpoint becomes a bundle, written to a temporary sibling and renamed when whole."""

import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from ltbm.export.checkpoint import Checkpoint
from ltbm.export.decoder import decoder_graph
from ltbm.export.encoder import encoder_graph
from ltbm.export.families import EMBEDDINGS, KNOWINGLY_UNUSED, ModelSpec, model_spec
from ltbm.export.flavours import FLAVOURS
from ltbm.export.graph import Graph
from ltbm.export.merge import merge_graph
from ltbm.export.prompt import write_prompt_files
from ltbm.export.weights import WeightFile, cast_finite
from ltbm.runtime.bundle import FORMAT_VERSION, MANIFEST_NAME, FileRecord, Manifest, file_sha256

PRECISIONS = ("float32", "float16")
DEFAULT_STEP = (2, 5)  # LTBM.md: at most two fifths of the current tokens are merged in one pass
TOOLS = ("ltbm", "torch", "transformers", "onnx", "optimum", "safetensors")


def export_bundle(source, out, precision: str = "float32", overwrite: bool = False,
                  progress: Callable[[str], None] = lambda line: print(line, file=sys.stderr)) -> Path:
    """Write the bundle `out` from the checkpoint `source` (a folder or a hub id); the path of the bundle.

    precision: float32 or float16, of weights, matrix products and the KV cache
    Raises FileExistsError if `out` exists and not `overwrite`, ValueError or KeyError for what is not supported.
    """
    out = Path(out)
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
    _refuse_foreign(out, overwrite)
    checkpoint = Checkpoint.open(source)
    spec = model_spec(checkpoint.config, checkpoint.path)
    progress(f"export {spec.family.model_type} from {checkpoint.source}: {len(checkpoint)} tensors, {precision}")
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write_files(scratch, spec, checkpoint, precision, progress)
        scratch.chmod(0o755)
        _put_in_place(scratch, out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return out


def _refuse_foreign(out: Path, overwrite: bool) -> None:
    """Only a former bundle may be replaced, and only when asked."""
    if not out.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{out} exists; give --overwrite to replace the bundle, or another folder")
    if not (out / MANIFEST_NAME).is_file():
        raise FileExistsError(f"{out} is no bundle, so --overwrite does not replace it; give another folder")


def _put_in_place(scratch: Path, out: Path) -> None:
    """Rename `scratch` to `out`; a former bundle goes only once the new one stands."""
    if not out.exists():
        scratch.rename(out)
        return
    former = Path(tempfile.mkdtemp(prefix=f".{out.name}.former.", dir=out.parent))
    out.rename(former)
    scratch.rename(out)
    shutil.rmtree(former)


def _write_files(folder: Path, spec: ModelSpec, checkpoint: Checkpoint, precision: str, progress) -> None:
    opsets = {}

    def stage(name: str, build: Callable[[WeightFile], dict[str, Graph]]) -> None:
        weights = WeightFile(folder / f"{name}.weights", progress)
        try:
            for graph_name, graph in build(weights).items():
                _save(graph, folder / f"{graph_name}.onnx")
                opsets[graph_name] = graph.opsets[""]
                progress(f"  {graph_name}.onnx")
        finally:
            weights.close()
        progress(f"  {name}.weights {weights.path.stat().st_size / 1e6:,.1f} MB")

    stage("encoder", lambda w: {"encoder": encoder_graph(spec.encoder, checkpoint, precision, w)})
    stage("merge", lambda w: {"merge": merge_graph(spec, checkpoint, precision, w, DEFAULT_STEP)})
    stage("decoder", lambda w: {f"decoder.{name}": decoder_graph(spec, checkpoint, precision, w, flavour)
                                for name, flavour in FLAVOURS.items()})
    table = checkpoint.take(EMBEDDINGS, checkpoint.uses.get(EMBEDDINGS, "embeddings"))
    np.save(folder / "embeddings.npy", cast_finite(table, np.dtype(precision), EMBEDDINGS))
    progress("  embeddings.npy")
    prompt = write_prompt_files(folder, checkpoint, spec)
    _mark_unused(checkpoint)
    checkpoint.finish()
    progress("  hashing")
    _write_manifest(folder, spec, checkpoint, precision, opsets, prompt)


def _save(graph: Graph, path: Path) -> None:
    onnx.save(graph.model(), path)
    onnx.checker.check_model(path)


def _mark_unused(checkpoint: Checkpoint) -> None:
    for name in checkpoint.tensor_names():
        for suffix, reason in KNOWINGLY_UNUSED.items():
            if name.endswith(suffix):
                checkpoint.mark(name, f"unused: {reason}")


def _write_manifest(folder: Path, spec: ModelSpec, checkpoint: Checkpoint, precision: str, opsets: dict, prompt) -> None:
    files = {path.name: FileRecord(file_sha256(path), path.stat().st_size) for path in sorted(folder.iterdir())}
    manifest = Manifest(
        format_version=FORMAT_VERSION, family=spec.family.model_type, source=checkpoint.source, precision=precision,
        flavours=tuple(FLAVOURS), audio=spec.audio, decoder=spec.decoder, prompt=prompt, merge_step=DEFAULT_STEP,
        opsets=opsets, tools={name: version(name) for name in TOOLS}, files=files, tensors=dict(sorted(checkpoint.uses.items())))
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
