# ruff: noqa: RUF001
"""How cells are read: the same order, a fault or a notice, and never another order."""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.api.clean_text import check_encoding, tidy
from airflow_provider_kk.api.errors import Fault, InvalidOrderError
from airflow_provider_kk.api.models import Order
from tests.damages import CLEAN, DamagedCell, clean_rows, damaged_cells, is_about, order_of, spellings_of

ROW = {
    "custom_order_number": "A-1",
    "country": "FR",
    "phone": "+33 1 00",
    "recipient": "Ida Test",
    "province": "IDF",
    "sku": "FWXW00290_WHT_M",
    "quantity": "1",
}


def read(**cells: Any) -> tuple[dict[str, Any], list[str]]:
    """The fields of the order, flat, and the paths of its notices."""
    notices: list[Fault] = []
    order = Order.parse(order_of(ROW | cells), notices)
    dumped = order.model_dump()
    return {**dumped.pop("address"), **dumped.pop("items")[0], **dumped}, [one.path for one in notices]


def fault_of(field: str, value: Any) -> str:
    with pytest.raises(InvalidOrderError) as caught:
        Order.parse(order_of(ROW | {field: value}))
    (fault,) = caught.value.faults
    assert is_about(fault.path, field)
    return fault.message


@given(clean_rows())
def test_clean_cells_are_read_as_they_are_without_a_notice(row: dict[str, str]) -> None:
    found, notices = read(**row)

    assert found | {"quantity": str(found["quantity"]), "channel_type": None} == row | {"channel_type": None}
    assert notices == []


@given(clean_rows(), damaged_cells())
def test_a_damaged_cell_is_the_meant_value_or_a_fault_or_has_a_notice(
    row: dict[str, str], cell: DamagedCell
) -> None:
    row[cell.field] = cell.clean
    meant, _ = read(**row)
    faults: list[str] = []
    try:
        found, notices = read(**row | {cell.field: cell.value})
    except InvalidOrderError as error:
        faults = [fault.path for fault in error.faults]

    if faults:
        assert cell.outcome in ("fault", "doubt"), cell
        assert [is_about(path, cell.field) for path in faults] == [True]
        return
    assert cell.outcome != "fault", (cell, found)
    if cell.outcome == "same":
        assert (found, notices) == (meant, []), cell
    else:
        assert [is_about(path, cell.field) for path in notices] == [True], cell
        assert {**found, cell.field: None} == {**meant, cell.field: None}
    if cell.outcome == "blank":
        assert found[cell.field] is None


def test_tidying_text_that_composes_around_a_joiner_twice_changes_nothing() -> None:
    once = tidy("e\u0301\u200c\u0301", "remark")

    assert tidy(once, "remark") == once


@pytest.mark.parametrize("field", sorted(CLEAN))
@given(st.data())
def test_tidying_twice_changes_nothing(field: str, data: st.DataObject) -> None:
    text = data.draw(st.text("'\"=+#. \u200b\u200c\u200d\u00a0e\u0301\u06cc1") | st.text())

    once = tidy(text, field)

    assert tidy(once, field) == once


@pytest.mark.parametrize("spelling", [*spellings_of(1007)], ids=repr)
def test_all_spellings_of_an_order_number_are_one_number(spelling: object) -> None:
    if not isinstance(spelling, bytes):  # Only databases yield bytes.
        assert read(custom_order_number=spelling)[0]["custom_order_number"] == "1007"


@pytest.mark.parametrize("number", ["#1001", "1E5", "2024E-01", "1007.1", "A'1", "12-34", "A 7"])
def test_order_numbers_that_only_look_damaged_are_kept(number: str) -> None:
    assert read(custom_order_number=number) == (read(custom_order_number=number)[0], [])
    assert read(custom_order_number=number)[0]["custom_order_number"] == number


@pytest.mark.parametrize(
    "number", ["1,007", "1.007", "1 007", "3.37824E+10", "1e+16", "=A1", "#REF!", "1&nbsp;"]
)
def test_an_order_number_that_may_be_another_one_is_a_fault(number: str) -> None:
    fault_of("custom_order_number", number)


