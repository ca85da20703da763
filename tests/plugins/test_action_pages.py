"""Resolving and retrying orders on the Orders page: rights, origin, token, plan, and nothing twice."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_kk.delivery.sql.storage import refund_ledger
from tests.cli.conftest import hold, record, refuse, state
from tests.plugins.conftest import HAS_PAGES, PASSWORDS, Site, kk_connection, served, sqlite

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.airflow.support import AirflowHome

pytestmark = [
    pytest.mark.range,
    pytest.mark.skipif(not HAS_PAGES, reason="Airflow has pages of plugins since 3.1"),
]
WHY = "looked at KK's site"

#: Olga may edit every connection, paula may only read them, victor may see DAGs only.
AUTH_MANAGER = """
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class ReadingAuthManager(SimpleAuthManager):
    def is_authorized_connection(self, *, method, user, details=None):
        if user.username == "paula" and method != "GET":
            return False
        return super().is_authorized_connection(method=method, user=user, details=details)
"""


@pytest.fixture(scope="module")
def kk() -> Iterator[SandboxServer]:
    from airflow_provider_kk.sandbox.server import SandboxServer

    with SandboxServer() as server:
        yield server


@pytest.fixture(scope="module")
def site(
    migrated_home: AirflowHome, kk: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A site whose KK answers."""
    folder = tmp_path_factory.mktemp("resolving")
    home = migrated_home.copy(folder / "airflow")
    times = {"timeout_s": 30, "lease_s": 60}
    connection = kk_connection(ledger_conn_id="ledger", **times)
    home.connections["kk_default"] = {**connection, "host": kk.url, "password": kk.token}
    home.connections["kk_silent"] = kk_connection(ledger_conn_id="ledger", account="silent", **times)
    home.connections["ledger"] = sqlite(folder / "ledger.db")
    (home.path / "config").mkdir(exist_ok=True)
    (home.path / "config" / "reading_auth_manager.py").write_text(AUTH_MANAGER)
    home.env |= {
        "AIRFLOW__CORE__AUTH_MANAGER": "reading_auth_manager.ReadingAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "olga:op,paula:op,victor:viewer",
    }
    with served(home, folder / "ledger.db", kk_url=kk.url) as site:
        yield site


class Browser:
    """A user's browser: a cookie, and forms that are sent as they are on a page."""

    def __init__(self, site: Site, user: str = "olga") -> None:
        self._site = site
        self._session = requests.Session()
        self._session.trust_env = False
        token = self._session.post(
            f"{site.url}/auth/token", json={"username": user, "password": PASSWORDS[user]}, timeout=300
        ).json()["access_token"]
        self._session.cookies.set("_token", token)
        self.headers = {"Origin": site.url}

    def get(self, path: str, **params: Any) -> requests.Response:
        return self._session.get(self._site.url + path, params=params, timeout=300)

    def post(
        self, path: str, fields: list[tuple[str, str]], headers: dict[str, str] | None = None
    ) -> requests.Response:
        return self._session.post(
            self._site.url + path,
            data=fields,
            headers=self.headers if headers is None else headers,
            timeout=300,
            allow_redirects=False,
        )

    def choose(self, *keys: str, kind: str = "orders", conn_id: str = "kk_default") -> requests.Response:
        storage = self._site.ledger.storage
        rows = (storage.of_refunds() if kind == "refunds" else storage).look_up(keys)
        return self.get(
            "/kk/resolve",
            kk_conn_id=conn_id,
            kind=kind,
            row=[f"{rows[key].version}~{key}" for key in keys],
            back="orders?state=held",
        )

    def plan(self, *keys: str, kind: str = "orders", **values: str) -> requests.Response:
        page = self.choose(*keys, kind=kind)
        assert page.status_code == 200, page.text
        return self.post("/kk/resolve/plan", fields_of(page.text, why=WHY, **values))

    def resolve(self, *keys: str, kind: str = "orders", **values: str) -> str:
        """Choose, plan, confirm; the text of the page that says what became of it."""
        plan = self.plan(*keys, kind=kind, **values)
        assert plan.status_code == 200, plan.text
        return self.confirm(fields_of(plan.text, **values))

    def confirm(self, fields: list[tuple[str, str]]) -> str:
        answer = self.post("/kk/resolve/apply", fields)
        assert answer.status_code == 303, answer.text
        result = self._session.get(self._site.url + answer.headers["Location"], timeout=300)
        assert result.status_code == 200
        return html.unescape(result.text)


