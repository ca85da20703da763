"""The Orders page as people use it: in a real browser, inside a real Airflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest

from tests.ui.conftest import DAG_ID, HELD

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

    from tests.ui.conftest import Ui

pytestmark = [pytest.mark.ui, pytest.mark.timeout(1_200)]
#: Where to leave pictures for docs/images, when there shall be any.
PICTURES = os.environ.get("KK_PICTURES")


def test_the_menu_leads_to_all_orders(browser: Chrome, ui: Ui):
    browser.get(ui.url)
    click(browser, "//button[contains(., 'Browse')] | //*[@role='button'][contains(., 'Browse')]")
    click(browser, "//a[contains(., 'KK orders')]")
    with frame(browser):
        assert text_of(browser, "a.tile.created b") == str(ui.created)
        assert text_of(browser, "a.tile.held b") == "1"
        picture(browser, "orders-light")


def test_an_order_is_searched_for_and_opened_down_to_its_attempts(browser: Chrome, ui: Ui):
    open_page(browser, ui)
    with frame(browser):
        search(browser, "SO-20411")
        one(browser, "tbody th a").click()
        wait(browser, lambda: one(browser, "h1").text == "Order SO-20411")
        assert "created" in text_of(browser, "table.posts")
        assert ui.run_id in text_of(browser, "table.posts a")
        kk_order_id = text_of(browser, "dd.ids")
    open_page(browser, ui)
    with frame(browser):
        search(browser, kk_order_id)
        assert text_of(browser, "tbody th a") == "SO-20411"


def test_an_attempt_leads_to_its_dag_run_in_airflow(browser: Chrome, ui: Ui):
    open_page(browser, ui)
    with frame(browser):
        search(browser, "SO-20411")
        one(browser, "tbody th a").click()
        wait(browser, lambda: one(browser, "h1").text == "Order SO-20411")
        one(browser, "table.posts a").click()
    wait(browser, lambda: unquote(browser.current_url).endswith(f"/dags/{DAG_ID}/runs/{ui.run_id}"))


def test_a_held_order_gives_the_command_to_copy(browser: Chrome, ui: Ui):
    allow_clipboard(browser, ui)
    open_page(browser, ui)
    with frame(browser):
        one(browser, "a.tile.held").click()
        wait(browser, lambda: "held" in one(browser, "h2#table-title").text)
        one(browser, "td summary").click()
        one(browser, "td button[data-copy*=never-created]").click()
        wait(browser, lambda: one(browser, "#told").text == "Copied")
        copied = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == (
        f"kk ledger resolve {HELD} --never-created --why '...' "
        "--kk-conn-id kk_default --ledger-conn-id warehouse"
    )


def test_the_keyboard_reaches_all_there_is_to_press(browser: Chrome, ui: Ui):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{ui.url}/kk/orders?state=held")
    pressable = "a[href], button, input:not([type=hidden]), select, summary"
    wanted = {element.id for element in many(browser, pressable) if element.is_displayed()}
    reached = set()
    # a date field has parts of its own
    for _ in range(len(wanted) + 12):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.add(browser.switch_to.active_element.id)
    assert wanted <= reached


def test_every_field_picture_and_table_has_a_name(browser: Chrome, ui: Ui):
    for path in ("/kk/orders", f"/kk/order?number={HELD}"):
        browser.get(ui.url + path)
        for field in many(browser, "input:not([type=hidden]), select, svg[role=img], [role=region], nav"):
            assert field.accessible_name, field.get_attribute("outerHTML")
        assert all(head.get_attribute("scope") for head in many(browser, "th"))


def test_it_is_dark_when_airflow_is_and_light_when_airflow_is(browser: Chrome, ui: Ui):
    for theme, is_dark in (("dark", True), ("light", False)):
        browser.get(ui.url)
        browser.execute_script(f"localStorage.setItem('theme', '{theme}')")
        open_page(browser, ui)
        with frame(browser):
            assert (brightness(browser) < 60) is is_dark
            if is_dark:
                picture(browser, "orders-dark")


def test_alone_it_is_as_the_system_is(browser: Chrome, ui: Ui):
    for scheme, is_dark in (("dark", True), ("light", False)):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(f"{ui.url}/kk/orders")
        assert (brightness(browser) < 60) is is_dark
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_dag_run_has_a_tab_with_its_orders(browser: Chrome, ui: Ui):
    browser.get(f"{ui.url}/dags/{DAG_ID}/runs/{quote(ui.run_id, safe='')}")
    click(browser, "//a[contains(., 'KK orders')]")
    with frame(browser):
        wait(browser, lambda: "KK orders of this run" in one(browser, "h1").text)
        assert "SO-20411" in text_of(browser, "table")
        assert HELD not in text_of(browser, "table")
        picture(browser, "run-tab")


def test_the_browser_has_nothing_to_complain_of(browser: Chrome, ui: Ui):
    browser.get_log("browser")
    for path in ("/kk/orders", f"/kk/order?number={HELD}", f"/kk/runs/{DAG_ID}/{quote(ui.run_id, safe='')}"):
        browser.get(ui.url + path)
    complaints = [one["message"] for one in browser.get_log("browser") if "favicon" not in one["message"]]
    assert complaints == []


# How it is used ------------------------------------------------------------------------------------


def open_page(browser: Chrome, ui: Ui) -> None:
    browser.get(f"{ui.url}/plugin/kk-orders")


@contextmanager
def frame(browser: Chrome) -> Iterator[None]:
    wait(browser, lambda: many(browser, "iframe"))
    browser.switch_to.frame(one(browser, "iframe"))
    wait(browser, lambda: many(browser, "h1"))
    try:
        yield
    finally:
        browser.switch_to.default_content()


def search(browser: Chrome, text: str) -> None:
    from selenium.webdriver.common.keys import Keys

    one(browser, "input[name=q]").send_keys(text, Keys.ENTER)
    wait(browser, lambda: one(browser, "h2#table-title").text == "Orders found")


def click(browser: Chrome, xpath: str) -> None:
    wait(browser, lambda: [each for each in browser.find_elements("xpath", xpath) if each.is_displayed()])
    next(each for each in browser.find_elements("xpath", xpath) if each.is_displayed()).click()


def one(browser: Chrome, css: str) -> WebElement:
    return browser.find_element("css selector", css)


def many(browser: Chrome, css: str) -> list[WebElement]:
    return browser.find_elements("css selector", css)


def text_of(browser: Chrome, css: str) -> str:
    return one(browser, css).text


def wait(browser: Chrome, condition: Callable[[], object]) -> None:
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    fading = [NoSuchElementException, StaleElementReferenceException]
    WebDriverWait(browser, 90, ignored_exceptions=fading).until(lambda _: condition())


def brightness(browser: Chrome) -> float:
    color = browser.execute_script(
        "const c = document.createElement('canvas').getContext('2d');"
        "c.fillStyle = getComputedStyle(document.body).backgroundColor; c.fillRect(0, 0, 1, 1);"
        "return Array.from(c.getImageData(0, 0, 1, 1).data)"
    )
    return float(sum(color[:3]) / 3)


def allow_clipboard(browser: Chrome, ui: Ui) -> None:
    allowed = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": ui.url}
    browser.execute_cdp_cmd("Browser.grantPermissions", allowed)


def picture(browser: Chrome, name: str) -> None:
    if PICTURES:
        browser.switch_to.default_content()
        browser.save_screenshot(str(Path(PICTURES) / f"{name}.png"))
