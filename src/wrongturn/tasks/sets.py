"""The tasks and benchmark sets that are ready to use: prompts, extractors, graders, and where the rows are. Data."""

from __future__ import annotations

from dataclasses import dataclass

from wrongturn.tasks import code, extract, graders, maths
from wrongturn.tasks.rows import Reader, gpqa, live_code_bench, options, tested, worked
from wrongturn.tasks.text import TextTask

STATE_NUMBER = "{prompt}\n\nThink it through step by step. End with a line of the form\nFinal answer: <number>"
STATE_TEXT = "{prompt}\n\nEnd with a line of the form\nFinal answer: <answer>"
STATE_LETTER = (
    "{prompt}\n\nThink it through step by step. End with a line of the form\nFinal answer: <letter of the right choice>"
)
BOX = "{prompt}\n\nThink it through step by step and put the final answer, and nothing else, in \\boxed{}."
BOX_INTEGER = (
    "{prompt}\n\nThe answer is an integer from 0 to 999. Think it through step by step and put it in \\boxed{}."
)
PROGRAM = "{prompt}\n\nGive the complete Python 3 program in one block that begins with ```python and ends with ```."

TASKS: dict[str, TextTask] = {
    task.name: task
    for task in (
        TextTask("exact", graders.exact, extract.short, STATE_TEXT),
        TextTask("numeric", graders.numeric, extract.number, STATE_NUMBER),
        TextTask("choice", graders.choice, extract.choice, STATE_LETTER),
        TextTask("math", maths.grade, extract.maths, BOX, slow=True, needs=maths.needs),
        TextTask("code", code.grade, extract.program, PROGRAM, slow=True, needs=code.needs),
        TextTask("gsm8k", graders.numeric, extract.number, STATE_NUMBER),
        TextTask("math500", maths.grade, extract.maths, BOX, slow=True, needs=maths.needs),
        TextTask("aime", graders.numeric, extract.number, BOX_INTEGER),
        TextTask("gpqa", graders.choice, extract.choice, STATE_LETTER),
        TextTask("ar_lsat", graders.choice, extract.choice, STATE_LETTER),
        TextTask("livecodebench", code.grade, extract.program, PROGRAM, slow=True, needs=code.needs),
    )
}


@dataclass(frozen=True, slots=True)
class Set:
    """How the rows of a task are read: where a published set has them (None: only in the user's files), which fields
    mean what, and ``read``, which turns a row into prompt and reference where naming fields is not enough.
    """

    source: str | None = None
    id: str | None = None
    group: str | None = None
    read: Reader | None = None


SETS: dict[str, Set] = {
    "numeric": Set(read=worked),
    "math": Set(read=worked),
    "choice": Set(read=options),
    "code": Set(read=tested),
    "gsm8k": Set("hf:openai/gsm8k/main@test", read=worked),
    "math500": Set("hf:HuggingFaceH4/MATH-500@test", id="unique_id", group="level"),
    "aime": Set("hf:math-ai/aime25@test"),
    "gpqa": Set("hf:Idavidrein/gpqa/gpqa_diamond@train", id="Record ID", group="High-level domain", read=gpqa),
    "ar_lsat": Set("hf:olegbask/AR-LSAT@test", read=options),
    "livecodebench": Set(
        "hf:lighteval/code_generation_lite/v6@test", id="question_id", group="difficulty", read=live_code_bench
    ),
}
