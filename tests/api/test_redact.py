"""Promises of taking customers out of KK's messages."""

from __future__ import annotations

import json
import unicodedata
from html import escape
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.api.redact import redact

NAME, PHONE, STREET = "Zelda O'Markéd", "+33 1 23 45 67 89", "17 Secret Street"
REMARK = "gift for Zelda at door 5; " * 300
CUSTOMER = (NAME, PHONE, STREET, "Orlafas", "75001", REMARK)
MARKED = ("zelda", "markéd", "23 45", "345678", "secret", "orlaf", "75001", "gift")


def test_messages_are_cleared_of_private_texts() -> None:
    secrets = ("Ada Lovelace", "07 82 24 67 93", "12", "")
    text = "recipient ADA  LOVELACE (0782246793, 07-82-24-67-93)\nof house 12, not 1200\0"
    assert redact(text, secrets) == "recipient *** (***, ***) of house ***, not 1200"


@given(st.text(), st.lists(st.text(min_size=4)))
def test_no_hidden_text_of_some_length_is_left(text: str, secrets: list[str]) -> None:
    shown = redact(f"{text} {' '.join(secrets)}", secrets)
    words = {" ".join(secret.split()) for secret in secrets}
    assert not [word for word in words if len(word) >= 4 and word in shown and word.strip("*")]


@pytest.mark.parametrize(
    "message",
    [
        f"recipient {escape(NAME)} is blocked",
        "recipient Zelda O&#39;Mark&eacute;d is blocked",
        f"recipient {escape(escape(NAME))} is blocked",
        f"address {json.dumps(NAME)} is blocked",
        json.dumps(f"address {NAME}, '{NAME}'").replace("'", "\\u0027"),
        f"/orders?recipient={quote(NAME)}&phone={quote(PHONE)}",
        f"/orders?recipient={quote_plus(NAME)}&phone={quote_plus(PHONE)}",
        f"recipient {unicodedata.normalize('NFD', NAME)} is blocked",
        "lastname O'MARKÉD, firstname zelda; O'Markéd Zelda",
        "value too long: '17 Secret Stre...'",
        "city too long: 'Orlafa'",
        f"remark refused: {REMARK}",
        f"remark refused: {REMARK[:200]}...",
        "phone 01 23 45 67 89, 0123456789, 0033123456789, 33 (0)1 23 45 67 89, 23456789",
    ],
)
def test_a_customer_is_redacted_however_kk_spells_the_name(message: str) -> None:
    shown = redact(message, CUSTOMER).lower()

    assert "***" in shown
    assert [word for word in MARKED if word in shown] == []


@pytest.mark.parametrize(
    "message",
    [
        "order ZELDA-1001 exists: SKU FWXW00290_WHT_M, SECRET_M and A-SECRET",
        "country FR: street and recipient must be given, quantity 7654321 at most",
        "too many: 50% (a+b) <3",
    ],
)
def test_numbers_skus_countries_and_kks_own_terms_stay(message: str) -> None:
    assert redact(message, CUSTOMER) == message


def test_a_street_called_street_hides_no_field_s_name() -> None:
    assert redact("street1 is too long: Street of T", ("Street of Towers",)) == "street1 is too long: ***"
