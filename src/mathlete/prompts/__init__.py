"""The one place where a prompt is built and a trace becomes the tokens that follow it.

A model is served with the prompt it was trained with: what is free in it, the instruction and the arguments of the chat
template, travels in the model's folder as `mathlete_prompt.json` from the base through merge and export into the
notebook. `PromptSettings` names what is to be otherwise.

>>> PromptSettings(template_args=("enable_thinking=false",)).to_json()
{'template_args': ['enable_thinking=false']}
>>> completion_text(trace="2+2=4.", answer="4")
'2+2=4.\\n</think>\\n\\n\\\\boxed{4}'
"""

from mathlete.prompts.format import PromptFormat, completion_text
from mathlete.prompts.settings import INSTRUCTION, PROMPT_FILE, PromptSettings, SavedPrompt

__all__ = ["INSTRUCTION", "PROMPT_FILE", "PromptFormat", "PromptSettings", "SavedPrompt", "completion_text"]
