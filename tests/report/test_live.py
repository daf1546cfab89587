"""`python -m cifarsweep.watch --page`: what is served, to whom, how soon, and what it costs while it waits."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import start_python
from test_report import cells, fake_run, fake_sweep

from cifarsweep import watch
from cifarsweep.report import live
from cifarsweep.report.live import LivePage, Now
from cifarsweep.results import records, sweeps
from cifarsweep.results.locks import Lock
from cifarsweep.results.records import Epoch

PAGE = """<!doctype html><html><head>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'sha256-x'"></head>
<body><header></header><nav></nav><main>the report</main></body></html>"""


@pytest.fixture
def served() -> Iterator[LivePage]:
    with LivePage(lambda: PAGE) as page:
        yield page


def ask(page: LivePage, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())


class Reader:
    """A browser's EventSource: what it has been told so far, with the time of each message."""

    def __init__(self, port: int, token: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.request("GET", f"/{token}/events")
        self.answer = self.connection.getresponse()
        self.told: list[tuple[float, str]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        lines: list[str] = []
        with contextlib.suppress(OSError, ValueError, AttributeError):
            for line in self.answer:
                if line.startswith(b"data: "):
                    lines.append(line[6:].decode().rstrip("\n"))
                elif line == b"\n" and lines:
                    self.told.append((time.monotonic(), "\n".join(lines)))
                    lines = []

    def wait_for(self, text: str, seconds: float = 20) -> float:
        """When it was told this."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for when, told in self.told:
                if text in told:
                    return when
            time.sleep(0.02)
        raise AssertionError(f"{text!r} is not in {[told for _, told in self.told]}")


# what is served, and to whom


def test_the_page_is_the_report_with_what_is_told_above_it(served: LivePage) -> None:
    served.tell(Now("1 of 2 <ended>", ("run", "epoch"), ("run",), (("a", "1/2"),), 3), content=0)
    status, page, headers = ask(served, f"/{served.token}/")
    assert status == 200
    assert "the report" in page
    assert "1 of 2 &lt;ended&gt;" in page
    assert '<td>a<td class="n">1/2' in page
    assert "3 more runs" in page
    assert "default-src 'none'; connect-src 'self'; script-src 'sha256-" in page
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", ""])
def test_a_request_by_another_name_of_this_machine_is_refused(served: LivePage, host: str) -> None:
    status, text, _ = ask(served, f"/{served.token}/", Host=host.format(port=served.port))
    assert (status, text) == (403, "for this machine only\n")


def test_a_request_by_localhost_is_answered(served: LivePage) -> None:
    assert ask(served, f"/{served.token}/", Host=f"localhost:{served.port}")[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "/events", "/wrong/", "/{half}/", "/{token}x/", "/x/{token}/", "/%2e%2e/{token}/"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_without_the_token_there_is_nothing(served: LivePage, path: str, method: str) -> None:
    path = path.format(token=served.token, half=served.token[:-1])
    status, text, _ = ask(served, path, method)
    assert status == 404
    assert "report" not in text


@pytest.mark.parametrize(
    "path", ["runs.csv", "../../sweep.json", "..%2f..%2fsweep.json", "/etc/passwd", "events/", "?x"]
)
def test_nothing_but_the_page_is_served(served: LivePage, path: str) -> None:
    assert ask(served, f"/{served.token}/{path}")[0] == 404


def test_a_page_that_cannot_be_made_yet_says_why() -> None:
    def fail() -> str:
        raise ValueError("no run <can> be read")

    with LivePage(fail) as page:
        page.tell(Now("0 ended"), content=0)
        status, text, _ = ask(page, f"/{page.token}/")
    assert status == 200
    assert "no run &lt;can&gt; be read" in text
    assert "0 ended" in text


def test_a_port_that_is_taken_is_refused(served: LivePage) -> None:
    with pytest.raises(ValueError, match=f"^--port {served.port}: Address already in use, expected one that is free"):
        LivePage(lambda: PAGE, served.port)


# what is told


def test_a_reader_is_told_of_each_change_once(served: LivePage) -> None:
    served.tell(Now("1 ended"), content=0)
    reader = Reader(served.port, served.token)
    reader.wait_for("1 ended")
    served.tell(Now("1 ended"), content=0)
    served.tell(Now("2 ended"), content=0)
    reader.wait_for("2 ended")
    assert len(reader.told) == 2


def test_the_page_is_made_again_only_where_it_has_changed_and_that_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LEAST_SECONDS", 0.2)
    made: list[float] = []
    with LivePage(lambda: (made.append(time.monotonic()), PAGE)[1]) as page:
        page.tell(Now("a"), content=1)
        for _ in range(3):
            ask(page, f"/{page.token}/")
        assert len(made) == 1
        page.tell(Now("b"), content=2)  # too early
        ask(page, f"/{page.token}/")
        assert len(made) == 1
        time.sleep(0.25)
        page.tell(Now("b"), content=2)
        ask(page, f"/{page.token}/")
        assert len(made) == 2


def test_a_page_that_takes_long_is_made_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(time, "thread_time", iter([0.0, 0.5]).__next__)
    with LivePage(lambda: PAGE) as page:
        page.tell(Now("a"), content=1)
        ask(page, f"/{page.token}/")
        page.tell(Now("b"), content=2)
        assert page.version == 1  # for the next 50 s


def test_at_the_end_readers_load_the_final_page(served: LivePage) -> None:
    served.tell(Now("5 of 6 ended"), content=0)
    reader = Reader(served.port, served.token)
    reader.wait_for("5 of 6 ended")
    final: list[str] = []

    def load() -> None:
        reader.wait_for("data-over")
        final.append(ask(served, f"/{served.token}/")[1])

    thread = threading.Thread(target=load)
    thread.start()
    began = time.monotonic()
    served.end(PAGE.replace("the report", "the final report"), Now("The sweep has ended."))
    assert time.monotonic() - began < live.FAREWELL
    thread.join()
    assert "the final report" in final[0]
    assert "The sweep has ended." in final[0]


# a sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[tuple[Path, Lock]]:
    """Of six jobs: one is complete, one has failed, two run."""
    folder = tmp_path / "outputs" / "sweeps" / "depth"
    sweeps.open_sweep(folder, ["python", "-m", "cifarsweep"], {}, num_jobs=6)
    for job, status in enumerate(["complete", "failed", "unfinished", "unfinished"]):
        run = fake_run(tmp_path / "outputs", "layers2", seed=job, status=status)
        sweeps.register_job(folder, job, [f"seed={job}"], run=run)
    lock = sweeps.own_sweep(folder)
    assert lock is not None
    yield folder, lock
    with contextlib.suppress(RuntimeError):
        lock.release()


def runs_of(folder: Path) -> list[Path]:
    return sorted((folder.parent.parent / "runs").glob("*-s*"))


def end_epoch(run_dir: Path) -> None:
    epochs = records.read_metrics(run_dir)
    last = vars(epochs[-1]) | {"epoch": len(epochs) + 1, "val_accuracy": 0.9125}
    records.write_metrics(run_dir, [*epochs, Epoch(**last)])


def test_the_page_says_what_runs_what_waits_and_how_long_it_will_take(sweep: tuple[Path, Lock]) -> None:
    watched = watch.Sweep(sweep[0])
    now, _ = watch._shown(watched, running=True, state="running")
    # Two runs have 5 epochs before them, two more have 8, of 12.5 s each, two at a time.
    assert now.text.startswith(
        "2 of 6 ended (1 failed), 2 running, 2 waiting, about 3 min left, best validation accuracy"
    )
    assert [row[:2] for row in now.rows] == [
        ("running", "3/8"),
        ("running", "3/8"),
        ("failed", "3/8"),
        ("complete", "8/8"),
    ]


def test_without_a_process_the_page_says_how_it_goes_on(sweep: tuple[Path, Lock]) -> None:
    sweep[1].release()
    now, _ = watch._shown(watch.Sweep(sweep[0]), running=False, state=sweeps.state(sweep[0]))
    assert now.text.endswith("(interrupted: no process works on it; the same command goes on)")
    assert "left" not in now.text


def test_a_change_is_seen_by_the_dates_of_files(sweep: tuple[Path, Lock], monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch.Sweep(sweep[0])
    assert watched.changed()
    watched.rows(running=True)
    assert watched.changed()  # as it knows of runs now
    with monkeypatch.context() as patch:
        patch.setattr(records, "read_metrics", None)  # reads nothing
        assert not watched.changed()
    end_epoch(runs_of(sweep[0])[2])
    assert watched.changed()
    assert not watched.changed()
    sweep[1].release()
    assert watched.changed()


def test_a_paused_trial_is_shown_with_how_far_it_came(tmp_path: Path) -> None:
    paused = fake_run(tmp_path, "layers2", status="paused", epochs_trained=3)
    folder = fake_sweep(tmp_path, "search", [paused])
    now, _ = watch._shown(watch.Sweep(folder), running=True, state="running")
    assert now.text.startswith("0 ended, 1 paused by the search")
    assert now.rows[0][:2] == ("paused", "3/8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--page", "--once"], "--page with --once: expected one of them"),
        (["--page", "--cancel"], "--page with --cancel: expected one of them"),
        (["--port", "8000"], "--port 8000: expected --page with it, and a number from 1 to 65535"),
        (["--page", "--port", "0"], "--port 0: expected --page with it, and a number from 1 to 65535"),
        (["--page", "--port", "65536"], "--port 65536: expected --page with it, and a number from 1 to 65535"),
    ],
)
def test_words_that_do_not_go_together_are_one_line(
    sweep: tuple[Path, Lock], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch.main([str(sweep[0]), *words]) == 1
    assert capsys.readouterr().err.splitlines() == [said]


@pytest.mark.parametrize("make", [Path, lambda folder: folder / "nowhere"])
def test_what_is_no_sweep_has_no_page(tmp_path: Path, make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch.main([str(make(tmp_path)), "--page"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(str(make(tmp_path)))


@pytest.mark.usefixtures("figures_without_pixels")
def test_a_sweep_that_has_ended_without_a_report_gets_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fake_sweep(tmp_path, "sweep", [fake_run(tmp_path)])
    sweeps.close_sweep(folder)
    page = folder / "report" / "index.html"
    assert watch.main([str(folder), "--page"]) == 0
    assert capsys.readouterr().out == f"sweep has ended; its page: {page}\n"
    written = page.stat().st_mtime_ns
    assert watch.main([str(folder), "--page"]) == 0
    assert page.stat().st_mtime_ns == written


# in a process of its own


@contextlib.contextmanager
def watching(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """The command, and the port and the token of its page."""
    process = start_python("-m", "cifarsweep.watch", str(folder), "--page", *words, cwd=folder)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.stderr.read() if process.stderr else ""
        port, token, _ = address.removeprefix("http://127.0.0.1:").split("/")
        yield process, int(port.rstrip(":")), token
    finally:
        process.kill()
        process.communicate()


def load(port: int, token: str) -> str:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", f"/{token}/")
        return connection.getresponse().read().decode()


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_two_pages_of_one_sweep_tell_of_an_epoch_within_two_seconds_and_cost_nothing_meanwhile(
    sweep: tuple[Path, Lock],
) -> None:
    folder, _ = sweep
    with watching(folder) as (first, *one), watching(folder) as (second, *other):
        assert one != other
        pages = [load(*one), load(*other)]
        assert all("2 of 6 ended (1 failed), 2 running" in page for page in pages)
        readers = [Reader(*one), Reader(*other)]
        for reader in readers:
            reader.wait_for("2 of 6 ended")
        time.sleep(2)
        before = [cpu_seconds(process.pid) for process in (first, second)]
        time.sleep(20)
        used = [cpu_seconds(process.pid) - began for process, began in zip((first, second), before, strict=True)]
        assert max(used) <= 0.01 * 20  # of one core
        began = time.monotonic()
        end_epoch(runs_of(folder)[2])
        for reader in readers:
            assert reader.wait_for("91.25") - began < 2
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=20)
        assert (first.returncode, said) == (130, "")


@pytest.mark.slow
@pytest.mark.parametrize("ends_well", [True, False])
def test_the_page_ends_with_the_sweep_and_a_report_that_is_newer(sweep: tuple[Path, Lock], ends_well: bool) -> None:
    """Whoever writes it: the sweep's command at its end, or this one."""
    folder, lock = sweep
    with watching(folder) as (process, port, token):
        reader = Reader(port, token)
        reader.wait_for("2 of 6 ended")
        lock.release()
        reader.wait_for("interrupted: no process works on it")  # which is waited for
        lock.acquire()
        reader.wait_for("about")
        sweeps.close_sweep(folder)
        if ends_well:
            (folder / "report").mkdir()
            (folder / "report" / "index.html").write_text(PAGE)
        lock.release()
        reader.wait_for("data-over", 90)
        assert ("the report" in load(port, token)) == ends_well
        rest, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")
        assert rest.endswith(f"depth has ended; its page: {folder / 'report' / 'index.html'}\n")


# in a browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("selenium")
    import chromium

    if not chromium.CHROMIUM or not chromium.DRIVER:
        pytest.skip("needs Chromium (Debian: apt-get install chromium chromium-driver)")
    browser = chromium.Browser(tmp_path)
    yield browser
    browser.driver.quit()


NOW = "return document.querySelector('#now')?.textContent ?? ''"
EPOCHS = """return Object.fromEntries([...document.querySelectorAll("#now tbody tr")]
  .map(({cells: [, epoch, , , run]}) => [run.textContent, parseInt(epoch.textContent) || 0]))"""


def wait_until(what: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def epochs_of(folder: Path) -> dict[str, int]:
    return {run.name: len(records.read_metrics(run)) for run in runs_of(folder)}


@pytest.mark.slow
def test_a_page_is_followed_through_a_sweep_with_a_failure_and_a_kill(
    browser: Any, small: list[str], tmp_path: Path
) -> None:
    """Six runs, of which one fails. The sweep is killed, and the same command goes on with it."""
    pairs = "runs=zip(batch_size=choice(50,50,5001,50,50,50), seed=choice(0,1,2,3,4,5))"
    others = [word for word in small if not word.startswith("batch_size=")]
    words = ["-m", *others, "data.num_train=6000", "data.val_size=1000", "trainer.epochs=8", "name=live", pairs]
    folder = tmp_path / "outputs" / "sweeps" / "live"

    def script(code: str) -> Any:
        """What it returns; nothing while the page is loaded anew."""
        from selenium.common.exceptions import WebDriverException

        with contextlib.suppress(WebDriverException):
            return browser.run(code)

    def says(*texts: str, but: str = "\0") -> bool:
        told = script(NOW) or ""
        return all(text in told for text in texts) and but not in told

    def shows(epochs: dict[str, int]) -> bool:
        shown = script(EPOCHS) or {}
        return all(shown.get(run, 0) >= number for run, number in epochs.items())

    def delay() -> float:
        """Seconds from the end of the next epoch until the page shows it."""
        before = epochs_of(folder)
        wait_until(lambda: epochs_of(folder) != before)
        began, written = time.monotonic(), epochs_of(folder)
        wait_until(lambda: shows(written))
        return time.monotonic() - began

    with contextlib.ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            process = start_python("-m", "cifarsweep", *words, cwd=tmp_path)
            stack.callback(lambda: process.poll() is None and os.killpg(process.pid, signal.SIGKILL))
            return process

        first = start()
        wait_until(lambda: (folder / "jobs.jsonl").exists() or first.poll() is not None)
        _, port, token = stack.enter_context(watching(folder))
        browser.show(f"http://127.0.0.1:{port}/{token}/")
        wait_until(lambda: says("running", "waiting", "left"))
        wait_until(lambda: script("return document.getElementById('filter')?.closest('[hidden]') === null"))
        script("""
            const filter = document.getElementById("filter");
            filter.value = "seed<9";
            filter.dispatchEvent(new Event("input"));
            scrollTo({top: 150, behavior: "instant"});
        """)
        delays = sorted(delay() for _ in range(5))
        assert delays[2] < 2, delays  # the median, as the machine may be busy
        wait_until(lambda: says("1 failed", "complete"))
        os.killpg(first.pid, signal.SIGKILL)
        wait_until(lambda: says("interrupted: no process works on it"))
        second = start()
        wait_until(lambda: says("running", but="interrupted"))
        second.communicate(timeout=240)
        wait_until(lambda: says("The sweep has ended.", f"This page is kept as {folder / 'report' / 'index.html'}."))
        wait_until(lambda: script("return document.getElementById('filter').value") == "seed<9", 10)
        wait_until(lambda: script("return Math.round(scrollY)") == 150, 10)
    text = script("return document.body.textContent")
    assert "batch_size=5001: expected 1 to 5000" in text
    assert script("return violations") == []
    assert [entry["message"] for entry in browser.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert [row["status"] for row in cells(folder / "report" / "runs.csv")] == ["complete"] * 5
