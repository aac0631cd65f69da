"""The gallery in a browser: Chromium, from the disk, one session for all tests."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from reports.gallery.write import read_benchmark_runs, write_gallery
from tests.reports.conftest import samples_frame
from tests.reports.gallery_runs import DEPTH, HOSTILE, depth_frame, view_edit, view_translation, write_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
METHODS = {"copy-source": 1, "editar": 2, "masactrl": 3}  # and the seeds of their scores
PATIENCE = 120_000  # milliseconds: the tests judge what is shown, not how fast a busy machine shows it

Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = f"none of {', '.join(BROWSERS)} is installed; apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=FLAGS, timeout=PATIENCE)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 edits by three methods, of which one has failed at the sixth and says something of the fourth, and 5
    translations by one."""
    folder = tmp_path_factory.mktemp("gallery")
    failed = {5: {"status": "failed", "error": "<i>OutOfMemory</i>: 80 GB", "image_sha256": None}}
    said = {3: {"notes": json.dumps({"said": HOSTILE})}}
    edits = [
        write_run(folder / "edits", name, seed=seed, changes=failed | said if name == "masactrl" else None)
        for name, seed in METHODS.items()
    ]
    translations = [write_run(folder / "depth", "controlnet", count=5, frame=depth_frame(5), manifest=DEPTH)]
    groups = [read_benchmark_runs(edits, view_edit), read_benchmark_runs(translations, view_translation)]
    return write_gallery(groups, folder / "out")


