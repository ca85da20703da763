"""The Orders page: who sees it, what it shows, and that looking changes nothing."""

from __future__ import annotations

import csv
import html
import io
import re
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests_mock import ANY, Mocker

from airflow_provider_kk.api.models import KKOrder
from airflow_provider_kk.cli.main import main
from airflow_provider_kk.delivery.sql.storage import refund_ledger
from airflow_provider_kk.warehouse.merge_statuses import rows_of
from airflow_provider_kk.warehouse.status_tables import StatusTables
from tests.cli.conftest import SKU, hold, record, refuse, state
from tests.plugins.conftest import HAS_PAGES, TOKEN, ledger_in

if TYPE_CHECKING:
    from tests.plugins.conftest import Site

pytestmark = [
    pytest.mark.range,
    pytest.mark.skipif(not HAS_PAGES, reason="Airflow has pages of plugins since 3.1"),
]
RUN = "/kk/runs/shop/run%207"


@pytest.fixture(scope="module", autouse=True)
def _orders(site: Site) -> None:
    """What every test finds; the ledger's rows of one module."""
    record(site.ledger, "C-1", "created", ids=("1001", "1002"))
    refuse(site.ledger, "R-1")
    hold(site.ledger, "H-1")
    hold(refund_ledger(site.ledger), "1001-whole")
    others = ledger_in(site.ledger_file.with_name("others.db"), "others")
    record(others, "O-1", "created", ids=("5001",))
    record(refund_ledger(others), "5001-whole", "created", ids=("6001",))
    others.close()


def every_path() -> list[str]:
    from airflow_provider_kk.plugins.app import app

    return [
        "/kk" + re.sub(r"\{[^}]*\}", "page", route.path)  # type: ignore[attr-defined]
        for route in app.routes
    ]


# Who sees it ---------------------------------------------------------------------------------------


def test_every_route_needs_a_login(site: Site):
    paths = every_path()
    assert {"/kk/orders", "/kk/resolve", "/kk/resolve/apply"} <= set(paths)
    for path in paths:
        answers = {
            site.get(path, user=None).status_code,
            requests.post(site.url + path, timeout=300).status_code,
        }
        assert answers - {405}, path
        assert answers <= {401, 403, 405}, path


def test_fastapis_own_pages_are_off(site: Site):
    for path in ("/kk/docs", "/kk/redoc", "/kk/openapi.json", "/kk/docs/oauth2-redirect"):
        assert site.get(path, user=None).status_code in (401, 403, 404)
        assert site.get(path).status_code == 404


def test_who_may_not_read_connections_sees_no_order(site: Site):
    for path in ("/kk/orders", "/kk/order?number=C-1", "/kk/refunds", "/kk/refund?key=1001-whole"):
        answer = site.get(path, user="victor")
        assert answer.status_code == 403
        assert "C-1" not in answer.text
        assert "1001" not in answer.text
        assert "may not read" in answer.text
    for place in ("", "kk_default"):
        answer = site.get(RUN, user="victor", kk_conn_id=place)
        assert answer.status_code == (404 if place else 200)
        assert "C-1" not in answer.text
        assert "no connection" in answer.text


PAGES = (
    "/kk/orders",
    "/kk/orders?q=5001",
    "/kk/order?number=O-1",
    "/kk/refunds",
    "/kk/refund?key=5001-whole",
    RUN,
)


@pytest.mark.parametrize("place", ["kk_of_others", "kk_with_ledger_of_others"])
@pytest.mark.parametrize("path", PAGES)
def test_a_ledger_is_seen_only_by_who_may_read_its_connections(site: Site, path: str, place: str):
    own = {"kk_conn_id": place}
    assert "5001" in site.get(path, **own).text
    answer = site.get(path, user="paula", **own)
    assert answer.status_code == (404 if place == "kk_of_others" else 200)
    assert not any(word in html.unescape(answer.text) for word in ("O-1", "5001-whole", "6001"))


def test_a_connection_that_may_not_be_read_looks_like_one_that_is_not_there(site: Site):
    missing = site.get("/kk/orders", user="paula", kk_conn_id="kk_of_nobody")
    hidden = site.get("/kk/orders", user="paula", kk_conn_id="kk_of_others")
    assert hidden.status_code == missing.status_code == 404
    assert hidden.text.replace("kk_of_others", "kk_of_nobody") == missing.text