def fields_of(page: str, **values: str) -> list[tuple[str, str]]:
    """The hidden fields of a page's form, and what the user fills in."""
    (form,) = re.findall(r'<form class="resolve".*?</form>', page, re.S)
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form)
    return [(name, html.unescape(value)) for name, value in hidden if name not in values] + [*values.items()]


@pytest.fixture
def olga(site: Site) -> Browser:
    return Browser(site)


def resolved_by(site: Site, key: str) -> str:
    return site.ledger.look_up([key])[key].resolved_by


# What is done --------------------------------------------------------------------------------------


def test_a_held_order_is_resolved_and_the_ledger_keeps_who_and_why(site: Site, olga: Browser):
    hold(site.ledger, "N-1")
    plan = olga.plan("N-1", choice="never_created")
    assert "becomes not sent, and the next sync that selects it sends it" in plan.text
    assert state(site.ledger, "N-1") == "held"  # a plan does nothing
    result = olga.confirm(fields_of(plan.text))
    assert "1 of 1 order done" in result
    assert state(site.ledger, "N-1") == "not_sent"
    assert resolved_by(site, "N-1") == f"olga: {WHY}"
    assert "orders?state=held" in result  # the way back


def test_several_held_orders_are_resolved_at_once(site: Site, olga: Browser):
    for key in ("S-1", "S-2", "S-3"):
        hold(site.ledger, key)
    result = olga.resolve("S-1", "S-2", "S-3", choice="never_created")
    assert "3 of 3 orders done" in result
    assert {state(site.ledger, key) for key in ("S-1", "S-2", "S-3")} == {"not_sent"}


def test_an_order_that_kk_lists_by_now_is_not_resolved_as_never_created(
    site: Site, olga: Browser, kk: SandboxServer
):
    hold(site.ledger, "L-1")
    hold(site.ledger, "L-2")
    kk_order_id = make_at_kk(kk, "L-1")
    plan = olga.plan("L-1", "L-2", choice="never_created")
    assert f"KK lists {kk_order_id} for it by now" in plan.text
    assert "Confirm for 1 order" in plan.text
    olga.confirm(fields_of(plan.text))
    assert (state(site.ledger, "L-1"), state(site.ledger, "L-2")) == ("held", "not_sent")


def test_an_order_is_resolved_as_created_under_its_ids(site: Site, olga: Browser, kk: SandboxServer):
    hold(site.ledger, "K-1")
    kk_order_id = make_at_kk(kk, "K-1")
    assert "KK lists no order" in olga.plan("K-1", choice="created", ids="12345").text
    assert f"created as {kk_order_id}" in olga.resolve("K-1", choice="created", ids=kk_order_id)
    assert site.ledger.look_up(["K-1"])["K-1"].kk_order_ids == (kk_order_id,)


def test_other_goods_have_to_be_accepted(site: Site, olga: Browser, kk: SandboxServer):
    hold(site.ledger, "G-1")
    kk_order_id = make_at_kk(kk, "G-1", quantity=5)
    plan = olga.plan("G-1", choice="created", ids=kk_order_id)
    assert "Warning: the goods of G-1 are" in plan.text
    assert "accept the other goods" in olga.confirm(fields_of(plan.text))
    assert state(site.ledger, "G-1") == "held"
    assert "1 of 1 order done" in olga.confirm(fields_of(plan.text, accept_other_goods="yes"))
    assert state(site.ledger, "G-1") == "created"


def test_a_rejected_order_is_retried_without_its_backoff(site: Site, olga: Browser):
    refuse(site.ledger, "B-1")
    assert site.ledger.look_up(["B-1"])["B-1"].retry_after > 0
    assert "1 of 1 order done" in olga.resolve("B-1", choice="retry")
    assert site.ledger.look_up(["B-1"])["B-1"].retry_after == 0
    assert resolved_by(site, "B-1") == f"olga: {WHY}"


def test_a_created_order_is_ordered_again_as_a_new_generation(site: Site, olga: Browser, kk: SandboxServer):
    kk_order_id = make_at_kk(kk, "A-1")
    record(site.ledger, "A-1", "created", ids=(kk_order_id,))
    plan = olga.plan("A-1", choice="order_again")
    assert f"(generation 2), in addition to {kk_order_id}" in plan.text
    olga.confirm(fields_of(plan.text))
    row = site.ledger.look_up(["A-1"])["A-1"]
    assert (row.generation, row.state.value, row.resolved_by) == (2, "not_sent", f"olga: {WHY}")


def test_a_held_refund_is_resolved(site: Site, olga: Browser, kk: SandboxServer):
    kk_order_id = make_at_kk(kk, "F-1")
    key = f"{kk_order_id}-whole"
    hold(refund_ledger(site.ledger), key)
    assert "1 of 1 refund done" in olga.resolve(key, kind="refunds", choice="never_created")
    assert site.ledger.storage.of_refunds().look_up([key])[key].state.value == "not_sent"


