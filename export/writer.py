"""A checkpoint becomes a bundle, written to a temporary sibling and renamed when whole."""

import errno
import io
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from ..runtime.bundle import FORMAT_VERSION, MANIFEST_NAME, FileRecord, Manifest
from ..runtime.files import file_sha256, require_utf8_name
from .checkpoint import Checkpoint
from .decoder import decoder_graph
from .encoder import encoder_graph
from .estimate import Estimate, estimate, gigabytes
from .flavours import Flavour, flavours_for
from .graph import Graph
from .layouts import EMBEDDINGS
from .merge import merge_graph, projector_graph
from .precision import choose_precision
from .progress import ByteCount, Progress, to_stderr
from .prompt import write_prompt_files
from .scratch import scratch_folder, tidy_up
from .shapes import shape_check
from .specification import model_spec
from .weights import HashedFile, WeightFile, cast_finite, row_chunks

DEFAULT_STEP = (2, 5)  # docs/algorithm.md: at most two fifths of the current tokens are merged in one pass
TOOLS = ("ltbm", "onnx", "numpy")
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def export_bundle(
    source,
    out,
    precision: str = "float32",
    overwrite: bool = False,
    progress: Progress = to_stderr,
    **options,
) -> Path:
    """Write the bundle `out` from the checkpoint `source` (a folder or a hub id); the path of the bundle.

    precision: of the LLM's matrices: float32, float16, bfloat16, int8 or int4
    options: those of `choose_precision`, and lm_head_chunks (`decoder_graph`)
    Raises FileExistsError if `out` exists and not `overwrite`, or another process is writing it,
    ValueError or KeyError for what is not supported, OSError where the disk has no room.
    """
    return Export(source, precision, **options).run(out, overwrite, progress)


def _refuse_foreign(out: Path, overwrite: bool) -> None:
    """Only a former bundle may be replaced, and only when asked."""
    require_utf8_name(out)
    if not out.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{out} exists; give --overwrite to replace the bundle, or another folder")
    if not (out / MANIFEST_NAME).is_file():
        raise FileExistsError(f"{out} is no bundle, so --overwrite does not replace it; give another folder")


