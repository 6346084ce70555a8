"""The report in headless Chromium: it renders, every control does what it says, and nothing is fetched."""

import copy
import json
from pathlib import Path

import pytest

from polyad.report import write, write_study
from polyad.report.studies import cache_study

pytestmark = pytest.mark.browser
DATA = Path(__file__).parent.parent / "data"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1100,1000",
)  # fmt: skip
PLOTS = ("front", "heat", "spectra")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield found
    found.quit()


class Report:
    """A page that is open in the browser."""

    def __init__(self, driver, path):
        self.driver, self.path = driver, path
        driver.get_log("performance")
        driver.get_log("browser")
        driver.get(path.as_uri())
        self.wait(lambda: self.run("return document.documentElement.dataset.drawn") == "yes")

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 60).until(lambda _: condition())

    def run(self, script, *values):
        return self.driver.execute_script(script, *values)

    def choose(self, menu, name):
        from selenium.webdriver.support.ui import Select

        Select(self.driver.find_element("id", menu)).select_by_visible_text(name)

    def chosen(self, plot):
        """The data that a plot now shows."""
        return self.run("return JSON.parse(JSON.stringify(document.getElementById(arguments[0]).data || []))", plot)

    def axis(self, plot, name):
        return self.run("return document.getElementById(arguments[0]).layout[arguments[1]].title.text", plot, name)

    def marks(self, plot):
        """How many marks a plot has drawn: points, lines, or the picture of a heat map."""
        chosen = ".scatterlayer .point, .scatterlayer path.js-line, .heatmaplayer image"
        return self.run(
            "return document.getElementById(arguments[0]).querySelectorAll(arguments[1]).length", plot, chosen
        )

    def text(self, name):
        return self.driver.find_element("id", name).text


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    one = json.loads((DATA / "compress.json").read_text())
    many = json.loads((DATA / "compare.json").read_text())
    caches = json.loads((DATA / "caches.json").read_text())
    bad = copy.deepcopy(one)
    bad["title"] = bad["plan"]["recipe"][0]["method"] = "</script><b onclick=x>&amp;"
    return {
        "compress": write(folder / "compress.html", [one]),
        "compare": write(folder / "compare.html", many),
        "failed": write(folder / "failed.html", [many[3]]),
        "bad": write(folder / "bad.html", [bad]),
        "several": write(folder / "several.html", [bad, *many[:1]]),
        "caches": write_study(folder / "caches.html", cache_study(caches, None, {"Seed": 0})),
    }


@pytest.fixture
def report(driver, pages, request):
    return Report(driver, pages[request.param])


def every(*names):
    return pytest.mark.parametrize("report", names, indirect=True)