def make_at_kk(kk: SandboxServer, number: str, quantity: int = 1) -> str:
    from airflow_provider_kk.api.client import KKClient
    from tests.cli.conftest import SKU

    order = {
        "custom_order_number": number,
        "items": [{"sku": SKU, "quantity": quantity}],
        "address": {
            "recipient": "A", "country": "FR", "province": "P", "city": "C", "street1": "S", "zip": "75001",
            "phone": "1",
        },
    }  # fmt: skip
    with KKClient(kk.url, kk.token) as client:
        (kk_order_id,) = client.create_order(order)
    return kk_order_id


def test_an_order_is_cancelled_at_kk_once(site: Site, olga: Browser, kk: SandboxServer):
    kk_order_id = make_at_kk(kk, "X-1")
    record(site.ledger, "X-1", "created", ids=(kk_order_id,))
    plan = olga.plan("X-1", choice="cancel")
    assert f"KK is asked once to refund all of {kk_order_id}" in plan.text
    assert refunds_at_kk(kk, kk_order_id) == []
    for _ in range(2):
        assert "1 of 1 order done" in olga.confirm(fields_of(plan.text))
    (refund,) = refunds_at_kk(kk, kk_order_id)
    assert refund.remark is not None
    assert WHY in refund.remark
    (attempt,) = refund_ledger(site.ledger).attempts([f"{kk_order_id}-whole"])
    assert attempt.task_id == "olga"


def test_an_order_that_is_not_at_kk_is_not_cancelled(site: Site, olga: Browser):
    record(site.ledger, "X-2", "created", ids=("1999999999999",))
    hold(site.ledger, "X-3")
    assert 'value="cancel"' not in olga.choose("X-3").text
    plan = olga.plan("X-2", "X-3", choice="cancel")
    assert "X-3 is held: resolve it first" in html.unescape(plan.text)


def refunds_at_kk(kk: SandboxServer, kk_order_id: str) -> list[Any]:
    from airflow_provider_kk.api.client import KKClient

    with KKClient(kk.url, kk.token) as client:
        return list(client.get_refunds(kk_order_id))


# Nothing twice -------------------------------------------------------------------------------------


def test_a_form_that_is_sent_twice_acts_once(site: Site, olga: Browser):
    hold(site.ledger, "T-1")
    fields = fields_of(olga.plan("T-1", choice="never_created").text)
    assert "1 of 1 order done" in olga.confirm(fields)
    version = site.ledger.look_up(["T-1"])["T-1"].version
    second = olga.confirm(fields)
    assert "0 of 1 order done" in second
    assert f"it changed meanwhile, and is not sent now, resolved by olga: {WHY}" in second
    assert site.ledger.look_up(["T-1"])["T-1"].version == version


def test_two_clicks_at_the_same_time_act_once(site: Site, olga: Browser):
    record(site.ledger, "T-6", "rejected", code=1)
    fields = fields_of(olga.plan("T-6", choice="order_again").text)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: Browser(site).confirm(fields), range(4)))
    assert sum("1 of 1 order done" in one for one in results) == 1
    assert site.ledger.look_up(["T-6"])["T-6"].generation == 2


def test_ordering_again_twice_opens_one_generation(site: Site, olga: Browser):
    record(site.ledger, "T-2", "rejected", code=1)
    fields = fields_of(olga.plan("T-2", choice="order_again").text)
    results = [olga.confirm(fields) for _ in range(3)]
    assert [("1 of 1" in one) for one in results] == [True, False, False]
    assert site.ledger.look_up(["T-2"])["T-2"].generation == 2


def test_an_order_that_moved_while_the_page_was_open_stays_as_it_is(site: Site, olga: Browser):
    hold(site.ledger, "T-3")
    hold(site.ledger, "T-4")
    chosen = olga.choose("T-3", "T-4").text
    olga.resolve("T-3", choice="never_created")
    plan = olga.post("/kk/resolve/plan", fields_of(chosen, why="late", choice="never_created"))
    assert "it changed meanwhile" in plan.text
    olga.confirm(fields_of(plan.text))
    assert resolved_by(site, "T-3") == f"olga: {WHY}"
    assert resolved_by(site, "T-4") == "olga: late"