class TestForeignFiles:
    """Kinds of cells from files of shops and spreadsheets."""

    @pytest.mark.parametrize(
        ("field", "value", "meant"),
        [
            ("zip", "'02134", "02134"),
            ("phone", "'+16175550100", "+16175550100"),
            ("zip", '="06000"', "06000"),
            ("street1", "'12 Main St", "12 Main St"),
        ],
    )
    def test_a02_a04_quotes_of_spreadsheets_are_stripped(self, field: str, value: str, meant: str) -> None:
        assert read(**{field: value})[0][field] == meant

    @pytest.mark.parametrize("name", ["'t Hof", "O'Neil", "'s-Gravenhage", "'Ndrangheta"])
    def test_a02_apostrophes_of_names_are_kept(self, name: str) -> None:
        assert read(recipient=name)[0]["recipient"] == name

    @pytest.mark.parametrize("value", ["3.37824E+10", "#########", "#N/A"])
    def test_a04_damaged_phones_are_faults(self, value: str) -> None:
        fault_of("phone", value)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("street1", "#N/A"),
            ("street2", "#REF!"),
            ("province", "#VALUE!"),
            ("zip", "#NAME?"),
            ("remark", "Total: #DIV/0!"),
        ],
    )
    def test_a04_errors_of_spreadsheets_are_faults_in_optional_fields_too(
        self, field: str, value: str
    ) -> None:
        assert "spreadsheet" in fault_of(field, value)

    def test_a05_floats_and_missing_values_of_data_frames(self) -> None:
        found, notices = read(zip="75001.0", phone="33100000000.0", street2="nan", quantity="1.0", city=r"\N")

        assert (found["zip"], found["phone"], found["quantity"]) == ("75001", "33100000000", 1)
        assert (found["street2"], found["city"]) == (None, None)
        assert sorted(notices) == ["address.city", "address.street2"]
        assert "'None'" in fault_of("province", "None")
        assert "'<NA>'" in fault_of("phone", "<NA>")

    @pytest.mark.parametrize(("field", "name"), [("recipient", "Null"), ("city", "NONE"), ("province", "NA")])
    def test_a05_names_that_resemble_missing_values_are_kept(self, field: str, name: str) -> None:
        assert (read(**{field: name})[0][field], read(**{field: name})[1]) == (name, [])

    def test_a05_the_town_none_or_a_missing_value_is_a_fault(self) -> None:
        assert "Italy" in fault_of("city", "None")

    @pytest.mark.parametrize("field", ["street2", "remark", "sale_platform", "channel_type", "zip"])
    def test_templates_that_render_none_leave_optional_fields_blank(self, field: str) -> None:
        found, notices = read(**{field: "None"})

        assert found[field] is None
        assert len(notices) == 1

    @pytest.mark.parametrize(
        ("text", "quantity"),
        [
            ("2,00", 2),
            ("2.00", 2),
            ("2.0", 2),
            ("2,0", 2),
            ("1.234,00", 1234),
            ("1,234.00", 1234),
            ("\uff12", 2),
        ],
    )
    def test_a06_unambiguous_quantities_are_read(self, text: str, quantity: int) -> None:
        assert read(quantity=text)[0]["quantity"] == quantity

    @pytest.mark.parametrize("text", ["1.000", "1.234", "1,000", "12.000", "'1.000"])
    def test_a06_ambiguous_quantities_are_faults(self, text: str) -> None:
        assert "ambiguous" in fault_of("quantity", text)

    @pytest.mark.parametrize("text", ["2,50", "1.5", "-1", "0,00", "1 000", "1.234,50"])
    def test_a06_other_quantities_are_faults(self, text: str) -> None:
        fault_of("quantity", text)

    @pytest.mark.parametrize(
        ("field", "value", "meant"),
        [
            ("phone", "\u202a+33 1 00\u202c", "+33 1 00"),
            ("street1", "1 Rue\u200b Test", "1 Rue Test"),
            ("zip", "\u200b75001\ufeff", "75001"),
            ("zip", "75\u00a0001", "75 001"),
            ("sku", "FWXW00290_WHT_M\u200b", "FWXW00290_WHT_M"),
            ("country", "FR\u200b", "FR"),
            ("quantity", "\u00a02\u00a0", 2),
            ("recipient", "Ida\u00a0 Test", "Ida  Test"),
            ("recipient", "Ida\u200d Test", "Ida Test"),
            ("recipient", "می\u200cخواهم", "می\u200cخواهم"),
            ("recipient", "അവന്\u200d", "അവന്\u200d"),
            ("recipient", "👩\u200d🚀", "👩\u200d🚀"),
        ],
    )
    def test_a15_invisible_characters_are_stripped_outside_of_words(
        self, field: str, value: str, meant: object
    ) -> None:
        assert read(**{field: value})[0][field] == meant

    @pytest.mark.parametrize("text", ["Ida T\ufffdst", "????", "?? ???"])
    def test_a15_lost_characters_are_a_fault(self, text: str) -> None:
        assert "lost" in fault_of("recipient", text)

    @pytest.mark.parametrize(
        "text",
        [
            "JÃ¶rg GrÃ¶ÃŸe",
            "StraÃŸe 1",
            "Jörg StraÃŸe",
            "Ð˜Ð²Ð°Ð½",
            "Â½",
            "donâ€™t",
            "J√∂rg",
            "J├Ârg",
            "JГ¶rg",
        ],
    )
    def test_a15_text_in_another_encoding_is_a_fault_that_shows_a_few_characters(self, text: str) -> None:
        assert "probably means" in fault_of("street1", text)

    @pytest.mark.parametrize(
        "text",
        [
            "JOÃO",
            "IRMÃ",
            "«CAFÉ»",
            "CAFÉ»",
            "NIÑO\u2019S",
            "Spaß\u201d",
            "Сёмин",
            "МЁ",
            "Łódź",
            "Nº 5",
            "L\u2019Écluse",
            "l\u2019été",
            "Jean\u2014Éric",
            "ÅÄÖ",
        ],
    )
    def test_a15_correct_text_is_not_taken_for_another_encoding(self, text: str) -> None:
        assert read(street1=text) == (read(street1=text)[0], [])

    def test_a15_html_entities_are_sent_with_a_warning(self) -> None:
        found, notices = read(recipient="Ida &amp; Otto O&#039;Test")

        assert found["recipient"] == "Ida &amp; Otto O&#039;Test"
        assert notices == ["address.recipient"]
        assert read(recipient="Ida & Otto; B&B")[1] == []

    @pytest.mark.parametrize("phone", ["ida@example.com", "n/a", "-", "none"])
    def test_a23_a_phone_has_a_digit(self, phone: str) -> None:
        fault_of("phone", phone)
        assert read(phone="030 1234 ext. 5")[0]["phone"] == "030 1234 ext. 5"

    def test_a26_composed_and_decomposed_text_are_one_order(self) -> None:
        name = "José Ångström"

        assert read(recipient=unicodedata.normalize("NFD", name)) == read(recipient=name)

    def test_a26_a_width_counts_composed_characters(self) -> None:
        assert read(recipient="e\u0301" * 32)[0]["recipient"] == "é" * 32
        assert "at most 32" in fault_of("recipient", "e\u0301" * 33)


