"""The documentation site in headless Chromium, opened from the disk: layout, pictures, search, and no fetch."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
SITE = Path(__file__).parents[2] / "build" / "site"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip
PAGES = (
    "index", "guides/index", "guides/smaller", "guides/fine-tuned", "guides/cache", "guides/tensors",
    "guides/training", "guides/exporting", "guides/coming", "methods/index", "methods/lora", "methods/kivi",
    "methods/cp_als", "methods/tt_svd", "methods/eora", "methods", "measured", "architectures", "adapters-measured",
    "compressed-pictures", "api/index", "api/polyad", "api/polyad.formats", "api/polyad.adapters", "design",
)  # fmt: skip
WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    assert (SITE / "index.html").exists(), f"there is no site in {SITE}; run make docs"
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield browser
    browser.quit()


def visit(driver, page, width=1280, scheme="light"):
    """Open a page of the site at a width and in a colour scheme, with the logs empty before."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get_log("performance")
    driver.get_log("browser")
    driver.get((SITE / f"{page}.html").as_uri())


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_and_loads_from_the_disk_alone(driver, page, width):
    visit(driver, page, width)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    # Whatever is wider than its place scrolls within it, and nothing that is read lies beyond the edge.
    beyond = driver.execute_script(
        "return [...document.querySelectorAll('.md-content h1, .md-content h2, .md-content p, .md-content img')]"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.textContent.slice(0, 60))"
    )
    assert beyond == []
    images = driver.execute_script(
        "return [...document.querySelectorAll('.md-content img')]"
        ".map((e) => [e.src, e.complete && e.naturalWidth > 0, e.alt])"
    )
    assert all(loaded and alt for _, loaded, alt in images), images
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    asked = [e["request"]["url"] for e in sent if not e["documentURL"].startswith("chrome:")]
    assert (SITE / f"{page}.html").as_uri() in asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob", "about"}
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_every_guide_has_a_picture(driver):
    for page in PAGES[2:8]:
        visit(driver, page)
        assert driver.execute_script("return document.querySelectorAll('.md-content img').length") >= 1, page


def test_colours_follow_the_machine(driver):
    ground = "return getComputedStyle(document.body).backgroundColor"
    visit(driver, "index", scheme="light")
    light = driver.execute_script(ground)
    visit(driver, "index", scheme="dark")
    dark = driver.execute_script(ground)
    brightness = [sum(int(n) for n in c[c.index("(") + 1 : -1].split(",")[:3]) for c in (light, dark)]
    assert brightness[0] > 600 > 200 > brightness[1]


def test_search_answers_from_the_disk(driver):
    from selenium.webdriver.support.ui import WebDriverWait

    visit(driver, "index")
    field = driver.find_element("css selector", ".md-search__input")
    driver.execute_script("arguments[0].focus()", field)
    field.send_keys("streaming_llm")
    links = ".md-search-result__item a"
    WebDriverWait(driver, 60).until(lambda _: driver.find_elements("css selector", links))
    assert "streaming_llm" in driver.find_element("css selector", links).get_attribute("href")
