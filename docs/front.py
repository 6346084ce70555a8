"""Takes the picture at the top of README from a report: its headline and the first rows of its table.

    python docs/front.py report.html

The report is that of README's first command. Needs selenium and Chromium, as `make test-browser` does.
"""

from __future__ import annotations

import sys
from pathlib import Path

SIZE = (940, 560)


def take(report: Path, picture: Path) -> None:
    """Open the report in headless Chromium and save what stands at its top."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size={},{}".format(*SIZE)):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.get(report.resolve().as_uri())
    drawn = "return document.documentElement.dataset.drawn"
    WebDriverWait(driver, 120).until(lambda _: driver.execute_script(drawn) == "yes")
    driver.save_screenshot(str(picture))
    driver.quit()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(__file__).with_name("front.png"))
