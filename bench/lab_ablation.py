"""What makes a tiny model learn to look neighbours up: the recipe, and the recipe with one part taken out.

    python bench/lab_ablation.py [TOKENS [VARIANT ...]]     # default 2 500 000 tokens each, five minutes on a core

Prints token accuracies by what the token decides, on G15_2,4 with the gold prefix given, and saves
bench/results/lab_ablation.json. One seed a variant: read large differences only.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from wrongturn.lab.data import Recipe
from wrongturn.lab.train import TrainConfig, exact_trace, train

ROLES = ("neighbour", "separator", "node", "close", "back", "path")


def main() -> None:
    torch.set_num_threads(1)
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 2_500_000
    whole = TrainConfig(tokens=tokens)
    variants = {
        "the recipe": whole,
        "AdamW instead of Muon": replace(whole, optimizer="adamw"),
        "no look-back heads": replace(whole, look_back=()),
        "no listing drill": replace(whole, recipe=Recipe(listing=0.0, listing_end=0.0)),
        "full-size graphs from the start": replace(whole, recipe=Recipe(growth=0.0)),
        "labels weighted like punctuation": replace(whole, recipe=Recipe(label_weight=1.0)),
    }
    variants = {name: variants[name] for name in sys.argv[2:] or variants}
    print(f"{tokens:,} tokens each\n{'':34}" + "".join(f"{role:>11}" for role in ROLES))
    results = {}
    for name, config in variants.items():
        with tempfile.TemporaryDirectory() as folder:
            model = train(config, Path(folder), evaluate_every=10**9)
        results[name] = exact_trace(model, "G15_2,4")
        print(f"{name:34}" + "".join(f"{results[name][role]:>11.3f}" for role in ROLES), flush=True)
    out = Path(__file__).parent / "results" / "lab_ablation.json"
    out.write_text(json.dumps({"tokens": tokens, "accuracy": results}, indent=1))


if __name__ == "__main__":
    main()