@pytest.fixture
def opened(browser: Browser, gallery: Path) -> Iterator[Opener]:
    """opened(hash, page=..., size=..., scheme=...) -> the page. Errors on its console fail the test, and so does
    whatever it loads from elsewhere."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []
    folders: list[str] = []

    def note(request: Any) -> None:
        if not request.url.startswith(tuple(folders)):
            faults.append(f"loaded {request.url}")

    def open_page(
        address: str = "", *, page: Path | None = None, size: tuple[int, int] = (1280, 800), scheme: Any = "light"
    ) -> Page:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        contexts.append(context)
        folders.append((page or gallery).parent.as_uri())
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE)
        tab.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("request", note)
        tab.goto((page or gallery).as_uri() + address)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def ids(page: Page) -> list[int]:
    """The samples shown, in their order."""
    return page.eval_on_selector_all("#rows > .row", "rows => rows.map(row => row.sample)")


def expected(key: str, method: str, minus: str = "", higher: bool = False, worst: bool = False) -> list[int]:
    """The order by a score or a difference, of the samples that have one."""
    values = samples_frame(12, METHODS[method])[key]
    if minus:
        values = values - samples_frame(12, METHODS[minus])[key]
    if "masactrl" in (method, minus):
        values = values.drop(5)
    return list(values.sort_values(ascending=higher == worst).index)


def test_opens_from_the_disk_with_pictures_texts_and_scores(opened: Opener) -> None:
    page = opened()
    assert ids(page) == list(range(12))
    page.wait_for_function("[...document.querySelectorAll('.row img')].slice(0, 4).every(image => image.naturalWidth)")
    row = page.locator(".row").first
    assert row.locator(".text.first").text_content() == "instruction: instruction 0"
    assert "a red ball number 0" in row.inner_text() and "a blue ball number 0" in row.inner_text()
    score = samples_frame(12, METHODS["editar"])["structure_distance"][0]
    assert row.locator(".value").nth(1).inner_text() == f"{1000 * score:.2f}"
    assert page.locator("#head").inner_text().split()[:2] == ["Structure", "distance"]
    page.keyboard.press("s")
    assert page.locator(".row").first.locator("[role=gridcell]").nth(2).locator("dd").count() == 7
    assert page.locator("#facts").inner_text().startswith("pie-bench/v1")


def test_filters_by_text_and_type(opened: Opener) -> None:
    page = opened()
    page.fill("#find", "10 NUMBER Ball")
    assert ids(page) == [10]
    page.fill("#find", "INSTRUCTION")
    assert ids(page) == [sample for sample in range(12) if sample != 3]
    assert page.locator("#count").inner_text() == "11 of 12 samples"
    page.select_option("#type", "random")
    assert ids(page) == [0, 2, 4, 6, 8, 10]
    page.fill("#find", "no such words")
    assert ids(page) == [] and page.locator("#nothing").is_visible()
    page.click("#reset-too")
    assert ids(page) == list(range(12))
    page.fill("#find", "000000000007")
    assert ids(page) == [7]


def test_sorts_by_a_score_by_a_difference_and_keeps_the_worst(opened: Opener) -> None:
    page = opened()
    page.select_option("#score", "lpips")
    assert ids(page) == expected("lpips", "editar")
    page.select_option("#score", "ssim")
    assert ids(page) == expected("ssim", "editar", higher=True)
    page.select_option("#minus", "masactrl")
    assert ids(page) == [*expected("ssim", "editar", "masactrl", higher=True), 5]  # what has no value comes last
    assert "the last 1 without a value" in page.locator("#count").inner_text()
    page.select_option("#order", "worst")
    worst = expected("ssim", "editar", "masactrl", higher=True, worst=True)
    assert ids(page) == [*worst, 5]
    page.fill("#k", "3")
    assert ids(page) == worst[:3]
    difference = 100 * (samples_frame(12, 2)["ssim"] - samples_frame(12, 3)["ssim"])[worst[0]]
    assert page.locator(".row b").first.inner_text() == f"{difference:+.2f}".replace("-", "−")
    page.click("#head button:text-is('copy-source')")
    assert ids(page) == expected("ssim", "copy-source", higher=True)[:3]
    page.click("#head button:text-is('copy-source')")
    assert ids(page) == expected("ssim", "copy-source", higher=True, worst=True)[:3]


def test_the_slider_parts_before_and_after(opened: Opener) -> None:
    page = opened()
    page.click(".row:first-child button[aria-label^='masactrl']")
    assert page.locator("#viewer-title").inner_text() == "instruction 0"
    clip = "getComputedStyle(document.getElementById('after-image')).clipPath"
    assert page.evaluate(clip) == "inset(0px 0px 0px 50%)"
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate(clip) == "inset(0px 0px 0px 53%)" and "split=53" in page.url
    box = page.locator("#stage").bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert page.input_value("#slider") == "25"
    page.keyboard.press(" ")
    assert page.input_value("#slider") == "100"
    sources = page.eval_on_selector_all(
        ".stage img:not([hidden])", "all => all.map(each => decodeURIComponent(each.src))"
    )
    assert [source.split("/")[-2] for source in sources] == ["input-source", "masactrl", "input-mask"]
    page.select_option("#before", "editar")
    assert page.get_attribute("#before-image", "alt") == "editar of 000000000000"
    rows = page.locator("#scores tbody tr")
    assert rows.count() == 3 and rows.nth(2).get_attribute("class") == "current"


def test_the_address_holds_what_is_shown(opened: Opener) -> None:
    page = opened()
    page.select_option("#score", "lpips")
    page.select_option("#of", "masactrl")
    page.select_option("#order", "worst")
    page.fill("#find", "ball")
    page.click("#columns summary")
    page.uncheck("#column-list label:has-text('copy-source') input")
    page.locator(".row").nth(1).locator("button[aria-label^='editar']").click()
    page.keyboard.press("ArrowLeft")
    order = ids(page)
    assert order == [*expected("lpips", "masactrl", worst=True), 5]
    again = opened(page.url[page.url.index("#") :])
    assert ids(again) == order
    assert [again.input_value(f"#{name}") for name in ("score", "of", "order", "find", "slider", "after")] == [
        *("lpips", "masactrl", "worst", "ball", "49", "editar")
    ]
    assert again.locator("#viewer-place").inner_text().startswith(f"{order[1]:012d}")
    assert again.locator("#head [role=columnheader]").count() == 4
    page.go_back()
    assert not page.locator("#viewer").is_visible() and "at=" not in page.url
    assert ids(opened("#score=nonsense&k=-4&at=../../x&type=%3Cb%3E&split=1e9")) == list(range(12))


def test_everything_can_be_reached_with_the_keyboard(opened: Opener) -> None:
    page = opened()
    label = "document.activeElement.getAttribute('aria-label')"
    page.keyboard.press("j")
    assert page.evaluate(label) == "source of 000000000000"
    for key in ("ArrowDown", "ArrowRight", "l", "j", "k"):
        page.keyboard.press(key)
    assert page.evaluate(label).startswith("editar, 000000000001, Structure distance")
    page.keyboard.press("End")
    assert page.evaluate(label).startswith("editar, 000000000011")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    page.keyboard.press("j")
    page.keyboard.press("l")
    assert page.locator("#viewer-place").inner_text().startswith("000000000001")
    assert page.input_value("#after") == "masactrl"
    page.keyboard.press("m")
    assert not page.locator("#mask-image").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    assert page.evaluate(label).startswith("masactrl, 000000000001")
    assert not page.locator(".over").first.is_visible()
    page.keyboard.press("m")
    assert page.locator(".over").first.is_visible()
    page.keyboard.press("/")
    page.keyboard.type("11")
    assert ids(page) == [11]
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


def test_dark_by_the_system_or_by_the_switch(opened: Opener) -> None:
    def brightness(page: Page) -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    dark = opened(scheme="dark")
    assert brightness(dark) < 150
    page = opened()
    assert brightness(page) > 600
    page.click("#theme")
    page.keyboard.press("t")
    assert brightness(page) < 150
    page.reload()
    assert brightness(page) < 150 and page.locator("#theme").get_attribute("aria-label") == "Colours: dark"


def test_fits_on_a_phone(opened: Opener) -> None:
    page = opened(size=(360, 740))
    places = "[document.documentElement, ...document.querySelectorAll('main, dialog[open]')]"
    wide = f"Math.max(...{places}.map(each => each.scrollWidth))"
    assert page.evaluate(wide) == 360
    assert not page.locator("#find").is_visible()
    page.click("#fold")
    page.select_option("#score", "psnr")
    assert page.evaluate(wide) == 360
    page.click("#fold")
    page.locator(".row").first.locator("button[aria-label^='editar']").click()
    assert page.locator("#scores").is_visible() and page.evaluate(wide) == 360


def test_texts_stay_text(opened: Opener) -> None:
    page = opened("#at=000000000003")
    assert page.text_content("#viewer-title") == HOSTILE
    page.keyboard.press("Escape")
    assert page.locator(".row").nth(3).locator(".text.first").text_content() == f"instruction: {HOSTILE}"
    assert page.evaluate("typeof pwned") == "undefined"
    assert page.locator("main b, main i, main script").count() == 0
    failed = page.locator(".row").nth(5).locator("button[aria-label^='masactrl']")
    assert failed.text_content() == "<i>OutOfMemory</i>: 80 GB"


def test_what_the_method_on_the_right_says_is_below_the_texts(opened: Opener) -> None:
    page = opened("#at=000000000003")
    said = page.locator("#texts dt", has_text="said")
    assert said.count() == 0
    page.select_option("#after", "masactrl")
    assert said.locator("xpath=following-sibling::dd[1]").text_content() == HOSTILE
    assert page.evaluate("typeof pwned") == "undefined"
    page.keyboard.press("Escape")
    page = opened("#at=000000000004&after=masactrl")
    assert page.locator("#texts dt", has_text="said").count() == 0


def test_translations_have_conditions_and_no_types(opened: Opener) -> None:
    page = opened()
    page.select_option("#group", "miniature-translation-depth")
    assert page.locator("#head [role=columnheader]").all_inner_texts()[1:] == ["condition", "real image", "controlnet"]
    assert not page.locator("#type").is_visible() and not page.locator("#mask").is_visible()
    page.select_option("#score", "depth_rmse")
    assert ids(page) == [0, 3, 1, 4, 2]
    page.locator(".row").nth(1).locator("button[aria-label^='real image']").click()
    assert page.input_value("#before") == "real image" and page.input_value("#slider") == "100"


def test_700_samples_by_11_methods_are_below_two_megabytes(opened: Opener, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "wide", f"method-{n}", count=700, seed=n, pictures=False) for n in range(11)]
    built = write_gallery([read_benchmark_runs(runs, None)], tmp_path / "wide" / "out")
    assert built.stat().st_size < 2_000_000
    page = opened("#score=lpips&of=method-7&order=worst", page=built)
    page.wait_for_selector(".row .value")
    assert len(ids(page)) == 700
    assert page.locator(".row:not(:empty)").count() < 100  # only what is near the window is drawn
    page.keyboard.press("j")
    page.keyboard.press("End")
    assert page.locator(".row").last.locator(".value").count() == 11
