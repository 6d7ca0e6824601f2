"""The file of results: `results.json` in the output folder, which runs add to.

    {"schema": 1,
     "runs": [{"id", "date", "threads", "machine", "versions", "ceilings", "load", "settings", ...}, ...],
     "cases": {name: {..., "run": id, "results": {contestant: {"seconds", "low", "high", "ratio": {"median", ...}}}}}}

`ratio` is that contestant's time divided by fastcnn's: above 1, fastcnn is faster.
"""

import json
import pathlib

SCHEMA = 1


class Results:
    """The results in a folder; what earlier runs left there is kept, unless measured again.

    Raises
    ------
    ValueError
        If the folder holds results of another form.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.file = self.folder / "results.json"
        self.runs, self.cases = [], {}
        if self.file.exists():
            content = json.loads(self.file.read_text())
            if content.get("schema") != SCHEMA:
                raise ValueError(f"{self.file}: expected schema {SCHEMA}, got {content.get('schema')!r}")
            self.runs, self.cases = content["runs"], content["cases"]
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def backend(self):
        """Where its runs computed: "cpu" or "cuda"."""
        return self.runs[-1].get("backend", "cpu")

    def begin(self, run):
        """Add a run, a dictionary without an id; `add` adds cases to it.

        Raises
        ------
        ValueError
            If earlier runs computed elsewhere: their cases have the same names.
        """
        if self.runs and run.get("backend", "cpu") != self.backend:
            raise ValueError(f"{self.folder}: its results are of the backend {self.backend!r}; choose another folder")
        run["id"] = 1 + max((r["id"] for r in self.runs), default=0)
        self.runs.append(run)

    def add(self, row):
        """Add the row of a case, and write the file: an interrupted run loses one case at most."""
        self.cases[row["name"]] = {**row, "run": self.runs[-1]["id"]}
        self.save()

    def save(self):
        """Write the file; runs of which nothing is left are dropped."""
        used = {row["run"] for row in self.cases.values()}
        self.runs = [run for run in self.runs if run["id"] in used or run is self.runs[-1]]
        content = {"schema": SCHEMA, "runs": self.runs, "cases": self.cases}
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        part.replace(self.file)

    def run_of(self, row):
        """The run in which a case was measured."""
        return next(run for run in self.runs if run["id"] == row["run"])
