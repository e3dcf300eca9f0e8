"""The fault matrix: what may go wrong on Kaggle, by name, and how a rehearsal with it must end."""

from mathlete.rehearsal.containers import Disks
from mathlete.rehearsal.faults import Fault, Needs
from mathlete.rehearsal.gateway.behaviours import PACKAGES
from mathlete.rehearsal.injections import (
    CLOCK,
    LITTLE_RAM,
    TEXT,
    Inject,
    cell,
    combine,
    cut_model,
    cut_wheel,
    delete_tokenizer,
    delete_wheels,
    edit_notebook,
    engine,
    mount_model_in_other_layout,
    on_disks,
    probe_container,
    replace_predict,
    replace_texts,
    retag_wheel,
    rewrite_test_rows,
    run_instead_of_solving,
    spoil_input,
    start_slowly,
    start_within,
    stop_after,
    unmount,
    unpack_wheel,
)
from mathlete.rehearsal.shapes import FRAME, HARMLESS_SHAPES, SHAPES
from mathlete.rehearsal.verdict import Outcome
from mathlete.rehearsal.vllm_faults import VLLM_FAULTS

_KILL = "mark(); os.kill(os.getpid(), signal.SIGKILL)"
_HANG = "mark(); time.sleep(3600)"
_NAN = """import torch
    import mathlete.sampling.embedded.transformers_engine as engine
    _load = engine.load_model

    def load(source, **more):
        model = _load(source, **more)
        with torch.no_grad():
            model.get_output_embeddings().weight.fill_(float("nan"))
        mark()
        return model

    engine.load_model = load"""
_TMP_SMALL = "os.statvfs('/tmp').f_blocks * os.statvfs('/tmp').f_frsize <= 2**20"
_THIRD = f"""if turn == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    {FRAME.format("GOOD")}"""


def _fault(
    name: str,
    says: str,
    inject: Inject,
    expect: Outcome = "valid",
    *,
    needs: Needs = "",
    refused_by: tuple[str, ...] = (),
) -> Fault:
    return Fault(name=name, says=says, inject=inject, expect=expect, needs=needs, refused_by=refused_by)


_TAKE_PORT = "taken = __import__('socket').create_server(('', 50051))"
_CANNOT_MOVE = tuple(version for version, package in PACKAGES.items() if not package.finds_moved_server)
_TRUSTS_IDS = tuple(version for version, package in PACKAGES.items() if not package.writes_own_ids)