@every("compress", "compare", "failed", "bad", "caches")
def test_nothing_is_fetched_and_nothing_is_complained_of(report):
    events = [json.loads(entry["message"])["message"] for entry in report.driver.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    # The browser's own start page may still be loading; what counts is what this page asks for.
    asked = [e["request"]["url"] for e in sent if not e["documentURL"].startswith("chrome:")]
    assert report.path.as_uri() in asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert report.driver.get_log("browser") == []


@every("compress", "compare", "bad")
def test_every_plot_has_marks(report):
    plots = [plot for plot in PLOTS if report.run("return !!document.getElementById(arguments[0])", plot)]
    assert plots == list(PLOTS if report.path.name == "compare.html" else PLOTS[1:])  # one point makes no figure
    for plot in plots:
        assert report.marks(plot) > 0, plot
        assert report.run("return document.getElementById(arguments[0]).clientHeight", plot) > 150


@every("compress")
def test_one_result_stands_beside_the_original(report):
    assert not report.driver.find_element("id", "point").is_displayed()
    assert "1.18 times smaller" in report.driver.find_element("tag name", "header").text


@every("compare")
def test_a_point_tells_what_it_is(report):
    names = [trace["name"] for trace in report.chosen("front")]
    script = "Plotly.Fx.hover('front', [{curveNumber: arguments[0], pointNumber: 1}])"
    report.run(script, names.index("lord"))
    told = report.wait(lambda: report.run("return document.querySelector('#front .hoverlayer').textContent"))
    assert "lord, keep 0.8" in told
    assert "41.8 kB in place of 49.2 kB" in told


@every("compare")
def test_the_axes_change(report):
    before = report.chosen("front")
    for name in ("parameters", "operations a token", "decoding speed", "bytes"):
        report.choose("x", name)
        assert report.axis("front", "xaxis").startswith(f"{name}, % of the original's")
    report.choose("x", "decoding speed")
    assert "eora:rank=8" not in [trace["name"] for trace in report.chosen("front")]
    report.choose("x", "bytes")
    assert report.chosen("front") == before
    report.choose("y", "on sotu")
    lord = next(trace for trace in report.chosen("front") if trace["name"] == "lord")
    assert lord["y"] == [1.08, 1.2]
    assert "on sotu" in report.axis("front", "yaxis")


@every("caches")
def test_the_axes_of_a_study_change(report):
    assert [trace["name"] for trace in report.chosen("front")][:2] == ["front", "plain"]
    assert report.axis("front", "xaxis").startswith("bytes a token")
    report.choose("x", "time of a token")
    assert report.axis("front", "xaxis").startswith("time of a token, times transformers'")
    plain, *rest = report.chosen("front")  # the best in both, so that no line is drawn
    assert (plain["name"], plain["x"], len(rest)) == ("plain", [0.8], 2)
    assert report.marks("front") == 3


@every("compare")
def test_the_colour_changes(report):
    left = report.chosen("heat")
    report.choose("measure", "error at the chosen size")
    error = report.chosen("heat")
    report.choose("measure", "importance")
    assert left[0]["z"] != error[0]["z"] != report.chosen("heat")[0]["z"]
    assert "importance" in report.chosen("heat")[0]["colorbar"]["title"]["text"]
    assert report.marks("heat") > 0


@every("compare")
def test_the_item_changes(report):
    assert {trace["legendgroup"].split(".")[2] for trace in report.chosen("spectra")} == {"0"}
    report.choose("item", "layer 2")
    assert {trace["legendgroup"].split(".")[2] for trace in report.chosen("spectra")} == {"2"}
    report.choose("item", "model.layers.1.mlp.up_proj")
    assert [trace["legendgroup"] for trace in report.chosen("spectra")] == ["model.layers.1.mlp.up_proj"] * 2
    assert report.marks("spectra") >= 2


@every("compare")
def test_the_result_changes_all_that_is_shown_in_detail(report):
    caption = "[data-part=beside]:not([hidden]) caption"
    assert report.driver.find_element("css selector", caption).text == "lord, keep 0.9"
    report.choose("point", "modegpt, keep 0.9")
    assert report.driver.find_element("css selector", caption).text == "modegpt, keep 0.9"
    assert [trace["name"] for trace in report.chosen("spectra")] == ["mlp", "mlp", "vo", "vo"]
    report.choose("measure", "error at the chosen size")
    assert report.chosen("heat")[0]["x"] == ["mlp", "vo"]
    report.choose("measure", "importance")
    assert "not measured" in report.text("heat-empty")
    report.choose("point", "eora:rank=8")
    assert "given by hand" in report.text("spectra-empty")
    assert not report.driver.find_element("id", "item").is_enabled()
    assert not report.driver.find_element("id", "spectra").is_displayed()
    facts = report.driver.find_elements("css selector", "[data-part=facts]:not([hidden])")
    assert len(facts) == 1
    report.choose("point", "lord, keep 0.8")
    assert report.marks("spectra") > 0
    assert report.marks("heat") > 0
    assert report.driver.get_log("browser") == []


@every("compare", "failed")
def test_the_reason_of_a_failed_point_is_shown(report):
    cell = report.driver.find_element("css selector", ".points .reason")
    assert cell.is_displayed()
    assert "<when cut most>" in cell.text


@every("compress")
def test_the_command_is_copied(report):
    button = report.driver.find_element("id", "copy")
    button.click()
    report.wait(lambda: report.text("copied"))
    assert report.text("command").startswith("polyad compress small --method lord")
    assert report.text("copied") in ("Copied.", "The command is selected; copy it with your keyboard.")


@every("compare")
def test_the_keyboard_reaches_every_control_and_each_has_a_label(report):
    from selenium.webdriver.common.keys import Keys

    wanted = ["point", "x", "y", "measure", "item", "copy"]
    assert report.run("return [...document.querySelectorAll('select, button')].map((e) => e.id)") == wanted
    labels = report.run("return [...document.querySelectorAll('select')].map((e) => e.labels.length)")
    assert labels == [1] * 5
    reached = []
    for _ in range(30):
        report.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(report.run("return document.activeElement.id"))
        if reached[-1] == "copy":
            break
    assert [name for name in reached if name in wanted] == wanted
    report.driver.find_element("id", "measure").send_keys(Keys.ARROW_DOWN)
    assert "error" in report.chosen("heat")[0]["colorbar"]["title"]["text"]


@every("compare")
def test_dark_and_paper_and_a_narrow_screen(report):
    ink = "return [getComputedStyle(document.body).color, document.getElementById('front').layout.font.color]"
    light = report.run(ink)
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    report.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    try:
        report.wait(lambda: report.run(ink)[1] != light[1])
        assert report.run(ink)[0] != light[0]
        report.run("dispatchEvent(new Event('beforeprint'))")
        assert report.run(ink)[1] == light[1]  # paper is white
        report.run("dispatchEvent(new Event('afterprint'))")
        assert report.run(ink)[1] != light[1]
    finally:
        report.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    report.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        report.wait(lambda: report.run("return document.querySelector('#front .main-svg').clientWidth") <= 400)
        assert report.run("return document.documentElement.scrollWidth") <= 400
    finally:
        report.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@every("compare", "compress")
def test_the_room_of_plots_is_kept_before_they_are_drawn(report):
    places = "return [...document.querySelectorAll('h2')].map((e) => e.getBoundingClientRect().top + scrollY)"
    drawn = report.run(places)
    report.run("document.querySelectorAll('.figure').forEach((e) => Plotly.purge(e))")
    assert report.run(places) == drawn
    assert all(report.run("return [...document.querySelectorAll('.figure')].map((e) => e.clientHeight > 200)"))


@every("bad")
def test_a_name_is_shown_as_it_is(report):
    assert report.driver.find_element("tag name", "h1").text == "</script><b onclick=x>&amp;"


@every("several")
def test_names_in_a_legend_are_shown_as_they_are(report):
    legend = report.run("return [...document.querySelectorAll('#front .legendtext')].map((e) => e.textContent)")
    assert "</script><b onclick=x>&amp;" in legend
