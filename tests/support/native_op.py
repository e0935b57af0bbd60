"""Runs the op through ONNX Runtime on the CPU, with the native library or the function body."""

import functools

import pytest
from onnx import TensorProto, helper

from ltbm.plugins import library
from ltbm.plugins.merge import merge_rows
from ltbm.plugins.onnx_function import DOMAIN, INPUTS, IR_VERSION, OP, OPSET, OUTPUTS, VERSION, op_model
from tests.support.op_arrays import check_bits, feeds

onnxruntime = pytest.importorskip("onnxruntime", reason="runs the op: pip install 'ltbm[cpu]'")
LIBRARY = library.native_library()
if LIBRARY is None:
    pytest.skip(
        "the native op is not built: install a C++ compiler, then pip install ltbm again",
        allow_module_level=True,
    )
NATIVE = "LTBM, native CPU op: "  # how errors of the native op begin


@functools.cache
def session(dim, dtype, step=(2, 5), threads=1, path=LIBRARY, native=True):
    return open_session(op_model(dim, dtype, step), threads, path if native else None)


def open_session(model, threads=1, path=LIBRARY, **settings):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # refusals are expected here
    for name, value in settings.items():
        setattr(options, name, value)
    if path is not None:
        options.register_custom_ops_library(str(path))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(x, lengths, targets, keep, window, step=(2, 5), **options):
    return session(x.shape[2], str(x.dtype), step, **options).run(
        OUTPUTS, feeds(x, lengths, targets, keep, window)
    )


def check(x, lengths, targets, keep, window, step=(2, 5), **options):
    outputs = run(x, lengths, targets, keep, window, step, **options)
    check_bits(outputs, merge_rows(x, lengths, targets, keep, window, step))


def bare_model(element=TensorProto.FLOAT, **attributes):
    """The op without its function body, and with no word about shapes."""
    types = dict(x=element, keep=TensorProto.INT64, y=element)
    infos = {
        name: helper.make_tensor_value_info(name, types.get(name, TensorProto.INT32), None)
        for name in (*INPUTS, *OUTPUTS)
    }
    node = helper.make_node(OP, INPUTS, OUTPUTS, domain=DOMAIN, **attributes)
    graph = helper.make_graph([node], "bare", [infos[i] for i in INPUTS], [infos[o] for o in OUTPUTS])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