@pytest.mark.parametrize("path", ["/kk/orders", "/kk/refunds", "/kk/order?number=C-1", "/kk/nothing", RUN])
def test_connections_that_may_not_be_read_are_not_named(site: Site, path: str):
    assert "kk_of_others" not in site.get(path, user="paula").text
    assert "kk_of_others" in site.get("/kk/orders").text


def test_who_may_read_some_connections_sees_their_orders(site: Site):
    assert "C-1" in site.get("/kk/orders", user="paula").text
    assert "C-1" in site.get(RUN, user="paula").text
    assert "O-1" in site.get(RUN).text
    assert "O-1" not in site.get(RUN, user="paula").text


def test_a_team_sees_its_own_ledgers_only(site_of_teams: Site):
    for user, team, other in (("anna", "a", "b"), ("bert", "b", "a")):
        for path in ("/kk/orders", "/kk/order?number=T-" + team, RUN):
            text = site_of_teams.get(
                path, user=user, **({} if path == RUN else {"kk_conn_id": f"kk_{team}"})
            ).text
            assert f"T-{team}" in text
            assert not any(word in text for word in (f"T-{other}", f"kk_{other}"))
        assert site_of_teams.get("/kk/orders", user=user, kk_conn_id=f"kk_{other}").status_code == 404


def test_a_team_does_not_reach_a_ledger_of_others_through_a_connection_of_its_own(site_of_teams: Site):
    told = html.unescape(site_of_teams.get("/kk/orders", user="anna", kk_conn_id="kk_thief").text)
    assert "'ledger_b', which you may not read" in told
    assert "T-b" not in told


def test_looking_writes_nothing(site: Site):
    before = site.ledger_file.read_bytes()
    for path in (
        "/kk/orders",
        "/kk/orders?q=1001",
        "/kk/order?number=H-1",
        "/kk/refunds?q=7",
        RUN,
        "/kk/orders.csv",
    ):
        assert site.get(path).ok
    assert site.ledger_file.read_bytes() == before


def test_only_its_own_scripts_and_styles_are_let_in(site: Site):
    answer = site.get("/kk/orders")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.findall(r"https?://", answer.text)
    assert not re.findall(r"<style|style=|onclick", answer.text)
    for name, kind in (
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("page.svg", "image/svg+xml"),
    ):
        assert site.get(f"/kk/{name}").headers["Content-Type"].startswith(kind)
    assert site.get("/kk/app.js").status_code == 404


# What it shows -------------------------------------------------------------------------------------


def test_today_is_counted_and_listed(site: Site):
    text = site.get("/kk/orders").text
    tiles = dict(re.findall(r'<a class="tile ([a-z-]+)".*?<b>(\d+)</b>', text, re.S))
    assert {"created": "1", "rejected": "1", "held": "1"}.items() <= tiles.items()
    assert all(number in text for number in ("C-1", "R-1", "H-1", "code 40010", "1001, 1002"))
    assert "rate limit" not in text  # some orders a day are nowhere near it


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({"dag": "shop"}, {"C-1", "R-1", "H-1"}),
        ({"dag": "sho"}, set()),
        ({"country": "fr"}, {"C-1", "R-1", "H-1"}),
        ({"country": "DE"}, set()),
        ({"code": "40010"}, {"R-1"}),
        ({"code": "40011"}, set()),
        ({"code": "40010", "state": "held"}, set()),
        ({"dag": "shop", "country": "FR", "state": "held"}, {"H-1"}),
    ],
)
def test_filters_narrow_list_counts_and_csv(site: Site, filters: dict[str, str], numbers: set[str]):
    text = site.get("/kk/orders", **filters).text
    listed = set(re.findall(r'<th scope="row"><a[^>]*>([^<]*)<', text))
    assert listed & {"C-1", "R-1", "H-1"} == numbers
    assert csv_of(site, **filters).keys() & {"C-1", "R-1", "H-1"} == numbers
    if not numbers:
        assert "fit these filters" in text


def test_filters_stay_when_the_state_or_the_period_changes(site: Site):
    text = html.unescape(site.get("/kk/orders", dag="shop", country="FR", sort="number").text)
    for wanted in (r'class="tile held"\s+href="([^"]*)"', r'href="([^"]*)"\s*>30 days<'):
        (address,) = re.findall(wanted, text)
        assert {"dag=shop", "country=FR", "sort=number"} <= set(address.partition("?")[2].split("&"))


