"""Is each regularizer's default weight near the best one? Train over a grid of weights on several data sets.

    python -m bench.vae_weights --data digits,fashion,cancer,wine --out weights.jsonl

Every run is one line of JSON: held-out reconstruction, the codes' variance, and the Fréchet distance (in units of the
data's variance) of samples from the prior, a fitted Gaussian and a fitted mixture, on validation and on test data.
Lines already in the file are not computed again. Fashion-MNIST is read from Debian's package dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otdist import gaussian
from otdist_vae import WVAE, data, features, regularizers

FASHION = "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"
GRID = (0.1, 0.3, 1.0, 3.0, 10.0)
N_FASHION = 6000


def load(name: str) -> data.Examples:
    """One of the four data sets by name."""
    from sklearn import datasets

    if name == "digits":
        return data.digits()
    if name == "fashion":
        examples = data.load(FASHION)
        return data.Examples(examples.x[:N_FASHION], None if examples.y is None else examples.y[:N_FASHION])
    bunch = {"cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name]()
    return data.Examples(bunch.data.astype(np.float32), bunch.target)


def parts(examples: data.Examples, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training (60%), validation (20%) and test part (20%), each (x, y)."""
    order = np.random.default_rng(seed).permutation(len(examples.x))
    cuts = [int(0.6 * len(order)), int(0.8 * len(order))]
    assert examples.y is not None
    return [(examples.x[i], examples.y[i]) for i in np.split(order, cuts)]


def distance(held: np.ndarray, made: np.ndarray) -> float:
    """Fréchet distance over the total variance of the real ones."""
    return float(gaussian.w2_squared_from_samples(held, made)) / float(held.var(0).sum())


def one(name: str, regularizer: str, factor: float, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Train and measure one model, its weight `factor` times the default."""
    train, validation, test = parts(load(name), seed)
    latent = 8 if name in ("digits", "fashion") else 4
    weight = factor * regularizers.CHOICES[regularizer]().default_weight(latent)
    model = WVAE(latent, regularizer, weight, random_state=seed, **options.get("model", {}))
    start = time.process_time()
    model.fit(train[0], validation=validation[0], progress=False, **options.get("fit", {}))
    seconds = time.process_time() - start
    space = features.make("pca" if train[0].ndim == 2 else "classifier", *train, random_state=seed)
    means = np.asarray(model.encode(train[0]))
    network = model.fitted_network()
    with torch.no_grad():
        posterior = network.posterior(network.scaled(torch.from_numpy(train[0])), None)
    spread = posterior.variance.mean(0).numpy()
    units = means.var(0) + spread
    row: dict[str, Any] = {
        "data": name,
        "regularizer": regularizer,
        "factor": factor,
        "weight": weight,
        "seed": seed,
        "options": json.dumps(options, sort_keys=True),
        "steps": model.report["steps"],
        "seconds": round(seconds, 1),
        "scale": network.likelihood.deviation(),
        "variance": float(units.mean()),
        "smallest variance": float(units.min()),
        "posterior deviation": float(posterior.variance.sqrt().mean()),
        "auto": model.default_sampler,
    }
    for part, (x, _) in (("val", validation), ("test", test)):
        real = space(x)
        rebuilt = np.asarray(model.reconstruct(x))
        error = ((x.astype(float) - rebuilt) ** 2).sum() / ((x - x.mean(0, dtype=float)) ** 2).sum()
        row[f"{part} unexplained"] = float(error)
        row[f"{part} floor"] = distance(real, space(train[0][: len(x)]))
        for sampler in ("prior", "gaussian", "mixture"):
            drawn = space(np.asarray(model.sample(2000, sampler=sampler, random_state=1)))
            row[f"{part} {sampler}"] = distance(real, drawn)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The default weights' runs as Markdown, each beside the best of its grid, chosen on the validation part."""
    heads = [
        "data",
        "regularizer",
        "codes' variance",
        "expected",
        "unexplained",
        "prior",
        "Gaussian",
        "mixture",
        "auto",
    ]
    lines = ["| " + " | ".join([*heads, "best of grid"]) + " |", "|---" * (len(heads) + 1) + "|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["regularizer"]), []).append(row)
    for (name, regularizer), group in sorted(groups.items()):
        kind = regularizers.CHOICES[regularizer]()
        latent = 8 if name in ("digits", "fashion") else 4
        default = kind.default_weight(latent)
        mine = [row for row in group if abs(row["weight"] / default - 1) < 1e-6]
        if not mine:
            continue
        row = mine[0]
        best = min(group, key=lambda r: r[f"val {r['auto']}"])
        batch = min(128, len(parts(load(name), 0)[0][0]))
        expected = kind.expected_variance(row["posterior deviation"], latent, batch)
        cells = [f"{row['variance']:.2f}", "—" if expected is None else f"{expected:.2f}"]
        cells += [f"{row[key]:.3f}" for key in ("test unexplained", "test prior", "test gaussian", "test mixture")]
        cells += [f"{row['test ' + row['auto']]:.3f} ({row['auto']})"]
        tried = len({r["weight"] for r in group})
        cells += [f"{best['test ' + best['auto']]:.3f} at {best['weight'] / default:.2g}x of {tried}"]
        lines.append(f"| {name} | {regularizer} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked and not yet in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits,cancer,wine,fashion")
    parser.add_argument("--regularizers", default=",".join(n for n in regularizers.CHOICES if n != "nothing"))
    parser.add_argument("--factors", default=",".join(map(str, GRID)))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--options", default="{}", help='JSON, e.g. {"fit": {"max_epochs": 20}}')
    parser.add_argument("--table", action="store_true", help="print what is in the file, as Markdown, and run nothing")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.table:
        print(table([json.loads(line) for line in arguments.out.read_text("utf-8").splitlines()]))
        return
    options = json.loads(arguments.options)
    lines = arguments.out.read_text("utf-8").splitlines() if arguments.out.exists() else []
    done = {tuple(json.loads(line)[k] for k in ("data", "regularizer", "factor", "seed", "options")) for line in lines}
    for seed in range(arguments.seeds):
        for name in arguments.data.split(","):
            for regularizer in arguments.regularizers.split(","):
                for factor in map(float, arguments.factors.split(",")):
                    key = (name, regularizer, factor, seed, json.dumps(options, sort_keys=True))
                    if key in done:
                        continue
                    row = one(name, regularizer, factor, seed, options)
                    with arguments.out.open("a", encoding="utf-8") as f:
                        f.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
