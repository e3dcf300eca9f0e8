"""Faults that strike vLLM itself, its CPU build in the rehearsal: each must end with an answer of a lower step.

Each boots it once or twice, so they are no part of the matrix, where the own decode loop stands in vLLM's place.
"""

import json
from pathlib import Path

from mathlete.rehearsal.faults import Fault
from mathlete.rehearsal.injections import Inject, cell, combine, cut_model, engine, spoil_input
from mathlete.rehearsal.verdict import Outcome
from mathlete.rehearsal.vllm_faults import expect_left, expect_up
from mathlete.rehearsal.vllm_injections import change_wheel

_CORES = """import multiprocessing, threading
def strike(settings):
    while settings['engine'] == 'vllm' and not os.path.exists('struck.txt'):
        for core in multiprocessing.active_children():
            mark(); os.kill(core.pid, signal.{signal})
        time.sleep(0.1)

threading.Thread(target=strike, args=(settings,), daemon=True).start()"""


def _real(name: str, says: str, inject: Inject, *journalled: str, expect: Outcome = "valid") -> Fault:
    return Fault(name=name, says=says, inject=inject, expect=expect, needs="vllm", journalled=journalled, real=True)


def _spoil_norm(folder: Path) -> None:
    """Make numbers of the last layer that are none: a float of any length whose bits are all set is NaN."""
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    length = 8 + int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8:length])["model.norm.weight"]["data_offsets"]
    data[length + begin : length + end] = b"\xff" * (end - begin)
    file.write_bytes(data)


_SAFE = "vllm with safer settings"
REAL_FAULTS = {
    fault.name: fault
    for fault in (
        _real(
            "real-core-killed",
            "vLLM's core is killed in the second question",
            engine("""if len(_calls) == 2 and not os.path.exists('struck.txt'):
            import multiprocessing
            for core in multiprocessing.active_children():
                mark(); os.kill(core.pid, signal.SIGKILL)"""),
            expect_left("vllm", "(died unexpectedly|EngineDeadError)", to="vllm"),
            expect_up("vllm"),
        ),
        _real(
            "real-core-killed-at-boot",
            "vLLM's core is killed while it loads",
            engine(_CORES.format(signal="SIGKILL").replace("\n", "\n    "), on="open"),
            expect_left("vllm", "a worker that died", to=_SAFE),
            expect_up(_SAFE),
        ),
        _real(
            "real-core-stopped-at-boot",
            "vLLM's core stops while it loads, and says nothing any more",
            combine(
                engine(_CORES.format(signal="SIGSTOP").replace("\n", "\n    "), on="open"),
                cell("server.QUIET_S = 300.0"),
            ),
            expect_left("vllm", "no progress", to=_SAFE),
            expect_up(_SAFE),
        ),
        _real(
            "real-quantisation",
            "vLLM has no kernel for the weights that it is asked to make",
            combine(
                engine("mark()", on="open"),
                cell("CONFIG = replace(CONFIG, vllm=replace(CONFIG.vllm, extra={'quantization': 'fp8'}))"),
            ),
            expect_left("vllm", "", to=_SAFE),
            expect_up(_SAFE),
        ),
        _real(
            "real-ram",
            "vLLM's processes may have 1 GiB each",
            engine(
                "if settings['engine'] == 'vllm':\n        import resource; mark()\n"
                "        resource.setrlimit(resource.RLIMIT_AS, (2**30,) * 2)",
                on="open",
            ),
            expect_left("vllm", "", to=_SAFE),
            expect_up("embedded"),
        ),
        _real(
            "real-wheel-other",
            "one of vLLM's wheels is another than in the lock",
            spoil_input("vllm", change_wheel, seen="True"),
            expect_left("vllm", "cannot be installed", to=_SAFE),
            expect_up("embedded"),
        ),
        _real(
            "real-weights-cut",
            "the weights are cut off, so that no engine can read them",
            cut_model(),
            expect_left("vllm", "weights that are broken", to=_SAFE),
            expect_left(_SAFE, "weights that are broken", to="embedded"),
            expect="refused",
        ),
        _real(
            "real-nan-logits",
            "the logits of every engine are all NaN, which vLLM itself does not mind",
            spoil_input("model", _spoil_norm, seen="b'\\xff' * 64 in open(place + '/model.safetensors', 'rb').read()"),
            expect_left("vllm", "nothing came of 2 requests", to=_SAFE),
            expect_left(_SAFE, "nothing came of 2 requests", to="embedded"),
            expect="refused",
        ),
    )
}