def test_a_column_sorts_in_both_directions(site: Site):
    def order_of(sort: str) -> list[str]:
        text = site.get("/kk/orders", sort=sort).text
        numbers = re.findall(r'<th scope="row"><a[^>]*>([^<]*)<', text)
        return [one for one in numbers if one in ("C-1", "R-1", "H-1")]

    assert order_of("number") == ["C-1", "H-1", "R-1"]
    assert order_of("-number") == ["R-1", "H-1", "C-1"]
    assert order_of("state") == ["H-1", "R-1", "C-1"]
    assert order_of("-code")[0] == "R-1"
    text = html.unescape(site.get("/kk/orders", sort="number").text)
    (address,) = re.findall(r'aria-sort="ascending"><a href="([^"]*)"', text)
    assert "sort=-number" in address


def test_goods_country_and_dag_are_columns(site: Site):
    text = site.get("/kk/orders", q="R-1").text
    assert f"1 x {SKU}" in text
    assert '<td data-label="country">FR</td>' in text
    assert 'href="/dags/shop/runs/run%207">shop</a>' in text


def csv_of(site: Site, kind: str = "orders", **asked: str) -> dict[str, dict[str, str]]:
    answer = site.get(f"/kk/{kind}.csv", **asked)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")))
    return {next(iter(row.values())): row for row in rows}


def test_csv_has_what_the_ledger_has_of_each_order(site: Site):
    row = csv_of(site)["R-1"]
    assert row.pop("time (UTC)")
    assert row == {
        "order number": "R-1",
        "generation": "1",
        "state": "rejected",
        "kkOrderIds": "",
        "goods": f"1 x {SKU}",
        "country": "FR",
        "dag": "shop",
        "run": "run 7",
        "code": "40010",
        "message": "sold out",
    }
    assert csv_of(site, "refunds")["1001-whole"]["refund numbers"] == ""


def test_csv_runs_no_formula(site: Site):
    for start in "=+-@":
        record(site.ledger, f"{start}1+1", "rejected", code=1, message=f'{start}HYPERLINK("x")')
        row = csv_of(site, q=f"{start}1+1")[f"'{start}1+1"]
        assert row["message"] == f'\'{start}HYPERLINK("x")'


def test_csv_needs_the_same_rights_as_the_list(site: Site):
    for path in ("/kk/orders.csv", "/kk/refunds.csv"):
        assert site.get(path, user="victor").status_code == 403
        assert site.get(path, user="paula", kk_conn_id="kk_of_others").status_code == 404
        assert "5001" not in site.get(path, user="paula", kk_conn_id="kk_with_ledger_of_others").text


def test_an_order_leads_back_to_where_it_was_opened(site: Site):
    for path in ("/kk/orders?state=held&country=FR&sort=number", RUN):
        text = html.unescape(site.get(path).text)
        (address,) = [one for one in re.findall(r'href="(/kk/order\?[^"]*)"', text) if "number=H-1&" in one]
        page = html.unescape(site.get(address).text)
        ((back, name),) = re.findall(r'aria-label="Back"><a href="([^"]*)">Back to the (\w+)<', page)
        assert name == ("run" if path == RUN else "orders")
        assert back == RUN or {"state=held", "country=FR", "sort=number"} <= set(
            back.partition("?")[2].split("&")
        )
        assert "H-1" in site.get(back).text


def test_fulfilment_and_parcels_are_shown_where_the_status_tables_are(site: Site):
    assert "Fulfilment" not in site.get("/kk/order", number="C-1").text
    engine = site.ledger.storage.database.engine
    tables = StatusTables(engine, site.ledger.storage.host, site.ledger.storage.account)
    tables.create()
    assert "do not have this order yet" in site.get("/kk/order", number="C-1").text
    parcel = {"id": "P-9", "status": "shipped", "carrier": "DHL", "trackingCode": "T-77"}
    seen = rows_of(KKOrder.read({"id": "1001", "status": "shipped", "fulfillments": [parcel]}))
    assert seen is not None
    tables.store([seen], datetime(2026, 1, 2, tzinfo=UTC))
    text = site.get("/kk/order", number="C-1").text
    assert "complete up to 2026-01-02 00:00:00" in text
    for word in ("1001", "<b>shipped</b>", "DHL", "T-77"):
        assert word in text
    with engine.begin() as db:
        tables.metadata.drop_all(db)


