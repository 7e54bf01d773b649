"""The comparison as one HTML file that needs nothing else: tables, and pictures inside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

from .results import Results
from .tables import Table, all_tables, method, verdict

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 72rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; }
p { max-width: 46rem; margin: .4rem 0; } li { max-width: 46rem; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 4px; }
.long { max-height: 34rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
thead th { border-bottom: 1px solid var(--line); position: sticky; top: 0; background: Canvas; }
tbody tr:nth-child(even) td:not(:first-child) { background: var(--soft); }
figure { margin: 1rem 0; } figcaption { font-size: .84rem; }
img { width: 100%; min-width: 36rem; max-width: 60rem; height: auto; background: white; }
"""
CAPTIONS = {
    "comparison.png": "Data, and samples of the first seed's models, with where their codes come from.",
    "comparison-differences.png": "Paired differences with their 95% intervals; left of 0 is better.",
    "comparison-augmentation.png": (
        "Points of accuracy gained by additional examples, with standard errors over the seeds; models by "
        "method posterior, simple ways dotted."
    ),
}
LONG = 20  # rows that fit without a scroll of their own


def page(results: Results, pictures: Mapping[str, bytes], command: str) -> str:
    """The whole file."""
    protocol = results.protocol
    data = protocol.config["data"].rsplit("/", 1)[-1]
    title = f"Regularizers compared on {data}"
    words = "".join(f"<li>{escape(line)}</li>" for line in verdict(results))
    made = f"<p>Made by <code>{escape(command)}</code></p>" if command else ""
    body = [f"<h1>{escape(title)}</h1><ul>{words}</ul><p>{escape(method(results))}</p>{made}"]
    body += [_figure(name, content) for name, content in pictures.items()]
    body += [_table(table) for table in all_tables(results)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>" + "\n".join(body) + "\n</body></html>\n"
    )


def _figure(name: str, content: bytes) -> str:
    source = base64.b64encode(content).decode()
    caption = escape(CAPTIONS[name])
    image = f'<div class="wide" tabindex="0"><img alt="{caption}" src="data:image/png;base64,{source}"></div>'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in table.headings)
    rows = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in table.rows)
    kind = "wide long" if len(table.rows) > LONG else "wide"
    return (
        f"<h2>{escape(table.title)}</h2><p>{escape(table.note)}</p>"
        f'<div class="{kind}" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
