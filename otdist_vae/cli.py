"""otdist-vae: train, sample, and look at what came out. Bad input ends with one line and exit status 2."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import click

EXIT_BAD_INPUT = 2
# what the library raises for what a user can mend; anything else is a fault of ours, and its traceback is wanted
BAD_INPUT = (ValueError, TypeError, OSError, ArithmeticError, MemoryError, RecursionError)
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class Setting(click.Option):
    """An option that sets a setting; its choices and default are read off the library when help is asked for."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None:
            return None
        from . import settings

        names, text = record
        choices, default = settings.CHOICES.get(str(self.name)), settings.default(str(self.name))
        of = f" One of {', '.join(choices)}." if choices else ""
        return names, f"{text}{of}" + ("" if default is None else f"  [default: {default}]")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="otdist")
def cli() -> None:
    """Wasserstein variational auto-encoders.

    \b
    Example:
      otdist-vae train --data digits --regularizer w2 --out RUN
      otdist-vae sample RUN -n 100 --out samples.npz
    """


@cli.command()
@click.option("--data", help="'digits', or a file or folder of examples.")
@click.option("--regularizer", cls=Setting, help="What pulls the codes towards the prior.")
@click.option(
    "--weight", cls=Setting, type=float, help="Factor of the penalty; the regularizer's own default if not given."
)
@click.option("--latent-dim", cls=Setting, type=int, help="Dimension of the codes.")
@click.option("--posterior", cls=Setting, help="What suits the regularizer if not given.")
@click.option("--prior", cls=Setting, help="What codes should look like.")
@click.option("--encoder", cls=Setting, help="The decoder is its mirror.")
@click.option("--likelihood", cls=Setting, help="How data scatter about the decoder's output.")
@click.option("--schedule", cls=Setting, help="How the weight moves.")
@click.option(
    "--conditional/--unconditional", cls=Setting, default=None, help="Use the data's labels as classes, or not."
)
@click.option("--max-epochs", cls=Setting, type=int, help="Passes over the data.")
@click.option("--batch-size", cls=Setting, type=int, help="Examples per step.")
@click.option("--learning-rate", cls=Setting, type=float, help="Of Adam.")
@click.option("--validation", cls=Setting, type=float, help="Fraction held out.")
@click.option("--early-stopping", cls=Setting, type=int, help="Epochs without improvement before stopping.")
@click.option("--seed", cls=Setting, type=int, help="Of everything random.")
@click.option("--limit", type=int, help="Use so many examples, drawn by the seed; all of them if not given.")
@click.option("--warm-start", type=click.Path(), help="Run whose weights and scaling to start from.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML with any of the settings; options given win.")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. regularizer.directions=32."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--resume", type=click.Choice(["auto"]), help="Go on from the run's last checkpoint, if there is one.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is already in the folder.")
def train(
    config: Path | None, changes: tuple[str, ...], out: Path, resume: str | None, overwrite: bool, **given: Any
) -> int:
    """Train a model and leave it in a folder with pictures, curves, a table of metrics and its configuration.

    \b
    Example:
      otdist-vae train --data digits --regularizer sliced --max-epochs 50 --seed 0 --out RUN
      otdist-vae train --out RUN --resume auto
    """
    from . import runs, settings

    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other")
    if resume and given["warm_start"] is not None:
        raise click.UsageError("--warm-start begins a new run; --resume goes on with one")
    former = runs.config_of(out)
    source = config or (former if resume and former.is_file() else None)
    whole = settings.read_config(_existing(source)) if source else {}
    whole |= {key: value for key, value in given.items() if value is not None}
    for change in changes:
        _set(whole, change)
    if not resume and not overwrite and runs.occupied(out) and runs.is_first_process():
        raise click.UsageError(f"{out} is not empty; add --overwrite to replace the run in it, or --resume auto")
    try:
        model = runs.train(whole, out, resume=bool(resume), overwrite=overwrite)
    except KeyboardInterrupt as stop:
        return _interrupted(stop)
    if not runs.is_first_process():
        return 0
    effective = model.effective_weight()
    against = "" if effective is None else f" ({effective:.4g} against the summed squared error)"
    click.echo(f"regularizer {runs.penalty_name(model)}, weight {model.weight:.4g}{against}")
    click.echo((out / runs.TABLE).read_text("utf-8"), nl=False)
    click.echo(f"left in {out}: {', '.join(runs.PICTURES)}, {runs.TABLE}, {runs.CONFIG} and the model")
    return 0


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