@pytest.mark.parametrize("amount", ["12.50", "0", "0.00", "1.234,50", "12,5", "20%", "€ 12", "12.50 EUR", 0])
@pytest.mark.parametrize("field", ["vat", "ioss"])
def test_a_tax_number_that_is_an_amount_is_a_fault(field: str, amount: object) -> None:
    assert "amount" in fault_of(field, amount)


@pytest.mark.parametrize(
    "number", ["DE123456789", "123456789", "CHE-123.456.789", "0123.456.789", "12 345 678 901"]
)
def test_tax_numbers_are_kept(number: str) -> None:
    assert (read(vat=number)[0]["vat"], read(vat=number)[1]) == (number, [])


def test_an_unusual_ioss_number_has_a_notice() -> None:
    assert read(ioss="IM1234567890")[1] == []
    assert read(ioss="ABC")[1] == ["address.ioss"]


def test_notices_are_given_of_an_invalid_order_too() -> None:
    notices: list[Fault] = []
    with pytest.raises(InvalidOrderError):
        Order.parse(order_of(ROW | {"street2": "nan", "phone": ""}), notices)
    assert [one.path for one in notices] == ["address.street2"]


@given(damaged_cells("recipient") | damaged_cells("street1") | damaged_cells("phone"))
def test_no_notice_or_fault_repeats_a_value(cell: DamagedCell) -> None:
    notices: list[Fault] = []
    try:
        Order.parse(order_of(ROW | {cell.field: cell.value}), notices)
    except InvalidOrderError as error:
        notices += error.faults
    for one in notices:
        assert cell.clean not in one.message


