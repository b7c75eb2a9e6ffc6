"""Training tokens a second against transformers.Trainer: same shape, same data, one thread, CPU seconds, alternating.

    python bench/lab_training.py [steps] [rounds]

Both sides get the same examples of a training's end (15 nodes, all kinds). Ours makes batches of similar length
of them, as a training does, and runs with AdamW, as the Trainer does, and with its default, Muon. The Trainer draws
batches at random and pads them, as it does unless told otherwise; and once more it is handed our batches. Tokens are
counted without padding; compilation is not timed. Writes bench/results/lab_training.json.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers

from wrongturn.lab.data import batches
from wrongturn.lab.export import llama_config
from wrongturn.lab.graph_examples import GraphRecipe
from wrongturn.lab.model import ModelConfig, Reasoner
from wrongturn.lab.train import TrainConfig, optimizers, trace_loss, update

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 16
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
Batch = tuple[torch.Tensor, torch.Tensor]


def ours(made: list[Batch], optimizer: str, compiled: bool = False) -> Callable[[], float]:
    config = TrainConfig(optimizer=optimizer)
    model = Reasoner(config.model)
    model.look_back(config.look_back)
    optims = optimizers(config, model)
    forward = torch.compile(model, dynamic=True) if compiled else model

    def work() -> float:
        begun = time.process_time()
        for ids, weights in made:
            trace_loss(forward, ids, weights).backward()
            update(optims, model, config, config.lr, "")
        return time.process_time() - begun

    return work


def padded(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Rows of one batch, padded on the right to the longest."""
    fill = {"input_ids": 0, "labels": -100}
    pad = torch.nn.utils.rnn.pad_sequence
    return {k: pad([row[k] for row in rows], batch_first=True, padding_value=v) for k, v in fill.items()}


def trainer(made: list[Batch], own_batches: bool) -> float:
    shape = {
        k: v for k, v in llama_config(ModelConfig()).items() if k not in ("architectures", "model_type", "torch_dtype")
    }
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    rows = [{"input_ids": ids, "labels": ids.masked_fill(weights == 0, -100)} for ids, weights in made]
    if own_batches:
        lengths = [int((ids != 0).sum()) for batch in rows for ids in batch["input_ids"]]
        pairs = ((i, lab) for batch in rows for i, lab in zip(batch["input_ids"], batch["labels"], strict=True))
        rows = [{"input_ids": i[:n], "labels": lab[:n]} for (i, lab), n in zip(pairs, lengths, strict=True)]
    with tempfile.TemporaryDirectory() as out:
        settings = transformers.TrainingArguments(
            out,
            per_device_train_batch_size=GraphRecipe().batch if own_batches else 1,
            max_steps=len(made),
            learning_rate=2e-3,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        collate = padded if own_batches else lambda batch: batch[0]
        loop = transformers.Trainer(model, settings, train_dataset=rows, data_collator=collate)  # type: ignore[arg-type]
        begun = time.process_time()
        loop.train()
        return time.process_time() - begun


def main() -> None:
    torch.set_num_threads(1)
    stream = (b for group in range(-(-STEPS // 16)) for b in batches(GraphRecipe(), 0, 16 * group, 1.0))
    made = [(torch.from_numpy(ids), torch.from_numpy(weights)) for ids, weights in stream][:STEPS]
    tokens = sum(int((ids != 0).sum()) for ids, _ in made)
    sides = {"ours, muon": ours(made, "muon"), "ours, adamw": ours(made, "adamw")}
    sides["ours, muon, compiled"] = ours(made, "muon", compiled=True)
    sides["Trainer"] = lambda: trainer(made, True)
    sides["Trainer, our batches"] = lambda: trainer(made, False)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        work()  # warm-up
    for _ in range(ROUNDS):
        for name, work in sides.items():
            seconds[name].append(work())
    rates = {name: tokens / statistics.median(s) for name, s in seconds.items()}
    base = seconds["Trainer"]
    ratios = {n: statistics.median(b / a for a, b in zip(s, base, strict=True)) for n, s in seconds.items()}
    facts = {"tokens_per_cpu_second": rates, "times_the_trainer": ratios, "seconds": seconds, "tokens": tokens}
    facts |= {"steps": STEPS, "rounds": ROUNDS}
    facts |= {"torch": torch.__version__, "transformers": transformers.__version__}
    Path(__file__).with_name("results").joinpath("lab_training.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps({k: v for k, v in facts.items() if k != "seconds"}, indent=1))


if __name__ == "__main__":
    main()