def _set(config: dict[str, Any], setting: str) -> None:
    """One KEY=VALUE into the configuration; a dot reaches into a component."""
    from . import settings

    key, equals, text = setting.partition("=")
    if not equals:
        raise click.UsageError(f"--set takes KEY=VALUE; got {setting!r}")
    name, _, inner = key.partition(".")
    settings.check_keys({name: None}, "--set")
    value = settings.parse(text, f"--set {key}")
    if not inner:
        config[name] = value
        return
    component = config.get(name, settings.DEFAULTS.get(name))
    component = dict(component) if isinstance(component, dict) else {"name": component}
    if not isinstance(component.get("name"), str):
        raise click.UsageError(f"--set {key} needs {name} to be named")
    config[name] = {**component, inner: value}


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-n", "--number", default=100, show_default=True, help="How many.")
@click.option("--class", "label", help="Class of all of them, for a class-conditional model.")
@click.option("--sampler", help="auto, prior, gaussian or mixture.")
@click.option("--seed", type=int, help="Of the draw; the model's own if not given.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .npz (x, and y with classes) or .png.")
def sample(run: Path, number: int, label: str | None, sampler: str | None, seed: int | None, out: Path) -> None:
    """Draw new examples from a trained model.

    \b
    Example:
      otdist-vae sample RUN -n 100 --out samples.npz
    """
    import numpy as np

    from . import memory, samplers
    from .model import WVAE

    out = _writable(out)
    model = WVAE.load(run)
    if label is not None and model.classes is None:
        raise click.UsageError(f"{run} is not class-conditional; --class does not apply")
    memory.require(4 * number * model.n_features, f"{number} examples")
    y = None
    if model.classes is not None:
        y = np.resize(model.classes, number) if label is None else np.full(number, _class(model, label))
    x = np.asarray(model.sample(number, y, sampler=sampler, random_state=seed))
    write_examples(out, x, y)
    where = samplers.DENSITIES[model.sampler_name(sampler)]
    click.echo(f"{number} examples of shape {x.shape[1:]}, codes from the {where}, in {out}")


def _class(model: Any, label: str) -> Any:
    for known in model.classes:
        if str(known) == label:
            return known
    raise click.UsageError(f"--class must be one of {', '.join(map(str, model.classes))}; got {label!r}")


def _writable(path: Path, *endings: str) -> Path:
    """The path, if it can be written to and has an ending that is meant; asked before the work is done."""
    endings = endings or (".npz", ".png")
    if path.suffix.lower() not in endings:
        raise click.UsageError(f"--out must end in {' or '.join(endings)}; got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OSError(f"cannot write to {path}")
    return path


def write_examples(path: Path, x: Any, y: Any) -> None:
    """Examples as .npz, or a picture of them as .png; whole or not at all."""
    import numpy as np

    from . import _storage, plots

    if path.suffix.lower() == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, x=x, **({} if y is None else {"y": y}))
        _storage.write_atomically(path, buffer.getvalue())
        return
    if not plots.is_image(x.shape[1:]):
        raise click.UsageError(f"examples of shape {x.shape[1:]} are no images; write a .npz")
    if not len(x):
        raise click.UsageError("a picture needs at least one example")
    plots.save(plots.images(x), path)


RUN = click.argument("run", type=click.Path(path_type=Path))
DATA = click.option("--data", help="Other data than the run's own: 'digits', a file or a folder.")


