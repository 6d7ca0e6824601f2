"""The page of all studies: it holds all it shows, and fetches and runs nothing."""

import base64
import html

_STYLE = """
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 24px 32px 64px; max-width: 1120px; background: #fff; color: #1c2024;
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif;
}
h1 { font-size: 26px; margin: 8px 0 2px; }
h2 { font-size: 19px; margin: 40px 0 4px; padding-top: 12px; border-top: 1px solid #dde1e6; }
p { margin: 4px 0 10px; }
.faint { color: #667; font-size: 13px; }
img { display: block; width: 100%; height: auto; }
.found { padding: 8px 14px; background: #f5f7f9; border-left: 4px solid #0072b2; border-radius: 3px; }
.found.not { border-color: #d55e00; }
table { border-collapse: collapse; margin: 14px 0; }
td { padding: 2px 16px 2px 0; vertical-align: top; }
td:last-child { white-space: nowrap; }
a { color: #0072b2; }
"""


def page(records):
    """The HTML of a page.

    Parameters
    ----------
    records : list of (record, picture)
        A record is a dict of name, claim, source, seed, seen and sentence; a picture the bytes of a PNG file.
    """
    rows = "".join(_row(record) for record, _ in records)
    sections = "".join(_section(record, picture) for record, picture in records)
    seen = sum(record["seen"] for record, _ in records)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Claims of the field</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Claims of the field</h1><p>{seen} of {len(records)} claims were seen in small experiments.</p>\n"
        f"<table>{rows}</table>\n{sections}</body></html>\n"
    )


def _row(record):
    name, verdict = record["name"], "seen" if record["seen"] else "not seen here"
    return f'<tr><td><a href="#{name}">{name}</a></td><td>{html.escape(record["claim"])}</td><td>{verdict}</td></tr>'


def _section(record, picture):
    name, claim, sentence = record["name"], html.escape(record["claim"]), html.escape(record["sentence"])
    data = base64.b64encode(picture).decode()
    return (
        f'<section><h2 id="{name}">{claim}</h2>\n'
        f'<p class="faint">{html.escape(record["source"])}</p>\n'
        f'<img alt="{sentence}" src="data:image/png;base64,{data}">\n'
        f'<p class="found{"" if record["seen"] else " not"}">{sentence}</p>\n'
        f'<p class="faint">fastcnn study {name} --seed {record["seed"]}</p></section>\n'
    )