def test_without_ftfy_what_is_uncertain_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy.badness", None)
    assert "may be" in check_encoding("Å‚ódź")


def test_ftfy_decides_where_our_own_check_is_not_certain() -> None:
    pytest.importorskip("ftfy")
    from airflow_provider_kk.api.clean_text import CellError

    with pytest.raises(CellError, match="mojibake"):
        check_encoding("Å\u201ał Ä™ ódź")


@pytest.mark.parametrize("remark", ["=)", "???", "#urgent!", "1E+5", "## ring twice"])
def test_people_may_write_anything_into_a_remark(remark: str) -> None:
    assert (read(remark=remark)[0]["remark"], read(remark=remark)[1]) == (remark, [])


@pytest.mark.parametrize("word", ["nan ", " nan", "None\t", "\u00a0NULL"])
def test_blanks_around_a_missing_value_do_not_make_it_a_value(word: str) -> None:
    assert read(street2=word)[0]["street2"] is None


@pytest.mark.parametrize(
    "field", ["recipient", "street1", "sku", "zip", "phone", "sale_platform", "custom_order_number"]
)
@pytest.mark.parametrize(
    "artefact",
    [
        '["7a"]',
        "['7a']",
        '{"a": 7}',
        "{'a': 7}",
        "[object Object]",
        "b'7a'",
        "{{ params.a7 }}",
        "${A7}",
        "{a7}",
    ],
)
def test_nested_data_and_unfilled_placeholders_are_faults(field: str, artefact: str) -> None:
    assert re.search("is nested data as text|has a placeholder", fault_of(field, artefact))


@pytest.mark.parametrize("name", [r"Andr\u00e9", r"Andr\xe9", "Andr%C3%A9", "Andr=C3=A9", "Andr??", "J??rg"])
def test_escaped_and_lost_letters_are_faults(name: str) -> None:
    assert re.search("escape sequences|lost characters", fault_of("recipient", name))


@pytest.mark.parametrize(
    "name",
    [
        "Ann None",
        "None Smith",
        "nan Lee",
        "Andr?",
        "?ukasz",
        "£ukasz",
        "¯ó³æ",
        "йЧБО рЕФТПЧ",
        r"O\'Neil",
        r"A\nB",
    ],
)
def test_a_name_that_looks_damaged_has_a_notice(name: str) -> None:
    assert read(recipient=name) == (read()[0] | {"recipient": name}, ["address.recipient"])


@pytest.mark.parametrize(
    "name", ["None None", "nan nan", "null, null", "-", ".", "***", "+33 1 00 00", "2026-11-28"]
)
def test_a_recipient_of_missing_parts_or_of_another_column_is_a_fault(name: str) -> None:
    assert re.search("a missing value|has no letter", fault_of("recipient", name))