@cli.command()
@RUN
@DATA
@click.option(
    "--out", type=click.Path(path_type=Path), help="A .npz of all of them, or a .png of some beside originals."
)
def reconstruct(run: Path, data: str | None, out: Path | None) -> None:
    """Encode and decode held-out examples, and say how far off they are.

    \b
    Example:
      otdist-vae reconstruct RUN --out rebuilt.npz
    """
    import numpy as np

    from . import plots, runs

    out = None if out is None else _writable(out)
    loaded = runs.read(run, data)
    x, y = loaded.part(loaded.held)
    rebuilt = np.asarray(loaded.model.reconstruct(x, y))
    error, share = runs.reconstruction_error(x, rebuilt)
    relative = "" if share is None else f", {share:.4g} of the variance"
    click.echo(f"squared error of {len(x)} examples: root mean {error:.6g} in the data's units{relative}")
    if out is not None and out.suffix.lower() == ".png" and plots.is_image(x.shape[1:]):
        plots.save(plots.pairs(x[:50], rebuilt[:50]), out)
    elif out is not None:
        write_examples(out, rebuilt, y)


@cli.command()
@RUN
@DATA
@click.option("--ratio", default=1.0, show_default=True, help="New examples per given one.")
@click.option("--method", default="posterior", show_default=True, help="posterior, interpolation or prior.")
@click.option("--sampler", help="auto, prior, gaussian or mixture, for method prior.")
@click.option("--seed", type=int, help="Of the draw; the model's own if not given.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .npz of new examples: x, and y.")
def augment(
    run: Path, data: str | None, ratio: float, method: str, sampler: str | None, seed: int | None, out: Path
) -> None:
    """New examples for a data set, class by class, in the proportions of the given ones.

    \b
    Example:
      otdist-vae train --data labelled.npz --conditional --regularizer sliced --out RUN
      otdist-vae augment RUN --data labelled.npz --ratio 1 --out more.npz
    """
    from . import memory, runs, samplers

    out = _writable(out)
    loaded = runs.read(run, data)
    index = loaded.held if data is not None else loaded.kept
    x, labels = loaded.examples.x[index], None if loaded.examples.y is None else loaded.examples.y[index]
    memory.require(int(4 * max(ratio, 0) * len(x) * loaded.model.n_features), f"ratio {ratio:g}")
    carries = loaded.model.classes is not None or method != "prior"
    x_new, y_new = loaded.model.augment(
        x, labels if carries else None, ratio=ratio, method=method, sampler=sampler, random_state=seed
    )
    write_examples(out, x_new, y_new)
    where = f", codes from the {samplers.DENSITIES[loaded.model.sampler_name(sampler)]}," if method == "prior" else ""
    click.echo(f"{len(x_new)} examples of shape {x_new.shape[1:]}{where} in {out}")


@cli.command()
@RUN
@DATA
@click.option("--sampler", help="auto, prior, gaussian or mixture; the run's own if not given.")
@click.option(
    "--features", help="Where samples are compared: pixels, pca or classifier; the last if there are labels, else pca."
)
def evaluate(run: Path, data: str | None, sampler: str | None, features: str | None) -> None:
    """Metrics of held-out data beside the real-against-real floor; evaluation.json, .md and .png in the run.

    \b
    Example:
      otdist-vae evaluate RUN
      otdist-vae evaluate RUN --features pixels
    """
    from . import runs

    _publish(runs.evaluate(run, data, sampler, features), run)


@cli.command()
@RUN
def doctor(run: Path) -> None:
    """Say in words what is wrong with a trained model, and what to try; doctor.md in the run.

    \b
    Example:
      otdist-vae doctor RUN
    """
    from . import runs

    _publish(runs.doctor(run), run)


@cli.command("report")
@RUN
@click.option("--out", type=click.Path(path_type=Path), help="The .html; report.html in the run if not given.")
def report_page(run: Path, out: Path | None) -> None:
    """One HTML page of a run that opens without a network: pictures, a latent walk, curves, metrics, the doctor.

    \b
    Example:
      otdist-vae report RUN
      otdist-vae report RUN --out page.html
    """
    from . import _storage, report

    path = run / report.PAGE if out is None else out
    if out is not None or run.is_dir():
        _writable(path, ".html")
    content = report.page(run)
    _storage.write_atomically(path, content)
    click.echo(f"{len(content) / 1e6:.2f} MB in {path}")


def _publish(report: Any, run: Path) -> None:
    """Say it first: a run that cannot be written to can still be looked at."""
    click.echo(report.text, nl=False)
    report.write(run)


GRID = "0.1,0.3,1,3,10"


