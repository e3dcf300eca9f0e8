"""Engines that run elsewhere: vLLM's own processes, OpenAI-compatible servers, the workers of a Ray cluster.

Each engine has its settings (flags of the evaluation command), which say what is wrong with them before anything is
opened, and a sampler. The packages `vllm`, `openai` and `ray` are imported when a sampler is opened. `join_cluster` is
Ray alone, for other work that a cluster can share.

>>> VllmSettings(max_model_len=4096).check()
>>> ServerSettings(urls=("http://localhost:8000/v1",), at_once=0).check()
Traceback (most recent call last):
    ...
mathlete.errors.UserError: --servers.at-once must be at least 1, got 0.
  Fix: as in --servers.urls http://localhost:8000/v1
"""

from mathlete.sampling.served.openai_engine import OpenAISampler, ServerSettings
from mathlete.sampling.served.ray_cluster import join_cluster
from mathlete.sampling.served.ray_engine import RaySampler, RaySettings
from mathlete.sampling.served.vllm_engine import VllmSampler
from mathlete.sampling.served.vllm_settings import PROMPT_ROOM, VllmSettings
from mathlete.sampling.served.vllm_shape import VllmShape

__all__ = [
    "PROMPT_ROOM",
    "OpenAISampler",
    "RaySampler",
    "RaySettings",
    "ServerSettings",
    "VllmSampler",
    "VllmSettings",
    "VllmShape",
    "join_cluster",
]