def test_reloading_the_result_does_nothing(site: Site, olga: Browser):
    hold(site.ledger, "T-5")
    fields = fields_of(olga.plan("T-5", choice="never_created").text)
    address = olga.post("/kk/resolve/apply", fields).headers["Location"]
    before = site.ledger.look_up(["T-5"])
    assert [olga.get(address).status_code for _ in range(2)] == [200, 200]
    assert site.ledger.look_up(["T-5"]) == before
    assert olga.get(address.replace("done=", "done=x")).status_code == 403
    assert Browser(site, "paula").get(address).status_code == 403


# Pause and resume ----------------------------------------------------------------------------------


def test_sending_is_paused_and_resumed_with_who_and_why(site: Site, olga: Browser):
    record(site.ledger, "P-1", "created", ids=("7001",))
    orders = html.unescape(olga.get("/kk/orders", kk_conn_id="kk_default").text)
    (address,) = re.findall(r'<a href="(/kk/pause[^"]*)">Pause all sending</a>', orders)
    page = olga.get(address)
    assert "Within seconds, no DAG, task, machine or command" in page.text
    assert site.ledger.storage.pause() is None  # looking pauses nothing
    answer = olga.post("/kk/pause/begin", fields_of(page.text, why="wrong query"))
    assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (303, "/kk/orders")
    pause = site.ledger.storage.pause()
    assert pause is not None
    assert (pause.by, pause.why) == ("olga", "wrong query")
    version = site.ledger.look_up(["P-1"])["P-1"].version
    views = (
        "/kk/orders",
        "/kk/refunds",
        "/kk/order?number=P-1",
        "/kk/runs/shop/run%207",
        f"/kk/resolve?kk_conn_id=kk_default&kind=orders&row={version}~P-1",
    )
    for view in views:
        text = html.unescape(olga.get(view).text)
        assert re.search(r"Sending is paused</b>[^<]* by olga: wrong query", text), view
        assert ">Resume sending</a>" in text
    reader = html.unescape(Browser(site, "paula").get("/kk/orders").text)
    assert "by olga: wrong query" in reader
    assert "/kk/pause" not in reader

    resuming = olga.get("/kk/pause", kk_conn_id="kk_default").text
    assert olga.post("/kk/pause/end", fields_of(resuming, why="fixed")).status_code == 303
    assert site.ledger.storage.pause() is None
    assert "Sending is paused" not in olga.get("/kk/orders").text


def test_a_pause_is_begun_and_ended_once_and_only_as_it_was_seen(site: Site, olga: Browser):
    page = olga.get("/kk/pause", kk_conn_id="kk_default").text
    answers = [olga.post("/kk/pause/begin", fields_of(page, why=f"try {n}")) for n in range(2)]
    assert [one.status_code for one in answers] == [303, 409]
    assert "by olga: try 0" in html.unescape(answers[1].text)
    stale = olga.get("/kk/pause", kk_conn_id="kk_default").text
    site.ledger.storage.end_pause("ann", "done")
    site.ledger.storage.add_pause("ann", "another cause")
    answer = olga.post("/kk/pause/end", fields_of(stale, why="fixed"))
    assert answer.status_code == 409
    assert "by ann: another cause" in html.unescape(answer.text)
    pause = site.ledger.storage.pause()
    assert pause is not None
    assert pause.by == "ann"
    site.ledger.storage.end_pause("ann", "done")


@pytest.mark.parametrize("user", ["paula", "victor"])
def test_who_may_not_edit_the_connection_pauses_nothing(site: Site, olga: Browser, user: str):
    fields = fields_of(olga.get("/kk/pause", kk_conn_id="kk_default").text, why="x")
    other = Browser(site, user)
    assert other.get("/kk/pause", kk_conn_id="kk_default").status_code == 403
    assert other.post("/kk/pause/begin", fields).status_code == 403
    assert olga.post("/kk/pause/begin", fields, headers={"Origin": "https://evil.test"}).status_code == 403
    without_token = [(name, value) for name, value in fields if name != "token"]
    assert olga.post("/kk/pause/begin", without_token).status_code == 403
    assert site.ledger.storage.pause() is None


# Who may, and from where ---------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["paula", "victor"])
def test_who_may_not_edit_the_connection_resolves_nothing(site: Site, olga: Browser, user: str):
    hold(site.ledger, f"R-{user}")
    fields = fields_of(olga.plan(f"R-{user}", choice="never_created").text)
    other = Browser(site, user)
    assert other.choose(f"R-{user}").status_code == 403
    for path in ("plan", "apply"):
        assert other.post(f"/kk/resolve/{path}", fields).status_code == 403
    assert state(site.ledger, f"R-{user}") == "held"
    for path in ("/kk/orders", f"/kk/order?number=R-{user}"):
        assert "/kk/resolve" in olga.get(path).text
        assert "/kk/resolve" not in other.get(path).text


