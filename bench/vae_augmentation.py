"""Do examples of a model trained on a few labelled digits help a classifier? Accuracy gained, in points, over seeds.

    python -m bench.vae_augmentation --labels 200 --seeds 5 --regularizers sliced,kl --out augmentation.jsonl

For each seed 200 labelled digits train a class-conditional model with its defaults, which makes as many new ones;
logistic regression, a random forest and an RBF SVM are trained with and without them and read the other digits.
`jitter` adds noise of a tenth to copies, and is what a model has to beat.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otdist_vae import WVAE, data


def classifiers(seed: int) -> dict[str, Any]:
    """The three that learn from the examples."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    return {
        "logistic": LogisticRegression(max_iter=2000),
        "forest": RandomForestClassifier(200, random_state=seed),
        "svc": SVC(),
    }


def accuracies(x: np.ndarray, y: np.ndarray, held: np.ndarray, held_y: np.ndarray, seed: int) -> dict[str, float]:
    """Per cent of the held-out examples that each classifier reads."""
    flat, held = x.reshape(len(x), -1), held.reshape(len(held), -1)
    return {name: 100 * float(c.fit(flat, y).score(held, held_y)) for name, c in classifiers(seed).items()}


def one(regularizer: str, n: int, seed: int) -> dict[str, Any]:
    """Points gained by each method and classifier."""
    digits = data.digits()
    assert digits.y is not None
    order = np.random.default_rng(seed).permutation(len(digits.x))
    few, rest = order[:n], order[n:]
    x, y, held, held_y = digits.x[few], digits.y[few], digits.x[rest], digits.y[rest]
    start = time.process_time()
    model = WVAE(8, regularizer, random_state=seed).fit(x, y, validation=None, progress=False)
    row: dict[str, Any] = {
        "regularizer": regularizer,
        "labels": n,
        "seed": seed,
        "steps": model.report["steps"],
        "seconds": round(time.process_time() - start, 1),
        "sampler": str(model.sampler_choice),
    }
    base = accuracies(x, y, held, held_y, seed)
    row["base"] = base
    noise = 0.1 * np.random.default_rng(seed).normal(size=x.shape)
    made = {method: model.augment(x, y, method=method) for method in ("prior", "posterior", "interpolation")}
    made["jitter"] = (np.clip(x + noise, 0, 1), y)
    for method, (more, labels) in made.items():
        both = np.concatenate([x, more]), np.concatenate([y, labels])
        found = accuracies(*both, held, held_y, seed)
        row[method] = {name: found[name] - base[name] for name in base}
    return row


def main() -> None:
    """Run what is asked, a line of JSON for each model, and print the means with their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--regularizers", default="sliced,kl,w2")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for regularizer in arguments.regularizers.split(","):
        rows = [one(regularizer, arguments.labels, seed) for seed in range(arguments.seeds)]
        with arguments.out.open("a", encoding="utf-8") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)
        for method in ("prior", "posterior", "interpolation", "jitter"):
            for name in rows[0]["base"]:
                gains = np.array([row[method][name] for row in rows])
                error = gains.std(ddof=1) / len(gains) ** 0.5
                print(f"{regularizer} {method} {name}: {gains.mean():+.2f} ± {error:.2f} points", flush=True)


if __name__ == "__main__":
    main()
