"""The shipped model as a bundle, exported anew into a temporary folder."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .packing import MODEL, unpack_checkpoint


@contextmanager
def demo_bundle(
    precision: str = "float32", progress: Callable[[str], None] = lambda line: None
) -> Iterator[Path]:
    """The path of a bundle of the demo model, removed at the end."""
    from ltbm.export.writer import export_bundle

    with tempfile.TemporaryDirectory(prefix="ltbm-demo-") as folder:
        checkpoint = unpack_checkpoint(MODEL, Path(folder) / "model")
        yield export_bundle(checkpoint, Path(folder) / "bundle", precision, progress=progress)
