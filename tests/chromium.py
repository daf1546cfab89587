"""Chromium with a page in it, its mouse and its keyboard, by selenium. Its network is cut, but for this machine."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs Chromium (Debian: apt-get install chromium chromium-driver)"
)

# In every page from its first moment: counts what the page's policy had to stop.
COUNT_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI}) => {
  violations.push(`${violatedDirective} ${blockedURI}`);
});
"""
# Where a place of a figure, of its x and y ranges, is in the window.
PLACE = """
const [number, x, y] = arguments;
const view = Bokeh.index.get_by_id(Bokeh.documents[0].roots()[number].id);
const {left, top} = view.canvas_view.el.getBoundingClientRect();
return [left + view.frame.x_scale.compute(x), top + view.frame.y_scale.compute(y)];
"""


class Browser:
    """A page in a window whose network is cut."""

    def __init__(self, downloads: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for word in (
            "headless=new",
            "no-sandbox",
            "hide-scrollbars",
            "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ):
            options.add_argument(f"--{word}")
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.driver.set_script_timeout(30)
        self.downloads = downloads
        self.command("Page.addScriptToEvaluateOnNewDocument", source=COUNT_VIOLATIONS)

    def command(self, name: str, **words: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, words)

    def open(self, page: Path, width: int = 1280, height: int = 900) -> None:
        """A report, until its figures are drawn."""
        self.show(page.as_uri(), width, height)
        self.until("return document.documentElement.dataset.figures === 'drawn'")

    def show(self, address: str, width: int = 1280, height: int = 900) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self.media()
        self.driver.get_log("performance")
        self.driver.get(address)

    def media(self, scheme: str = "light", media: str = "screen") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", media=media, features=features)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, seconds: float = 30) -> Any:
        """What the script says once that is true."""
        return self.driver.execute_async_script(
            "const [script, seconds, done] = arguments; const wanted = new Function(script);"
            "const started = performance.now(); const look = () => { const found = wanted();"
            "found || performance.now() - started > 1000 * seconds ? done(found) : setTimeout(look, 20); }; look();",
            script, seconds,
        ) or pytest.fail(f"not within {seconds} s: {script}")  # fmt: skip

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def type(self, text: str) -> None:
        self.run(
            "const field = document.getElementById('filter'); field.value = arguments[0];"
            "field.dispatchEvent(new Event('input'));",
            text,
        )

    def choose(self, selector: str, value: str) -> None:
        self.run(
            "const field = document.querySelector(arguments[0]); field.value = arguments[1];"
            "field.dispatchEvent(new Event('change'));",
            selector, value,
        )  # fmt: skip

    # figures

    def see(self, number: int) -> None:
        """Brings a figure into view, in which it is drawn."""
        plots = self.driver.find_elements("css selector", ".plot")
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plots[number])
        self.until(f"return Bokeh.documents[0].roots()[{number}].renderers.some((one) => one.data_source.get_length())")

    def place(self, number: int, x: float, y: float) -> tuple[int, int]:
        self.see(number)
        left, top = self.run(PLACE, number, x, y)
        return round(left), round(top)

    def move(self, number: int, x: float, y: float) -> None:
        left, top = self.place(number, x, y)
        chain = ActionChains(self.driver, duration=0)
        chain.w3c_actions.pointer_action.move_to_location(left - 3, top)
        chain.w3c_actions.pointer_action.move_to_location(left, top)
        chain.perform()

    def drag(self, number: int, start: tuple[float, float], end: tuple[float, float]) -> None:
        places = [self.place(number, *start), self.place(number, *end)]
        chain = ActionChains(self.driver, duration=0)
        pointer = chain.w3c_actions.pointer_action
        pointer.move_to_location(*places[0]).pointer_down()
        pointer.move_to_location(*(sum(pair) // 2 for pair in zip(*places, strict=True)))
        pointer.move_to_location(*places[1]).pointer_up()
        chain.perform()

    # the table

    def rows(self) -> list[str]:
        """The run_ids of the page that is shown."""
        found = self.run("return [...document.querySelectorAll('#table tbody button')].map((b) => b.textContent)")
        return [str(text) for text in found]

    def saved(self) -> pd.DataFrame:
        """What the page saves as CSV."""
        before = set(self.downloads.glob("*.csv"))
        self.run("document.getElementById('export').click()")
        for _ in range(200):
            new = set(self.downloads.glob("*.csv")) - before
            if new and next(iter(new)).stat().st_size and not list(self.downloads.glob("*.crdownload")):
                return pd.read_csv(new.pop())
            time.sleep(0.02)
        pytest.fail("nothing was saved")

    # what must never happen

    def check(self) -> None:
        """No error, nothing that the policy had to stop, and no request but for the page itself."""
        assert self.run("return violations") == []
        assert [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"] == []
        messages = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert {address.partition(":")[0] for address in sent} <= {"file", "data", "blob"}
        assert len([address for address in sent if address.startswith("file:")]) <= 1
