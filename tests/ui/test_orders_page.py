"""The Orders page as people use it: in a real browser, inside a real Airflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest

from tests.ui.conftest import DAG_ID, HELD, SENT, hold, log_in

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

    from tests.ui.conftest import Ui

pytestmark = [pytest.mark.ui, pytest.mark.timeout(1_200)]
#: Where to leave pictures for docs/images, when there shall be any.
PICTURES = os.environ.get("KK_PICTURES")
WINDOW = (1360, 900)
CONTRASTS = Path(__file__).with_name("contrasts.js")


def test_the_menu_leads_to_all_orders(browser: Chrome, ui: Ui):
    browser.get(ui.url)
    click(browser, "//button[contains(., 'Browse')] | //*[@role='button'][contains(., 'Browse')]")
    wait(browser, lambda: one(browser, "img[src$='/kk/page.svg']").get_property("naturalWidth") > 0)
    picture(browser, "menu")
    click(browser, "//a[contains(., 'KK orders')]")
    with frame(browser):
        assert text_of(browser, "a.tile.created b") == str(ui.created)
        assert text_of(browser, "a.tile.held b") == "1"
        picture(browser, "orders-light")


def test_an_order_is_searched_for_and_opened_down_to_its_attempts(browser: Chrome, ui: Ui):
    open_page(browser, ui)
    with frame(browser):
        search(browser, SENT)
        one(browser, "tbody th a").click()
        wait(browser, lambda: one(browser, "h1").text == f"Order {SENT}")
        assert "created" in text_of(browser, "table.posts")
        assert ui.run_id in text_of(browser, "table.posts a")
        assert text_of(browser, "dd.ids") == ui.kk_order_id
    open_page(browser, ui)
    with frame(browser):
        search(browser, ui.kk_order_id)
        assert text_of(browser, "tbody th a") == SENT
        search(browser, "SO-00000")
        assert "SO-00000" in text_of(browser, ".none")
        picture(browser, "found-nothing")


def test_a_period_chooses_what_is_shown(browser: Chrome, ui: Ui):
    open_page(browser, ui)
    with frame(browser):
        for name in ("since", "until"):
            day = one(browser, f"input[type=date][name={name}]")
            browser.execute_script("arguments[0].value = '2026-01-02'", day)
        click(browser, "//button[text()='Show']")
        wait(browser, lambda: "No orders in this period" in text_of(browser, "section"))
        assert text_of(browser, "a.tile.created b") == "0"
        picture(browser, "no-orders")
        for shortcut in ("30 days", "All"):
            click(browser, f"//nav[@aria-label='Period']/a[text()='{shortcut}']")
            wait(browser, lambda: text_of(browser, "a.tile.created b") == str(ui.created))
            assert text_of(browser, "nav.period [aria-current]") == shortcut
        picture(browser, "all-orders")


def test_filters_sort_and_the_way_back_keep_the_list_as_it_was(browser: Chrome, ui: Ui):
    open_page(browser, ui)
    with frame(browser):
        one(browser, "input[name=country]").send_keys("FR")
        click(browser, "//button[text()='Show']")
        wait(browser, lambda: "FR" in text_of(browser, ".chosen"))
        click(browser, "//thead//a[text()='order number']")
        wait(browser, lambda: many(browser, "th[aria-sort=ascending]"))
        numbers = [each.text for each in many(browser, "tbody th a")]
        assert numbers == sorted(numbers)
        assert {each.text for each in many(browser, "td[data-label=country]")} == {"FR"}
        picture(browser, "filtered")
        one(browser, "tbody th a").click()
        wait(browser, lambda: text_of(browser, "h1") == f"Order {numbers[0]}")
        one(browser, "nav.back a").click()
        wait(browser, lambda: many(browser, "th[aria-sort=ascending]"))
        assert [each.text for each in many(browser, "tbody th a")] == numbers
        click(browser, "//a[@aria-label='Remove the filter country']")
        wait(browser, lambda: not many(browser, ".chosen"))


def test_a_list_is_downloaded_as_csv(browser: Chrome, ui: Ui, tmp_path: Path):
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    open_page(browser, ui)
    with frame(browser):
        one(browser, "a.download").click()
        wait(browser, lambda: list(tmp_path.glob("kk-orders-*.csv")))
    (file,) = tmp_path.glob("kk-orders-*.csv")
    assert SENT in file.read_text(encoding="utf-8-sig")


def test_an_attempt_leads_to_its_dag_run_in_airflow(browser: Chrome, ui: Ui):
    open_page(browser, ui)
    with frame(browser):
        search(browser, SENT)
        one(browser, "tbody th a").click()
        wait(browser, lambda: one(browser, "h1").text == f"Order {SENT}")
        one(browser, "table.posts a").click()
    wait(browser, lambda: unquote(browser.current_url).endswith(f"/dags/{DAG_ID}/runs/{ui.run_id}"))


def test_a_held_order_gives_the_command_to_copy(browser: Chrome, ui: Ui):
    allow_clipboard(browser, ui)
    open_page(browser, ui)
    with frame(browser):
        one(browser, "a.tile.held").click()
        wait(browser, lambda: "held" in one(browser, "h2#table-title").text)
        row = browser.find_element("xpath", f"//tr[contains(., '{HELD}')]")
        row.find_element("css selector", "summary").click()
        picture(browser, "held")
        row.find_element("css selector", "button[data-copy*=never-created]").click()
        copied = copied_text(browser)
    assert copied == (
        f"kk ledger resolve {HELD} --never-created --why '...' "
        "--kk-conn-id kk_default --ledger-conn-id warehouse"
    )


def test_a_held_refund_is_found_from_its_order_and_gives_the_command_to_copy(browser: Chrome, ui: Ui):
    allow_clipboard(browser, ui)
    open_page(browser, ui)
    with frame(browser):
        search(browser, SENT)
        one(browser, "tbody th a").click()
        wait(browser, lambda: "Refunds of this order" in text_of(browser, "main"))
        one(browser, "td summary").click()
        picture(browser, "order")
        click(browser, f"//a[text()='{ui.kk_order_id}-whole']")
        wait(browser, lambda: one(browser, "h1").text == f"Refund {ui.kk_order_id}-whole")
        picture(browser, "refund")
        one(browser, "button[data-copy*=REFUND_NO]").click()
        copied = copied_text(browser)
        one(browser, "nav.kinds [aria-current]").click()
        wait(browser, lambda: one(browser, "h1").text == "KK refunds")
        click(browser, "//a[text()='1 refund held']")
        wait(browser, lambda: text_of(browser, "tbody th a") == f"{ui.kk_order_id}-whole")
        picture(browser, "refunds")
    assert copied == (
        f"kk ledger resolve --refunds {ui.kk_order_id}-whole --created REFUND_NO --why '...' "
        "--kk-conn-id kk_default --ledger-conn-id warehouse"
    )


def test_the_keyboard_alone_finds_an_order_and_copies_its_command(browser: Chrome, ui: Ui):
    from selenium.webdriver.common.keys import Keys

    allow_clipboard(browser, ui)
    browser.get(f"{ui.url}/kk/orders")
    tab_to(browser, lambda element: element.get_attribute("name") == "q")
    press(browser, HELD, Keys.ENTER)
    wait(browser, lambda: one(browser, "h2#table-title").text == "Orders found")
    tab_to(browser, lambda element: element.text == HELD)
    press(browser, Keys.ENTER)
    wait(browser, lambda: one(browser, "h1").text == f"Order {HELD}")
    tab_to(browser, lambda element: "--never-created" in (element.get_attribute("data-copy") or ""))
    press(browser, Keys.SPACE)
    assert f"resolve {HELD} --never-created" in copied_text(browser)
    assert browser.switch_to.active_element.text == "Copy"


def test_chosen_orders_are_resolved_after_the_plan_was_confirmed(browser: Chrome, ui: Ui):
    hold(ui.environment, "SO-31001", "SO-31002")
    open_page(browser, ui)
    with frame(browser):
        one(browser, "a.tile.held").click()
        wait(browser, lambda: "held" in one(browser, "h2#table-title").text)
        one(browser, "input[data-all]").click()
        assert len(many(browser, "input[name=row]:checked")) == 3
        one(browser, f"input[aria-label='Choose {HELD}']").click()
        picture(browser, "choose")
        click(browser, "//button[contains(., 'Act on the chosen')]")
        wait(browser, lambda: one(browser, "h1").text == "Act on 2 orders")
        one(browser, "input[value=never_created]").click()
        one(browser, "input[name=why]").send_keys("not on KK's site")
        picture(browser, "resolve")
        click(browser, "//button[text()='Show what would happen']")
        wait(browser, lambda: one(browser, "h1").text == "What would happen")
        assert "SO-31001" in text_of(browser, "table")
        assert "the next sync that selects it sends it" in text_of(browser, "table")
        picture(browser, "plan")
        click(browser, "//button[text()='Confirm for 2 orders']")
        wait(browser, lambda: one(browser, "h1").text == "2 of 2 orders done")
        assert browser.switch_to.active_element.tag_name == "h1"  # so that it is read out
        picture(browser, "result")
        click(browser, "//a[text()='SO-31001']")
        wait(browser, lambda: one(browser, "h1").text == "Order SO-31001")
        assert "not sent" in text_of(browser, "h2 .mark")
        assert "olga: not on KK's site" in text_of(browser, "dl")
        one(browser, "nav.back a").click()
        wait(browser, lambda: "held" in one(browser, "h2#table-title").text)
        assert "SO-31001" not in text_of(browser, "main")


def test_the_keyboard_alone_retries_a_rejected_order(browser: Chrome, ui: Ui):
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{ui.url}/kk/orders?state=rejected")
    tab_to(browser, lambda element: (element.get_attribute("aria-label") or "").startswith("Choose SO"))
    press(browser, Keys.SPACE)
    number = browser.switch_to.active_element.get_attribute("aria-label").removeprefix("Choose ")
    tab_to(browser, lambda element: "Act on the chosen" in element.text)
    press(browser, Keys.ENTER)
    wait(browser, lambda: one(browser, "h1").text == f"Act on order {number}")
    tab_to(browser, lambda element: element.get_attribute("type") == "radio")
    while browser.switch_to.active_element.get_attribute("value") != "retry":
        press(browser, Keys.ARROW_DOWN)
    press(browser, Keys.SPACE)
    tab_to(browser, lambda element: element.get_attribute("name") == "why")
    press(browser, "stock is back", Keys.ENTER)
    wait(browser, lambda: one(browser, "h1").text == "What would happen")
    tab_to(browser, lambda element: element.text == "Confirm for 1 order")
    press(browser, Keys.ENTER)
    wait(browser, lambda: one(browser, "h1").text == "1 of 1 order done")
    browser.get(f"{ui.url}/kk/order?number={number}")
    assert "now, resolved manually" in text_of(browser, "dl")
    assert "olga: stock is back" in text_of(browser, "dl")


def test_the_pages_that_resolve_are_readable_in_dark_and_on_a_phone(browser: Chrome, ui: Ui):
    def go_through(name: str) -> None:
        browser.get(f"{ui.url}/kk/order?number={HELD}")
        click(browser, "//button[text()='Resolve or retry']")
        for step in ("resolve", "plan"):
            wait(browser, lambda: many(browser, "form.resolve"))
            faint = [each for each in browser.execute_script(CONTRASTS.read_text()) if each[0] < 4.5]
            assert faint == []
            assert overflow(browser) <= 0
            for field in many(browser, "input:not([type=hidden]), [role=region], nav"):
                assert field.accessible_name, field.get_attribute("outerHTML")
            picture(browser, f"{name}-{step}")
            if step == "resolve":
                one(browser, "input[value=never_created]").click()
                one(browser, "input[name=why]").send_keys("not on KK's site")
                click(browser, "//button[text()='Show what would happen']")
                wait(browser, lambda: one(browser, "h1").text == "What would happen")

    with system_is(browser, "light"):
        go_through("light")
    with system_is(browser, "dark"):
        go_through("dark")
    with phone(browser):
        go_through("phone")


def test_sending_is_paused_and_a_banner_leads_to_resuming_it(browser: Chrome, ui: Ui):
    open_page(browser, ui)
    with frame(browser):
        click(browser, "//a[text()='Pause all sending']")
        wait(browser, lambda: one(browser, "h1").text.startswith("Pause all sending"))
        one(browser, "input[name=why]").send_keys("wrong query sends last year's orders")
        picture(browser, "pause")
        click(browser, "//button[text()='Pause all sending']")
        wait(browser, lambda: "wrong query" in text_of(browser, ".paused"))
        picture(browser, "paused")
        for scheme in ("light", "dark"):
            with system_is(browser, scheme):
                faint = [each for each in browser.execute_script(CONTRASTS.read_text()) if each[0] < 4.5]
                assert faint == []
    with phone(browser):
        for number, path in enumerate(paths(ui)):
            browser.get(ui.url + path)
            assert "wrong query" in text_of(browser, ".paused")
            assert overflow(browser) <= 0, path
            picture(browser, f"paused-phone-{number}")
    open_page(browser, ui)
    with frame(browser):
        click(browser, "//a[text()='Resume sending']")
        wait(browser, lambda: one(browser, "h1").text.startswith("Resume all sending"))
        one(browser, "input[name=why]").send_keys("query fixed")
        click(browser, "//button[text()='Resume sending']")
        wait(browser, lambda: many(browser, "a.tile") and not many(browser, ".paused"))


def test_an_order_is_cancelled_after_the_plan_was_confirmed(browser: Chrome, ui: Ui):
    browser.get(f"{ui.url}/kk/orders?state=created&sort=number")
    number = next(each.text for each in many(browser, "tbody th a") if each.text != SENT)
    browser.get(f"{ui.url}/kk/order?number={number}")
    kk_order_ids = text_of(browser, "dd.ids").split(", ")
    click(browser, "//button[text()='Cancel or order again']")
    wait(browser, lambda: text_of(browser, "h1") == f"Act on order {number}")
    one(browser, "input[value=cancel]").click()
    one(browser, "input[name=why]").send_keys("bought by mistake")
    click(browser, "//button[text()='Show what would happen']")
    wait(browser, lambda: text_of(browser, "h1") == "What would happen")
    assert f"KK is asked once to refund all of {kk_order_ids[0]}" in text_of(browser, "table")
    picture(browser, "cancel-plan")
    with phone(browser):
        assert overflow(browser) <= 0
        picture(browser, "cancel-phone")
    click(browser, "//button[text()='Confirm for 1 order']")
    wait(browser, lambda: text_of(browser, "h1") == "1 of 1 order done")
    picture(browser, "cancel-result")
    browser.get(f"{ui.url}/kk/order?number={number}")
    refunds = [each.text for each in many(browser, "section[aria-labelledby=refunds] tbody th")]
    assert sorted(refunds) == sorted(f"{each}-whole" for each in kk_order_ids)


def test_who_may_not_edit_connections_gets_no_form(browser: Chrome, ui: Ui):
    browser.delete_all_cookies()
    log_in(browser, ui.url, "victor")
    try:
        browser.get(f"{ui.url}/kk/resolve?kk_conn_id=kk_default&kind=orders&row=v~{HELD}")
        assert not many(browser, "form")
        assert "may not read" in text_of(browser, "[role=alert]")
    finally:
        browser.delete_all_cookies()
        log_in(browser, ui.url)


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
    for path in paths(ui):
        browser.get(ui.url + path)
        for field in many(browser, "input:not([type=hidden]), select, svg[role=img], [role=region], nav"):
            assert field.accessible_name, field.get_attribute("outerHTML")
        assert all(head.get_attribute("scope") for head in many(browser, "th"))


def test_a_narrow_window_scrolls_tables_and_never_the_page(browser: Chrome, ui: Ui):
    browser.set_window_size(800, 900)
    try:
        for number, path in enumerate(paths(ui)):
            browser.get(ui.url + path)
            assert overflow(browser) <= 0, path
            picture(browser, f"narrow-{number}")
    finally:
        browser.set_window_size(*WINDOW)


def test_a_phone_shows_cards_and_a_readable_chart(browser: Chrome, ui: Ui):
    with phone(browser):
        for number, path in enumerate(paths(ui)):
            browser.get(ui.url + path)
            assert overflow(browser) <= 0, path
            picture(browser, f"phone-{number}")
        browser.get(f"{ui.url}/kk/orders")
        row = one(browser, "table.list tbody tr")
        assert row.value_of_css_property("display") == "block"
        assert not one(browser, "details.filters form").is_displayed()
        size = "return document.querySelector('figure text').getBoundingClientRect().height"
        assert browser.execute_script(size) >= 10
        label = "return getComputedStyle(arguments[0].querySelector('td.goods'), '::before').content"
        assert "goods" in browser.execute_script(label, row)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(browser: Chrome, ui: Ui, scheme: str):
    with system_is(browser, scheme):
        for path in paths(ui):
            browser.get(ui.url + path)
            browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
            faint = [
                each for each in browser.execute_script(CONTRASTS.read_text()) if each[0] < 4.5
            ]  # WCAG 2, AA
            assert faint == [], path
            picture(browser, f"{scheme}-{paths(ui).index(path)}")


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
        with system_is(browser, scheme):
            browser.get(f"{ui.url}/kk/orders")
            assert (brightness(browser) < 60) is is_dark


def test_a_dag_run_has_a_tab_with_its_orders(browser: Chrome, ui: Ui):
    browser.get(f"{ui.url}/dags/{DAG_ID}/runs/{quote(ui.run_id, safe='')}")
    click(browser, "//a[contains(., 'KK orders')]")
    with frame(browser):
        wait(browser, lambda: "KK orders of this run" in one(browser, "h1").text)
        assert SENT in text_of(browser, "table")
        assert HELD not in text_of(browser, "table")
        picture(browser, "run-tab")


def test_the_form_of_a_connection_asks_for_what_kk_needs(browser: Chrome, ui: Ui):
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{ui.url}/connections")
    click(browser, "//button[contains(., 'Add Connection')]")
    wait(browser, lambda: many(browser, "[role=dialog] input"))
    click(browser, "//*[@role='dialog']//*[@role='combobox']")
    browser.switch_to.active_element.send_keys("kk", Keys.ENTER)
    wait(browser, lambda: "Access token" in text_of(browser, "[role=dialog]"))
    click(browser, "//*[@role='dialog']//button[contains(., 'Extra Fields')][not(contains(., 'JSON'))]")
    wait(browser, lambda: "Ledger connection id" in text_of(browser, "[role=dialog]"))
    picture(browser, "connection-form")


def test_the_browser_console_has_no_errors(browser: Chrome, ui: Ui):
    browser.get_log("browser")
    for path in paths(ui):
        browser.get(ui.url + path)
    complaints = [one["message"] for one in browser.get_log("browser") if "favicon" not in one["message"]]
    assert complaints == []


def test_an_order_number_that_is_markup_stays_text(browser: Chrome, ui: Ui):
    odd = "<script>document.title='odd'</script>"
    hold(ui.environment, odd)
    for path in ("orders?state=held", f"orders?q={quote(odd)}", f"order?number={quote(odd)}"):
        browser.get(f"{ui.url}/kk/{path}")
        assert odd in text_of(browser, "main")
        assert browser.title.startswith("KK order")


# How it is used ------------------------------------------------------------------------------------


def paths(ui: Ui) -> tuple[str, ...]:
    """Every kind of page, by itself."""
    return (
        "/kk/orders",
        "/kk/orders?state=held&country=FR&sort=number",
        f"/kk/orders?q={SENT}",
        f"/kk/order?number={SENT}",
        f"/kk/order?number={HELD}",
        "/kk/refunds",
        f"/kk/refund?key={ui.kk_order_id}-whole",
        f"/kk/runs/{DAG_ID}/{quote(ui.run_id, safe='')}",
    )


@contextmanager
def phone(browser: Chrome) -> Iterator[None]:
    """A window as wide as a phone; the browser's own has a least width."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def overflow(browser: Chrome) -> int:
    """By how many pixels the page is wider than its window."""
    width = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(browser.execute_script(width))


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

    field = one(browser, "input[name=q]")
    field.clear()
    field.send_keys(text, Keys.ENTER)
    wait(browser, lambda: text in browser.execute_script("return document.title"))


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
    from selenium.common.exceptions import (
        NoSuchElementException,
        StaleElementReferenceException,
        TimeoutException,
    )
    from selenium.webdriver.support.ui import WebDriverWait

    fading = [NoSuchElementException, StaleElementReferenceException]
    try:
        WebDriverWait(browser, 90, ignored_exceptions=fading).until(lambda _: condition())
    except TimeoutException as error:
        picture(browser, "failed")
        raise AssertionError(f"waited in vain; the page says: {text_of(browser, 'body')}") from error


