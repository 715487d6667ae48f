"""Debian's chromium without a screen, driven by selenium; what needs it is skipped where it is not installed."""

import os
import shutil
from pathlib import Path
from typing import Any, Iterator, Union

import pytest

WIDTHS = (400, 1600)

_CHROMIUM, _DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--force-color-profile=srgb",
    "--use-fake-device-for-media-stream",  # a camera of its own: moving test pictures
    "--use-fake-ui-for-media-stream",  # which pages may use without being asked
)


class Browser:
    """One window. `driver` is selenium's."""

    def __init__(self) -> None:
        webdriver = pytest.importorskip("selenium.webdriver", reason="selenium (the extra dev) is not installed")
        if not (_CHROMIUM and _DRIVER):
            pytest.skip("chromium and chromedriver are not installed; `make dev` installs them as root on Debian")
        options = webdriver.ChromeOptions()
        options.binary_location = _CHROMIUM
        for argument in _ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(_DRIVER, env={**os.environ, "SE_OFFLINE": "true"})
        self.driver = webdriver.Chrome(options=options, service=service)

    def open(self, page: Union[Path, str], width: int = 1600, height: int = 1000, dark: bool = False) -> None:
        """Opens a file or an address in a window of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(page.as_uri() if isinstance(page, Path) else page)

    def run(self, program: str, *arguments: Any) -> Any:
        """What a program of JavaScript returns."""
        return self.driver.execute_script(program, *arguments)

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def wait(self, program: str, *arguments: Any) -> Any:
        """Waits until a program returns something true; returns it."""
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, 20, 0.02).until(lambda _: self.run(program, *arguments))

    def press(self, *keys: str) -> None:
        """Presses keys wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def said(self) -> list[str]:
        """What the console was told since the last call."""
        return [line["message"] for line in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for the whole module."""
    started = Browser()
    yield started
    started.driver.quit()
