"""`ltbm pack`."""

import json

from ..runtime.arguments import add_command, add_threads_flag
from ..runtime.backends.opening import KV_CACHES

PACK_DESCRIPTION = """\
Pack the weights of a bundle for this machine's CPU and keep them under BUNDLE/engines. ONNX Runtime
does so whenever it opens a bundle, in memory of its own; what is kept is mapped instead: less memory
that only this process can use, and a shorter start. Answers stay the same, bit for bit. The file
takes about as much disk as the encoder and the LLM, twice that of the larger one meanwhile; it is
said before. Packed weights are good for one bundle, onnxruntime and kind of CPU. Others are named,
never mapped, and packed anew by this command. `ltbm run --no-packed` leaves them. An LLM in int4 or
int8 that ltbm's own products multiply on this CPU maps its weights as they are: it is not packed.

  ltbm pack ./bundle
  ltbm run ./bundle clip.wav --prompt 'What do you hear?'"""


def add_commands(commands) -> None:
    parser = add_command(
        commands, "pack", run, "pack a bundle's weights for this CPU, to be mapped", PACK_DESCRIPTION
    )
    parser.add_argument("bundle", help="folder that `ltbm export` wrote")
    parser.add_argument(
        "--kv-cache",
        choices=KV_CACHES,
        help="pack the decoder that keeps its KV cache so; int8 has one of its own (`ltbm calibrate`)",
    )
    parser.add_argument(
        "--no-native-products",
        dest="native_products",
        action="store_false",
        help="pack for `ltbm run --no-native-products`: the LLM too, whatever multiplies it here",
    )
    add_threads_flag(parser, "CPU threads while packing (default: all cores)")
    parser.add_argument("--refresh", action="store_true", help="pack again what is there")
    parser.add_argument("--json", action="store_true", help="print one object instead of the table")


def run(args) -> None:
    from ..runtime.bundle import Bundle
    from .packing import pack_bundle

    packed = pack_bundle(
        Bundle.open(args.bundle),
        args.kv_cache,
        args.threads,
        args.refresh,
        native_products=args.native_products,
    )
    if args.json:
        facts = {}
        for stage, one in packed.items():
            facts[stage] = {"path": str(one.path), "bytes": one.size, "seconds": one.seconds}
        print(json.dumps(facts))
        return
    for stage, one in packed.items():
        print(f"{stage:<9}{one.size / 2**20:>10,.1f} MiB {one.seconds:>8.1f} s  {one.path}")
