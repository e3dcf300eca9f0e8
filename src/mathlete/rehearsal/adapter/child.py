"""vLLM with an adapter, in a process and an environment of its own: `PYTHON child.py JOB OUT`.

It is run as a file by a Python that has vLLM and need not have this project: only vLLM is imported. JOB is JSON:
{"engine": arguments of vllm.LLM, "adapter": folder or null, "draws": [{"name", "sampling": arguments of
SamplingParams, "at_once", "prompts": {id: text}}]}. OUT gets a line of JSON with what draws, then one for each prompt:
{"draw", "id", "prompt_ids", "samples": [{"ids", "text", "finish"}]}. What stands in OUT already is not drawn again.
"""

import json
import sys
from pathlib import Path


def main(job_file: str, out_file: str) -> None:
    """Draw what the job asks for and OUT does not have."""
    job, out = json.loads(Path(job_file).read_text(encoding="utf-8")), Path(out_file)
    done = list_done(out)
    waiting = [(draw, [one for one in draw["prompts"] if (draw["name"], one) not in done]) for draw in job["draws"]]
    if not any(left for _, left in waiting):
        return
    import torch
    import vllm
    from vllm.lora.request import LoRARequest

    llm = vllm.LLM(**job["engine"])
    dtype = str(llm.llm_engine.vllm_config.model_config.dtype).removeprefix("torch.")
    write(out, {"vllm": vllm.__version__, "torch": torch.__version__, "dtype": dtype})
    # As the organiser's program asks: one adapter, by its folder.
    lora = LoRARequest("adapter", 1, job["adapter"]) if job["adapter"] else None
    for draw, left in waiting:
        sampling = vllm.SamplingParams(**draw["sampling"])
        # So many at once as the organiser decodes together, each batch written before the next.
        for start in range(0, len(left), draw["at_once"]):
            some = left[start : start + draw["at_once"]]
            texts = [draw["prompts"][name] for name in some]
            outputs = llm.generate(texts, sampling, lora_request=lora, use_tqdm=False)
            for name, output in zip(some, outputs, strict=True):
                samples = [
                    {"ids": list(one.token_ids), "text": one.text, "finish": one.finish_reason}
                    for one in output.outputs
                ]
                ids = list(output.prompt_token_ids)
                write(out, {"draw": draw["name"], "id": name, "prompt_ids": ids, "samples": samples})


def list_done(out: Path) -> "set[tuple[str, str]]":
    """List the draws and ids that stand in a file."""
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    return {(row["draw"], row["id"]) for row in rows if "draw" in row}


def write(out: Path, value: "dict[str, object]") -> None:
    """Add a line to a file."""
    with out.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(value) + "\n")


if __name__ == "__main__":  # vLLM's own processes import this file again
    main(*sys.argv[1:])