def test_a_state_and_a_period_choose_orders(site: Site):
    held = site.get("/kk/orders", state="held").text
    assert "H-1" in held
    assert "C-1" not in held
    assert "No orders in this period" in site.get("/kk/orders", since="2020-01-01", until="2020-02-01").text


@pytest.mark.parametrize("text", ["C-1", "C-", "#C-1", "1001", "1002", " 1002 "])
def test_an_order_is_found_by_the_beginning_of_its_number_and_by_id(site: Site, text: str):
    found = site.get("/kk/orders", q=text).text
    assert "C-1" in found
    assert "R-1" not in found


def test_an_order_shows_its_attempts_and_links_their_runs(site: Site):
    text = site.get("/kk/order", number="R-1").text
    assert 'href="/dags/shop/runs/run%207"' in text
    assert "code 40010" in text
    assert "sold out" in text
    assert site.get("/kk/order", number="none").status_code == 404


def test_a_run_shows_what_it_sent(site: Site):
    text = site.get(RUN).text
    assert all(key in text for key in ("C-1", "R-1", "H-1", "1001-whole"))
    numbers = re.findall(r'<th scope="row"><a[^>]*>([^<]*)<', text)
    assert [one for one in numbers if one in ("C-1", "R-1", "H-1")] == ["H-1", "R-1", "C-1"]
    assert "no orders" in site.get("/kk/runs/shop/another").text


def test_a_page_leads_to_the_next(site: Site):
    for n in range(60):
        record(site.ledger, f"P-{n:02}", "created", ids=(f"9{n:03}",))
    first = site.get("/kk/orders", state="created").text
    older = html.unescape(re.findall(r'rel="next" href="([^"]*)"', first)[0])
    second = site.get(older).text
    shown = [re.findall(r"number=(P-\d\d)", text) for text in (first, second)]
    assert len(shown[0]) == 50
    assert sorted(shown[0] + shown[1]) == [f"P-{n:02}" for n in range(60)]
    assert 'rel="next"' not in second
    assert "1 to 50 of 61" in first
    assert "51 to 61 of 61" in second
    assert 'rel="prev"' in second
    assert "There is no page 9" in site.get("/kk/orders", page="9").text


def test_ledger_content_is_text_and_never_markup(site: Site):
    number = "<script>alert(0)</script>&\"'"
    record(site.ledger, number, "rejected", code=1, message="<script>alert(1)</script>")
    record(refund_ledger(site.ledger), number, "rejected", code=1, message="<script>alert(1)</script>")
    asked = {"number": number, "key": number, "q": number}
    for path in ("/kk/orders", "/kk/order", "/kk/refunds", "/kk/refund"):
        text = site.get(path, **asked).text
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(0)" in text
        assert "&lt;script&gt;alert(1)" in text
    for path in ("/kk/orders", "/kk/refunds", RUN):
        assert "<script>alert" not in site.get(path).text


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("orders", {"since": "x"}, 400),
        ("orders", {"until": "9999-12-31"}, 400),
        ("refunds", {"since": "2026-02-31"}, 400),
        ("orders", {"page": "a"}, 400),
        ("orders", {"page": "-1"}, 400),
        ("refunds", {"page": "9223372036854775808"}, 400),
        ("orders", {"state": "' OR 1=1"}, 400),
        ("orders", {"q": "A\0"}, 400),
        ("orders", {"sort": "version"}, 400),
        ("orders", {"country": "France"}, 400),
        ("orders.csv", {"code": "1 OR 1"}, 400),
        ("orders", {"dag": "a\0"}, 400),
        ("order", {"number": "C-1", "back": "//evil.test"}, 400),
        ("order", {"number": "C-1", "back": "https://evil.test"}, 400),
        ("order", {"number": "C-1", "back": "runs/../../auth/logout"}, 400),
        ("order", {"number": "C-1", "back": "orders?x=" + "9" * 2000}, 400),
        ("orders", {"q": "9" * 251}, 400),
        ("order", {"number": "A\nB"}, 400),
        ("runs/shop/a%00b", {}, 400),
        ("runs/shop/a", {"page": "\0"}, 400),
        ("orders", {"kk_conn_id": "<script>another"}, 404),
        ("refund", {"key": "none"}, 404),
        ("order", {}, 404),
        ("nothing", {}, 404),
    ],
)
def test_an_invalid_query_is_reported_and_no_server_error(
    site: Site, path: str, asked: dict[str, str], status: int
):
    answer = site.get(f"/kk/{path}", **asked)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert "<script>another" not in answer.text