@cli.command()
@click.option("--data", help="'digits' if not given, or a file or folder of examples.")
@click.option("--regularizers", help="Names with commas between, the first the one tested against; all if not given.")
@click.option("--seeds", type=int, help="Runs of each, paired by seed.  [default: 10]")
@click.option(
    "--tune", is_flag=False, flag_value=GRID, help=f"Choose each weight on validation data; factors of it or {GRID}."
)
@click.option("--labels", help="Numbers of labels to augment, or none; 50,200,1000 where the data have them.")
@click.option("--augment", help="Regularizers whose models make additional examples, or none; all if not given.")
@click.option("--jobs", default=1, show_default=True, help="Processes; the numbers do not depend on them.")
@click.option("--max-epochs", cls=Setting, type=int, help="Passes over the data.")
@click.option("--latent-dim", cls=Setting, type=int, help="Dimension of the codes.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Any setting of train, for all of them.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for tables, pictures and models.")
@click.option("--resume", type=click.Choice(["auto"]), help="Go on with the comparison begun in the folder, if any.")
@click.option("--overwrite", is_flag=True, help="Replace a comparison that is already in the folder.")
def compare(out: Path, jobs: int, changes: tuple[str, ...], resume: str | None, overwrite: bool, **given: Any) -> int:
    """Train one model with each regularizer, several seeds each, and compare them on held-out data.

    Leaves comparison.html, a page that needs nothing else, and the same as .md, .csv, .json and pictures; the models
    too. Whatever stops it, --resume auto goes on from the last finished piece; so does a call that asks for more seeds,
    regularizers or labels. A piece that fails is reported, and left out with what it would be paired with.

    \b
    Example:
      otdist-vae compare --data digits --regularizers kl,w2,sliced --seeds 5 --out COMPARISON
      otdist-vae compare --data digits --tune --jobs 2 --out COMPARISON
      otdist-vae compare --out COMPARISON --resume auto
    """
    from . import comparison, runs

    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other")
    config = {key: given[key] for key in ("data", "max_epochs", "latent_dim") if given[key] is not None}
    for change in changes:
        _set(config, change)
    if not (resume or overwrite) and runs.occupied(out):
        raise click.UsageError(
            f"{out} is not empty; add --overwrite to replace the comparison in it, or --resume auto to go on with one"
        )
    if resume and runs.occupied(out) and not comparison.begun(out):
        raise FileNotFoundError(f"{out} holds no comparison to go on with")

    def say(line: str) -> None:
        click.echo(line, err=True)

    try:
        text = comparison.run(_asked(given), config, out, resume=bool(resume), jobs=jobs, progress=say)
    except KeyboardInterrupt as stop:
        return _interrupted(stop)
    click.echo(text, nl=False)
    click.echo(f"left in {out}: {', '.join(comparison.TEXTS)}, pictures and models")
    return 0


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """What the command line says of a comparison's protocol."""
    asked: dict[str, Any] = {} if given["seeds"] is None else {"seeds": given["seeds"]}
    for option, name in (("regularizers", "names"), ("augment", "augmented")):
        if given[option] is not None:
            asked[name] = [] if given[option] == "none" else [part.strip() for part in given[option].split(",")]
    for option, name, kind in (("tune", "factors", float), ("labels", "labels", int)):
        text = given[option]
        if text is not None:
            asked[name] = [] if text == "none" else _numbers(option, text, kind)
    return asked


def _numbers(option: str, text: str, kind: Any) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--{option} takes numbers with commas between, or none; got {text!r}") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        result = cli.main(arguments, prog_name="otdist-vae", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
    except click.ClickException as error:
        _complain(error.format_message())
    except (click.Abort, KeyboardInterrupt) as stop:
        return _interrupted(stop)
    except BAD_INPUT as error:
        _complain(str(error) or type(error).__name__)
    return EXIT_BAD_INPUT


def _interrupted(stop: BaseException) -> int:
    checkpoint = getattr(stop, "checkpoint", None)
    where = f"go on from {checkpoint} with --resume auto" if checkpoint else "no checkpoint was written yet"
    where = getattr(stop, "advice", where)
    click.echo(f"otdist-vae: interrupted; {where}", err=True)
    return EXIT_INTERRUPTED


def _complain(message: str) -> None:
    click.echo(f"otdist-vae: {' '.join(message.split())}", err=True)