@pytest.mark.parametrize(
    "name", ["M²B", "Łukasz 7", "LEGO® Shop", "¿Qué?", "d´Or", "N°5 rue", "24/7", "m² Immo", "Иван"]
)
def test_names_with_signs_are_kept(name: str) -> None:
    assert read(street1=name)[0]["street1"] == name


@pytest.mark.parametrize("field", ["zip", "sku", "custom_order_number", "phone"])
@pytest.mark.parametrize(
    "date",
    [
        "1-May",
        "01. Mai",
        "May-26",
        "1-févr.",
        "2026-05-01 00:00:00",
        "01/05/2026 12:30",
        "2026-05-01T00:00:00Z",
    ],
)
def test_a_date_in_place_of_a_code_is_a_fault(field: str, date: str) -> None:
    assert "is a date" in fault_of(field, date)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("custom_order_number", "2026-11-28"),
        ("custom_order_number", "MAY-26"),
        ("custom_order_number", "1007-1"),
        ("sku", "MAR-01"),
        ("zip", "01310-100"),
        ("zip", "VLT 1117"),
        ("zip", "02134-1234"),
        ("phone", "01.02.03.04.05"),
        ("phone", "06/12/3456"),
    ],
)
def test_codes_that_only_look_like_dates_are_kept(field: str, value: str) -> None:
    found, notices = read(**{field: value})

    assert (found[field], notices) == (value, [])


@pytest.mark.parametrize("amount", ["-75001", "75001.5", "75001,5", "75%", "$75,001", "75 €"])
def test_a_zip_that_is_an_amount_is_a_fault(amount: str) -> None:
    assert "is an amount" in fault_of("zip", amount)


@pytest.mark.parametrize("phone", ["-331000000", "331E8"])
def test_a_phone_that_was_calculated_is_a_fault(phone: str) -> None:
    assert "calculated" in fault_of("phone", phone)


@pytest.mark.parametrize("number", ["-", '"', "?", "SO-None", "nan-7", "7_null"])
@pytest.mark.parametrize("field", ["custom_order_number", "sku"])
def test_a_number_or_sku_without_content_is_a_fault(field: str, number: str) -> None:
    assert re.search("no letter and no digit|a missing value|is required", fault_of(field, number))


@pytest.mark.parametrize(
    ("country", "zip_code"),
    [
        ("US", 2134),
        ("US", "2134.0"),
        ("US", "2134-1234"),
        ("US", "501"),
        ("DE", "1067"),
        ("AU", "800"),
        ("RO", "10 011"),
    ],
)
def test_a_zip_without_its_leading_zero_has_a_notice(country: str, zip_code: object) -> None:
    assert read(country=country, zip=zip_code)[1] == ["address.zip"]


@pytest.mark.parametrize(
    ("country", "zip_code"),
    [
        ("US", "02134"),
        ("US", "02134-1234"),
        ("SK", "010 01"),
        ("CH", "8001"),
        ("AU", "0800"),
        ("GB", "123"),
        ("US", "12"),
    ],
)
def test_a_zip_as_long_as_its_country_has_it_is_kept(country: str, zip_code: str) -> None:
    assert read(country=country, zip=zip_code)[1] == []


@pytest.mark.parametrize("field", ["recipient", "province", "street2", "zip", "sku", "custom_order_number"])
@pytest.mark.parametrize("value", ["False", "TRUE", "true"])
def test_a_truth_value_as_text_is_a_fault(field: str, value: str) -> None:
    assert "is True or False" in fault_of(field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("phone", "12 Rue Alpha"),
        ("phone", "N/A 1"),
        ("zip", "Paris"),
        ("zip", "-"),
        ("city", "75001"),
        ("city", "-"),
    ],
)
def test_what_looks_like_another_column_has_a_notice(field: str, value: str) -> None:
    assert read(**{field: value})[1] == [f"address.{field}"]


def test_a_phone_that_is_an_email_address_is_a_fault() -> None:
    assert "is an e-mail address" in fault_of("phone", "ida7@example.com")