class Export:
    """A checkpoint and the choices of its export."""

    def __init__(self, source, precision: str, lm_head_chunks: int = 1, **options):
        self.checkpoint = Checkpoint.open(source)
        self.lm_head_chunks = lm_head_chunks
        self.spec = model_spec(self.checkpoint.config, self.checkpoint.path)
        self.checkpoint.check_shape = shape_check(self.spec, self.checkpoint.source)
        if not 1 <= lm_head_chunks <= self.spec.decoder.vocab_size:
            raise ValueError(
                f"lm_head_chunks {lm_head_chunks} is not between 1 and the vocabulary's "
                f"{self.spec.decoder.vocab_size}"
            )
        self.precision = choose_precision(precision, self.checkpoint.stored_type(EMBEDDINGS), **options)

    def run(self, out, overwrite: bool = False, progress: Progress = to_stderr) -> Path:
        """Write the bundle `out`; `export_bundle` says what is raised."""
        out = Path(out)
        if out.is_symlink():
            out = out.resolve()  # what it leads to is replaced, not the link
        _refuse_foreign(out, overwrite)
        progress(
            f"export {self.spec.family.model_type} from {self.checkpoint.source}: {len(self.checkpoint)} "
            f"tensors, {self.precision}"
        )
        if self.checkpoint.note:
            progress(f"  {self.checkpoint.note}")
        if out.parent.is_dir():
            tidy_up(out, progress)  # before the room on the disk is looked at
        needs = self.estimate(out)
        progress(f"  {needs}")
        needs.require_room()
        with scratch_folder(out, progress) as scratch:
            _refuse_foreign(out, overwrite)  # another export may have ended meanwhile
            try:
                self._write(scratch, ByteCount(needs.disk, progress))
            except OSError as error:
                if error.errno not in FULL_DISK:
                    raise
                raise OSError(
                    error.errno,
                    f"the disk became full during the export ({error.strerror}); nothing was left, "
                    f"{gigabytes(needs.disk)} are needed",
                    str(out.parent),
                ) from None
        return out

    def stages(self) -> dict[str, Callable[[WeightFile], dict[str, Graph]]]:
        """Each stage's graphs, by file name, over the stage's one weight file."""
        return {"encoder": self._encoder, "merge": self._merge, "decoder": self._decoder}

    def _encoder(self, weights: WeightFile) -> dict[str, Graph]:
        return {"encoder": encoder_graph(self.spec, self.checkpoint, self.precision, weights)}

    def _merge(self, weights: WeightFile) -> dict[str, Graph]:
        graphs = {}
        for name, plugin in (("merge", False), ("merge.trt", True)):
            graphs[name] = merge_graph(
                self.spec, self.checkpoint, self.precision, weights, DEFAULT_STEP, plugin
            )
        graphs["merge.projector"] = projector_graph(self.spec, self.checkpoint, self.precision, weights)
        return graphs

    def _decoder(self, weights: WeightFile) -> dict[str, Graph]:
        graphs = {}
        for flavour in self._flavours():
            graphs[f"decoder.{flavour.name}"] = decoder_graph(
                self.spec.llm, self.checkpoint, self.precision, weights, flavour, self.lm_head_chunks
            )
        return graphs

    def _flavours(self) -> list[Flavour]:
        return flavours_for(self.precision, self.spec.decoder.head_dim)

    def estimate(self, out: Path) -> Estimate:
        """What writing the bundle to `out` takes; a checkpoint that does not fit is refused here,
        before any work."""
        needs = estimate(self.stages(), self.checkpoint, self.precision, out)
        self.checkpoint.require_all_used()
        return needs

    def _write(self, folder: Path, progress: ByteCount) -> None:
        """Every file of the bundle, the manifest last."""
        prompt = write_prompt_files(folder, self.checkpoint, self.spec)
        opsets = {}
        files = {}
        for stage, build in self.stages().items():
            with HashedFile(folder / f"{stage}.weights", progress) as file:
                for name, graph in build(WeightFile(file.path.name, file)).items():
                    _save(graph, folder / f"{name}.onnx")
                    opsets[name] = graph.opsets[""]
            files[file.path.name] = file.record
            progress.report(f"  {stage}: {gigabytes(file.size)}")
        with HashedFile(folder / "embeddings.npy", progress) as file:
            _write_embeddings(file, self.checkpoint, self.precision.embeddings)
        files[file.path.name] = file.record
        files |= {
            path.name: FileRecord(file_sha256(path), path.stat().st_size)
            for path in folder.iterdir()
            if path.name not in files
        }
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            family=self.spec.family.model_type,
            source=self.checkpoint.source,
            precision=self.precision,
            flavours=tuple(flavour.name for flavour in self._flavours()),
            audio=self.spec.audio,
            encoder=self.spec.encoder,
            decoder=self.spec.decoder,
            prompt=prompt,
            merge_step=DEFAULT_STEP,
            opsets=opsets,
            tools={name: version(name) for name in TOOLS},
            files=dict(sorted(files.items())),
            tensors=self.checkpoint.stored_uses(),
            default_level=self.spec.family.default_level,
        )
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")


def _write_embeddings(file: HashedFile, checkpoint: Checkpoint, kind: str) -> None:
    """The table [V, H] as .npy, a few rows at a time; bfloat16, which .npy does not know,
    as its bits in uint16."""
    table = checkpoint.take(EMBEDDINGS, checkpoint.uses[EMBEDDINGS])
    stored = np.dtype(np.uint16 if kind == "bfloat16" else kind)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": stored.str, "fortran_order": False, "shape": table.shape}
    )
    file.write(header.getvalue(), EMBEDDINGS)
    for rows in row_chunks(table):
        file.write(cast_finite(rows, np.dtype(kind), EMBEDDINGS).view(stored), EMBEDDINGS)


def _save(graph: Graph, path: Path) -> None:
    onnx.save(graph.model(), path)
    onnx.checker.check_model(path)