def press(browser: Chrome, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def tab_to(browser: Chrome, is_it: Callable[[WebElement], bool]) -> None:
    from selenium.webdriver.common.keys import Keys

    for _ in range(60):
        press(browser, Keys.TAB)
        if is_it(browser.switch_to.active_element):
            return
    raise AssertionError("the keyboard does not reach it")


def copied_text(browser: Chrome) -> str:
    wait(browser, lambda: one(browser, "#told").text == "Copied")
    return str(browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])"))


@contextmanager
def system_is(browser: Chrome, scheme: str) -> Iterator[None]:
    """Let the system be light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def brightness(browser: Chrome) -> float:
    color = browser.execute_script(
        "const c = document.createElement('canvas').getContext('2d');"
        "c.fillStyle = getComputedStyle(document.body).backgroundColor; c.fillRect(0, 0, 1, 1);"
        "return Array.from(c.getImageData(0, 0, 1, 1).data)"
    )
    assert color[3] == 255, "the page has no style"
    return float(sum(color[:3]) / 3)


def allow_clipboard(browser: Chrome, ui: Ui) -> None:
    allowed = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": ui.url}
    browser.execute_cdp_cmd("Browser.grantPermissions", allowed)


def picture(browser: Chrome, name: str) -> None:
    if PICTURES:
        browser.save_screenshot(str(Path(PICTURES) / f"{name}.png"))
