# ruff: noqa: RUF001
"""Which country a name or a code stands for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_kk.api.countries import ALPHA_2, country_candidates, country_code
from airflow_provider_kk.api.errors import Fault, InvalidOrderError
from airflow_provider_kk.api.models import Order
from tests.api.helpers import ORDER


def order_to(country: str) -> dict[str, object]:
    return ORDER | {"address": ORDER["address"] | {"country": country}}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("United States", "US"), ("USA", "US"), ("U.S.A.", "US"), ("UK", "GB"), ("EL", "GR"),
        ("Deutschland", "DE"), ("DEUTSCHLAND", "DE"), ("Germany", "DE"),
        ("Vereinigtes Königreich", "GB"), ("Großbritannien", "GB"), ("Frankreich", "FR"),
        ("España", "ES"), ("espana", "ES"), ("Holland", "NL"), ("Côte d'Ivoire", "CI"),
        ("Cote d’Ivoire", "CI"), ("Viet Nam", "VN"), ("Vietnam", "VN"), ("Russia", "RU"),
        ("South Korea", "KR"), ("Korea, Republic of", "KR"), ("Czechia", "CZ"),
        ("Hong Kong SAR China", "HK"), ("Hong Kong", "HK"), ("Türkiye", "TR"), ("Turkey", "TR"),
        ("Griechenland", "GR"), ("Oesterreich", "AT"), ("Österreich", "AT"),
        ("República Dominicana", "DO"), ("Guinea", "GN"), ("Niger", "NE"), ("法国", "FR"),
        ("Россия", "RU"), ("대한민국", "KR"), ("日本", "JP"), ("Polska", "PL"), ("Sint Maarten", "SX"),
        ("St. Lucia", "LC"), ("Bosnia and Herzegovina", "BA"), ("the Netherlands", "NL"), ("NA", "NA"),
        ("UAE", "AE"), ("DRC", "CD"), ("fr", "FR"), ("St. Vincent and the Grenadines", "VC"),
    ],
)  # fmt: skip
def test_a16_names_and_aliases_of_one_country_become_its_code(name: str, code: str) -> None:
    notices: list[Fault] = []

    order = Order.parse(order_to(name), notices)

    assert order.address.country == code
    assert [one.message for one in notices] == (
        [] if name.upper() == code else [f"{name!r} is read as {code}"]
    )


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("Congo", ["CD", "CG"]), ("Kongo", ["CD", "CG"]), ("Korea", ["KP", "KR"]),
        ("Saint Martin", ["MF", "SX"]), ("Saint-Martin", ["MF", "SX"]),
        ("Virgin Islands", ["VG", "VI"]), ("Dominicana", ["DO"]), ("Germny", ["DE"]),
        ("Griechenlnd", ["GR"]), ("AN", ["BQ", "CW", "SX"]), ("America", ["US"]), ("Macedonia", ["MK"]),
    ],
)  # fmt: skip
def test_a16_an_ambiguous_or_misspelled_country_is_a_fault_with_true_candidates(
    name: str, codes: list[str]
) -> None:
    with pytest.raises(InvalidOrderError) as caught:
        Order.parse(order_to(name))

    (fault,) = caught.value.faults
    assert fault.message.split("Did you mean ")[1].rstrip("?").split(" or ") == [*country_candidates(name)]
    assert [one[:2] for one in country_candidates(name)] == codes


@pytest.mark.parametrize(
    "name", ["XK", "XX", "EN", "ZAR", "Atlantis", "Ida Test", "Europe", "Antilles", "250"]
)
def test_a16_what_is_no_country_is_a_fault_without_candidates(name: str) -> None:
    with pytest.raises(InvalidOrderError, match=r"address\.country"):
        Order.parse(order_to(name))
    assert (country_code(name), country_candidates(name)) == (None, ())


def test_every_country_is_known_by_code_and_by_its_names_in_large_languages() -> None:
    from babel import Locale

    assert len(ALPHA_2) == 249
    for language in ("en", "de", "fr", "es", "it", "nl", "pl", "pt", "zh", "ja", "ru", "ar"):
        names = Locale(language).territories
        # Neighbours have one short name in some languages.
        shared = {"CD", "CG", "GY", "MF", "SX", "VG", "VI"}
        assert {
            code for code in ALPHA_2 - shared if len(names[code]) > 3 and country_code(names[code]) != code
        } == set()


def test_codes_do_not_load_the_names() -> None:
    source = (
        "import sys; from airflow_provider_kk.api.countries import country_code; country_code('fr'); "
        "print('babel' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", source], text=True).strip() == "False"