_INSIDE = (
    _fault("solve-raises", "the solve loop raises", run_instead_of_solving("raise ValueError('boom')")),
    _fault(
        "solve-raises-20kb", "it raises with 20 kB of text", run_instead_of_solving("raise ValueError('boom' * 5000)")
    ),
    _fault("solve-raises-lines", "it raises with line breaks", run_instead_of_solving("raise ValueError('a\\nb\\nc')")),
    _fault("solve-raises-signs", "it raises with 2000 signs ∫", run_instead_of_solving("raise ValueError('∫' * 2000)")),
    _fault(
        "solve-exits",
        "it calls sys.exit(), which alone hangs the gateway for ever",
        run_instead_of_solving("sys.exit(1)"),
    ),
    _fault("solve-interrupted", "it raises KeyboardInterrupt", run_instead_of_solving("raise KeyboardInterrupt")),
    _fault("solve-memory", "it raises MemoryError", run_instead_of_solving("raise MemoryError")),
    _fault(
        "solve-recursion",
        "it recurses without end",
        run_instead_of_solving("solve.again = lambda: solve.again(); solve.again()"),
    ),
    _fault("solve-hangs", "it hangs", run_instead_of_solving(_HANG)),
    _fault(
        "solve-network",
        "it tries the network",
        run_instead_of_solving("import urllib.request as u; u.urlopen('http://x.invalid')"),
    ),
    _fault(
        "solve-writes-input", "it writes into /kaggle/input", run_instead_of_solving("open('/kaggle/input/x', 'w')")
    ),
    _fault("solve-returns-nothing", "it returns no solution", run_instead_of_solving("return None")),
    _fault(
        "signal-in-thread",
        "it asks for SIGALRM in a worker thread",
        run_instead_of_solving("import signal; signal.signal(signal.SIGALRM, print); signal.alarm(1)"),
    ),
)
_ENGINE = (
    _fault(
        "engine-killed-mid-sample",
        "the engine is killed in the second question",
        engine(f"""if len(_calls) == 2 and not os.path.exists('struck.txt'):
            {_KILL}"""),
    ),
    _fault("engine-killed-always", "the engine dies in every question", engine(_KILL), "refused"),
    _fault("engine-hangs", "the engine never says anything", engine(_HANG), "refused"),
    _fault(
        "engine-hangs-once",
        "the engine hangs in one question",
        engine(f"""if len(_calls) == 2 and not os.path.exists('struck.txt'):
            {_HANG}"""),
    ),
    _fault(
        "engine-never-loads",
        "loading the model fails",
        engine("mark(); raise OSError('no weights')", on="open"),
        "refused",
    ),
    _fault("engine-loads-slowly", "loading takes five seconds longer", engine("mark(); time.sleep(5)", on="open")),
    _fault(
        "engine-speaks-nonsense",
        "the engine's process prints what is no JSON",
        engine("mark(); os.system('echo nonsense')", on="open"),
    ),
    _fault(
        "cuda-oom",
        "the device is out of memory in one question",
        engine("""if len(_calls) == 2:
            import torch
            mark()
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')"""),
    ),
    _fault("cpu-oom", "the engine's process may have 600 MiB", engine(LITTLE_RAM, on="open"), "refused"),
    _fault("nan-logits", "the model's head is all NaN", engine(_NAN, on="open"), "refused"),
    _fault("empty-completions", "every second question gets empty completions", replace_texts("")),
    _fault("junk-completions", "every second question gets text without an answer", replace_texts("no answer here")),
    _fault(
        "answers-too-big",
        "every second question's box holds 10^25",
        replace_texts("</think>\\boxed{10000000000000000000000000}"),
    ),
    _fault("answers-negative", "every second question's box holds -7", replace_texts("</think>\\boxed{-7}")),
    _fault("answers-decimal", "every second question's box holds 3.7", replace_texts("</think>\\boxed{3.7}")),
    _fault(
        "answers-null-byte",
        "every second question's text holds a null byte and half a surrogate",
        replace_texts("\x00\ud800\\boxed{5}"),
    ),
    _fault("all-empty", "every completion is empty", engine(TEXT.format("")), "refused"),
)
_PLACE = (
    _fault(
        "disk-full",
        "/kaggle/working is full",
        combine(
            on_disks(Disks(working_mib=1)),
            cell("""\
import errno
try:
    with open("fill", "wb") as file:
        for _ in range(1024):
            file.write(bytes(4096)); file.flush()
except OSError as error:
    assert error.errno == errno.ENOSPC
    mark()
"""),
        ),
        needs="server",  # which writes the file elsewhere; an iterator's notebook has no disk left for it
    ),
    _fault(
        "tmp-read-only",
        "/tmp is read-only",
        combine(on_disks(Disks(read_only_tmp=True)), probe_container("os.statvfs('/tmp').f_flag & os.ST_RDONLY")),
        "refused",
    ),
    _fault("tmp-small", "/tmp has 1 MiB", combine(on_disks(Disks(tmp_mib=1)), probe_container(_TMP_SMALL)), "refused"),
    _fault("wheels-missing", "the data set of wheels is not mounted", unmount("wheels"), "refused"),
    _fault(
        "wheels-empty",
        "the data set holds no wheel",
        spoil_input("wheels", delete_wheels, seen="not glob.glob(place + '/*.whl')"),
        "refused",
    ),
    _fault(
        "wheel-wrong-tag",
        "the wheel is for another platform",
        spoil_input("wheels", retag_wheel, seen="glob.glob(place + '/mathlete-*-win_amd64.whl')"),
        "refused",
    ),
    _fault(
        "wheel-broken",
        "the wheel is cut off",
        spoil_input("wheels", cut_wheel, seen="not zipfile.is_zipfile(glob.glob(place + '/mathlete-*.whl')[0])"),
        "refused",
    ),
    _fault(
        "wheel-unpacked",
        "the wheel arrives as a folder, as Kaggle unpacks archives",
        spoil_input("wheels", unpack_wheel, seen="os.path.isdir(glob.glob(place + '/mathlete-*')[0])"),
        "refused",
    ),
    _fault("model-missing", "the model is not mounted", unmount("model"), "refused"),
    _fault("model-other-layout", "the model is mounted in the other layout than the rest", mount_model_in_other_layout),
    _fault(
        "model-no-tokenizer",
        "the export lacks its tokenizer",
        spoil_input("model", delete_tokenizer, seen="not os.path.exists(place + '/tokenizer.json')"),
        "refused",
    ),
    _fault(
        "model-cut",
        "the weights are cut off",
        cut_model(),
        "refused",
    ),
    _fault("competition-missing", "the competition's data is not mounted", unmount("competition"), "refused"),
)
_GATEWAY = (
    _fault(
        "csv-extra-column",
        "test.csv has a column more",
        rewrite_test_rows(lambda rows: [[*row, "0"] for row in rows], seen="len(columns) == 3"),
        needs="server",
    ),
    _fault(
        "csv-columns-swapped",
        "test.csv's columns are swapped",
        rewrite_test_rows(
            lambda rows: [row[::-1] for row in rows], seen="columns[0].name != CONFIG.competition.columns[0]"
        ),
        needs="server",
    ),
    _fault(
        "csv-odd-text",
        "statements hold quotes, commas, line breaks, signs",
        rewrite_test_rows(
            lambda rows: [rows[0], *([i, f'{s}\n"∫", \u200b,'] for i, s in rows[1:])],
            seen="""columns[1].item().endswith('\\n"∫", \\u200b,')""",
        ),
        needs="server",
    ),
    _fault(
        "csv-empty-statement",
        "a statement is empty",
        rewrite_test_rows(lambda rows: [*rows[:-1], [rows[-1][0], ""]], seen="not columns[1].item()"),
        needs="server",
    ),
    _fault(
        "csv-long-statement",
        "a statement is longer than the model's context",
        rewrite_test_rows(
            lambda rows: [*rows[:-1], [rows[-1][0], "x + 1 " * 5000]],
            seen="columns[1].item().count('x + 1') == 5000",
        ),
        needs="server",
    ),
    _fault(
        "port-taken",
        "port 50051 is taken before the notebook makes its server",
        combine(cell(f"{_TAKE_PORT}; mark()", before="server"), start_within(90)),
        needs="server",
        refused_by=_CANNOT_MOVE,
    ),
    _fault(
        "port-wanted",
        "a later cell wants port 50051, which the server has",
        cell(f"""\
try:
    {_TAKE_PORT}
except OSError:
    mark()
"""),
        needs="server",
    ),
    _fault("start-slow", "the server comes up after the start-up limit", start_slowly, "refused", needs="server"),
    _fault(
        "network-in-cell",
        "a cell fetches from the network",
        cell("import urllib.request as u; mark(); u.urlopen('http://x.invalid')"),
        "refused",
    ),
    _fault(
        "pip-in-cell",
        "a cell installs from an index",
        cell("mark(); subprocess.check_call([*pip[:4], '--retries', '0', 'nothing-there'])"),
        "refused",
    ),
    _fault(
        "clock-30s-left",
        "a sixth of the clock is left, 30 s of 180, when the notebook starts to serve",
        # A share: of a fixed time a busy machine leaves nothing, whatever the notebook does.
        cell(f"{CLOCK}STARTED = time.time() - (clock['wall_s'] * 5 / 6 - clock['reserve_s']); mark()"),
    ),
    _fault(
        "clock-over",
        "the wall is over before the first question",
        cell(f"{CLOCK}STARTED = time.time() - clock['wall_s']; mark()"),
        "refused",
    ),
    _fault(
        "kernel-killed",
        "the kernel is killed in the third question",
        replace_predict(_THIRD, strikes_in=3),
        "refused",
        needs="server",
    ),
    _fault(
        "kernel-killed-early",
        "the kernel is killed before it serves",
        cell(f"import signal; {_KILL}"),
        "refused",
    ),
    _fault(
        "cell-raises", "a cell raises before the server is up", cell("mark(); raise RuntimeError('boom')"), "refused"
    ),
    _fault(
        "wrong-python",
        "the image has another Python",
        edit_notebook(
            ("assert sys.version_info[:2] == (", "assert sys.version_info[:2] != ("),
            ('f\\"built for', 'mark() or f\\"built for'),  # JSON: the quote is escaped
        ),
        "refused",
    ),
    _fault(
        "never-serves",
        "the notebook ends without serving",
        edit_notebook(('"serve(\\n"', '"(lambda *_, **__: mark())(\\n"')),  # JSON: the end of the line is escaped
        "refused",
    ),
)
_PREDICT = (
    _fault(
        "predict-raises",
        "an unguarded predict raises",
        replace_predict("raise ValueError('boom')"),
        "refused",
        needs="server",
    ),
    _fault(
        "predict-raises-20kb",
        "it raises with 20 kB of text",
        replace_predict("raise ValueError('boom' * 5000)"),
        "refused",
        needs="server",
    ),
    _fault(
        "predict-exits",
        "it calls sys.exit(): the gateway never ends",
        combine(replace_predict("sys.exit(1)"), stop_after(30)),
        "refused",
        needs="server",
    ),
    _fault(
        "predict-lambda",
        "predict is a lambda",
        edit_notebook(
            ("getattr(library, name)(predict)", "getattr(library, name)(mark() or (lambda *row: predict(*row)))")
        ),
        "refused",
        needs="server",
    ),
    *(
        _fault(
            f"predict-returns-{name}",
            f"an unguarded predict does `{body}`",
            replace_predict(body, strikes_in=2 if " turn " in body else 1),
            "refused",
            needs="server",
        )
        for name, body in SHAPES.items()
    ),
    *(
        _fault(
            f"predict-returns-{name}",
            f"an unguarded predict does `{body}`",
            replace_predict(body),
            needs="server",
            refused_by=_TRUSTS_IDS,
        )
        for name, body in HARMLESS_SHAPES.items()
    ),
)
FAULTS = {fault.name: fault for fault in (*_INSIDE, *_ENGINE, *_PLACE, *_GATEWAY, *_PREDICT)} | VLLM_FAULTS
