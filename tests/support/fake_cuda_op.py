"""The emulated CUDA op on the fake device: it runs when the stream comes to it, in memory that is checked."""

from ltbm.plugins.cuda_op import Call, CudaOp
from tests.support.fake_cuda import STREAM, Driver, Event

INT32 = 4  # bytes


def install(monkeypatch, driver: Driver, library) -> None:
    """`library`, the emulated op, becomes the one that is found, and is put on the device's stream."""
    monkeypatch.setenv("LTBM_CUDA_OP", str(library))
    run_now = CudaOp.enqueue

    def enqueue(self: CudaOp, call: Call, stream: int | None) -> None:
        assert stream == STREAM
        as_it_is_now = Call.from_buffer_copy(call)
        driver.events.append(Event("op", {"rows": call.batch, "tokens": call.tokens, "slots": call.slots}))

        def work() -> None:
            for name, nbytes in memory_of(self, as_it_is_now).items():
                driver.view(getattr(as_it_is_now, name), nbytes)
            run_now(self, as_it_is_now, None)

        driver.enqueue(work)

    monkeypatch.setattr(CudaOp, "enqueue", enqueue)


def memory_of(op: CudaOp, call: Call) -> dict[str, int]:
    """Bytes that a call reads and writes, by field."""
    element = 2 if call.half else 4
    kept = call.batch * call.slots
    seen = call.batch * call.tokens
    return {
        "x": seen * call.width * element,
        "lengths": call.batch * INT32,
        "targets": call.batch * INT32,
        "window": INT32,
        "y": kept * call.width * element,
        "sizes": kept * INT32,
        "anchors": kept * INT32,
        "source_map": seen * INT32,
        "workspace": op.workspace(call.batch, call.tokens),
    }