def test_without_a_login_nothing_is_done(site: Site, olga: Browser):
    hold(site.ledger, "W-1")
    fields = fields_of(olga.plan("W-1", choice="never_created").text)
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            f"{site.url}/kk/resolve/apply", data=fields, headers={"Origin": site.url}, timeout=300
        )
    assert answer.status_code == 401
    assert state(site.ledger, "W-1") == "held"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {},
        {"Origin": "{own}", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "{own}", "Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:1", "Referer": "{own}"},
    ],
)
def test_a_form_of_another_site_does_nothing(site: Site, olga: Browser, headers: dict[str, str]):
    if "E-1" not in site.ledger.look_up(["E-1"]):
        hold(site.ledger, "E-1")
    fields = fields_of(olga.plan("E-1", choice="never_created").text)
    sent = {name: value.replace("{own}", site.url) for name, value in headers.items()}
    for path in ("plan", "apply"):
        answer = olga.post(f"/kk/resolve/{path}", fields, headers=sent)
        assert answer.status_code == 403
        assert "did not come from this page" in html.unescape(answer.text)
    assert state(site.ledger, "E-1") == "held"


def test_a_form_without_its_users_token_does_nothing(site: Site, olga: Browser):
    hold(site.ledger, "C-1")
    fields = fields_of(olga.plan("C-1", choice="never_created").text)
    foreign = Browser(site, "paula").get("/kk/orders").text
    assert "token" not in foreign  # who may not act gets no token at all
    for token in ("", "x", "WyIxIiwiIl0.aaaa.bbbb"):
        broken = [(name, token if name == "token" else value) for name, value in fields]
        assert olga.post("/kk/resolve/apply", broken).status_code == 403
    assert state(site.ledger, "C-1") == "held"


# What is wrong is reported -------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["", "   ", "x" * 181, "a\nb"])
def test_a_reason_is_required(site: Site, olga: Browser, why: str):
    if "Y-1" not in site.ledger.look_up(["Y-1"]):
        hold(site.ledger, "Y-1")
    fields = fields_of(olga.plan("Y-1", choice="never_created").text, why=why)
    for path in ("plan", "apply"):
        answer = olga.post(f"/kk/resolve/{path}", fields)
        assert answer.status_code == 400
        assert "Enter a reason" in answer.text
    assert state(site.ledger, "Y-1") == "held"


def test_no_choice_no_order_and_too_many_ids_are_reported(site: Site, olga: Browser):
    for key in ("Z-1", "Z-2"):
        hold(site.ledger, key)
    page = olga.choose("Z-1", "Z-2").text
    assert 'value="created"' not in page  # its ids are of one order
    assert 'value="retry"' not in page
    for values in (
        {"choice": ""},
        {"choice": "delete"},
        {"choice": "created"},
        {"choice": "created", "ids": "1,2"},
    ):
        answer = olga.post("/kk/resolve/plan", fields_of(page, why=WHY, **values))
        assert answer.status_code == 409
        assert 'role="alert"' in answer.text
    assert olga.get("/kk/resolve", kk_conn_id="kk_default", kind="orders").status_code == 400
    for kind, conn_id in (("shops", "kk_default"), ("orders", "nowhere")):
        assert olga.get("/kk/resolve", kk_conn_id=conn_id, kind=kind, row="v~Z-1").status_code in (400, 404)
    assert olga.get("/kk/resolve", kk_conn_id="kk_default", kind="orders", row="Z-1").status_code == 400


def test_while_kk_does_not_answer_nothing_is_done(site: Site, olga: Browser):
    from tests.plugins.conftest import ledger_in

    silent = ledger_in(site.ledger_file, "silent")
    hold(silent, "Q-1")
    version = silent.look_up(["Q-1"])["Q-1"].version
    page = olga.get("/kk/resolve", kk_conn_id="kk_silent", kind="orders", row=f"{version}~Q-1").text
    for path in ("plan", "apply"):
        fields = fields_of(page, why=WHY, choice="never_created")
        answer = olga.post(f"/kk/resolve/{path}", fields)
        assert answer.status_code == 409
        assert "Nothing changed" in html.unescape(answer.text)
    assert silent.look_up(["Q-1"])["Q-1"].version == version
    silent.close()


def test_ids_and_numbers_that_are_markup_stay_text(site: Site, olga: Browser):
    odd = "<script>1</script>"
    hold(site.ledger, odd)
    for page in (
        olga.choose(odd),
        olga.plan(odd, choice="created", ids=odd),
        olga.plan(odd, choice="never_created"),
    ):
        assert "<script>1" not in page.text
        assert "&lt;script&gt;1" in page.text
