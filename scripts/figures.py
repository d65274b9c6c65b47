"""What the scripts that measure the README's figures share."""
import json
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time


def run(*words):
    """Runs a program, whose error ends this one; what it wrote to its standard output."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def measured(words, limit=None):
    """Runs a program, with so many bytes of heap if there is a limit: seconds, its own bytes at their peak (RssAnon), what it wrote."""
    bound = (lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))) if limit else None
    begun = time.time()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([str(w) for w in words], stdout=said, stderr=subprocess.STDOUT, preexec_fn=bound)
        peak = 0
        while process.poll() is None:
            try:
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                status = []
            peak = max([peak, *(1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon"))])
            time.sleep(0.02)
        seconds = time.time() - begun
        said.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(map(str, words))}\n{said.read()}")
        return seconds, peak, said.read()


def metrics_of(out):
    """What `couplet evaluate` left in a run."""
    return json.loads((pathlib.Path(out) / "metrics.json").read_text())


def spread(values, digits=3):
    """Mean and standard deviation; a dash where nothing was measured."""
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def header(*heads):
    """Begins a Markdown table."""
    print("| " + " | ".join(map(str, heads)) + " |\n|" + " --- |" * len(heads), flush=True)


def row(*cells):
    """A row of it."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