def test_a_period_may_be_given_backwards(site: Site):
    text = site.get("/kk/orders", since="2030-01-01", until="2020-01-01").text
    assert 'value="2020-01-01"' in text


# Refunds -------------------------------------------------------------------------------------------


def test_refunds_have_a_page_with_the_commands_for_those_that_are_held(site: Site):
    (open_refunds,) = re.findall(r'href="([^"]*)">1 refund held<', site.get("/kk/orders").text)
    text = site.get(html.unescape(open_refunds)).text
    assert "1001-whole" in text
    assert "H-1" not in text
    assert "kk ledger resolve --refunds 1001-whole --never-created" in html.unescape(text)


@pytest.mark.parametrize("text", ["1001-whole", "1001"])
def test_a_refund_is_found_by_its_key_and_by_the_order_at_kk(site: Site, text: str):
    found = site.get("/kk/refunds", q=text).text
    assert "1001-whole" in found
    assert "1002-whole" not in found


def test_an_order_shows_its_refunds_and_a_refund_its_order(site: Site):
    order = site.get("/kk/order", number="C-1").text.partition("Refunds of this order")[2]
    assert "1001-whole" in order
    assert "--refunds 1001-whole --created REFUND_NO" in order
    refund = site.get("/kk/refund", key="1001-whole").text
    assert "the connection was reset" in refund
    assert 'q=1001"' in refund


# The last word -------------------------------------------------------------------------------------


def test_the_command_of_a_held_order_resolves_it_as_it_is_copied(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name, value in site.connections.items():
        if name.startswith("AIRFLOW_CONN_"):
            # Time enough for a slow machine to read KK's answer.
            monkeypatch.setenv(
                name, value.replace('"timeout_s": 0.01, "lease_s": 0.02', '"timeout_s": 30, "lease_s": 60')
            )
    hold(site.ledger, "H 2")
    commands = [
        html.unescape(line)
        for line in re.findall(r'data-copy="([^"]*)"', site.get("/kk/order", number="H 2").text)
    ]
    never = next(line for line in commands if "--never-created" in line)
    empty: dict[str, Any] = {"list": [], "total": 0}

    with Mocker() as kk:
        kk.get(ANY, json={"code": 10000, "message": "ok", "data": empty})
        assert main(shlex.split(never)[1:]) == 0
    assert state(site.ledger, "H 2") == "not_sent"


# What is broken ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("kk_without_token", "password"),
        ("kk_without_ledger", "orders_page = kk_without_ledger@warehouse"),
        ("kk_lost_ledger", "nowhere"),
        ("kk_new", "has no ledger yet"),
        ("kk_down", "cannot be used"),
        ("kk_odd", "is of type 'snowfall'"),
    ],
)
def test_an_unusable_connection_is_reported_and_no_server_error(site: Site, place: str, words: str):
    for path in ("/kk/orders", "/kk/refunds", "/kk/order?number=1", "/kk/refund?key=1"):
        answer = site.get(f"{path}{'&' if '?' in path else '?'}kk_conn_id={place}")
        assert answer.status_code == 200
        assert words in html.unescape(answer.text)
        assert "pw-of-db" not in answer.text
        assert TOKEN not in answer.text
    assert not (site.ledger_file.parent / "none-yet.db").exists()


def test_a_runs_tab_leaves_out_unusable_connections(site: Site):
    everywhere = html.unescape(site.get(RUN).text)
    assert "C-1" in everywhere
    assert re.search(r"\d ledgers cannot be read now", everywhere)
    for place in ("kk_without_token", "kk_lost_ledger", "kk_down", "kk_odd", "kk_new"):
        told = html.unescape(site.get(RUN, kk_conn_id=place).text)
        assert "A ledger cannot be read now" in told
        for words in ("password", "nowhere", "127.0.0.1", "snowfall", "has no ledger yet"):
            assert words not in told + everywhere
