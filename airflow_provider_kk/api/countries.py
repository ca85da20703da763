"""Countries: ISO 3166-1 alpha-2 codes, and the codes that names and other codes stand for.

Names come from the CLDR, by way of Babel, which is loaded when the first value is no alpha-2 code.
"""

from __future__ import annotations

import difflib
import functools
import pickle
import re
import unicodedata
from collections.abc import Iterator

_ALPHA_2 = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT
    BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ
    EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY
    HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ
    LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY
    MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY
    QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ
    TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU
    WF WS YE YT ZA ZM ZW
"""
ALPHA_2 = frozenset(_ALPHA_2.split())
"""Every assigned alpha-2 code, upper case."""

#: Countries whose zips are so many digits, of which the first may be zero.
_ZIP_DIGITS = {
    country: digits
    for digits, countries in (
        (4, "AU NO NZ ZA"),
        (5, "AS DE DZ EE ES FI FR GF GP GT GU IT KR LK LT MC MP MQ MX MY PR RE SK SM TR UA US VA VI YT"),
        (6, "CN KZ RO SG"),
    )
    for country in countries.split()
}

_MOST_CANDIDATES = 4

#: The two-letter codes that are no alpha-2 codes, but are used for one country.
_OTHER_CODES = {"UK": "GB", "EL": "GR"}

#: Withdrawn alpha-3 codes, some of which are better known as something else (ZAR is South Africa's currency).
_WITHDRAWN = frozenset({"BUR", "DDR", "FXX", "TMP", "YMD", "ZAR"})

#: CLDR's languages that warehouses are likely to hold names in. Small ones are left out, since a rare
#: language's name for one country may be a common language's name for another.
_LANGUAGES = """
    en de fr es it nl pt pt_PT pl sv da no fi et lv lt cs sk sl hr sr sr_Latn bs mk bg ro hu el sq tr ru uk be
    is ga mt ca gl eu lb af az hy ka kk ky uz mn he ar fa ur hi bn mr gu pa ta te kn ml si ne th lo km my vi
    id ms fil zh zh_Hant ja ko sw
"""

#: What the CLDR does not list: short, former and official names as ISO, shops and people write them.
_ALIASES = {
    "AE": "UAE; Emirates",
    "BA": "Bosnia",
    "BN": "Brunei Darussalam",
    "BO": "Bolivia, Plurinational State of; Plurinational State of Bolivia",
    "BQ": "Bonaire, Sint Eustatius and Saba",
    "BY": "Weißrussland",
    "CD": "Congo, The Democratic Republic of the; Democratic Republic of the Congo; DR Congo; DRC",
    "CG": "Republic of the Congo",
    "CI": "Ivory Coast",
    "CN": "People's Republic of China; PR China; Mainland China",
    "CV": "Cape Verde; Cabo Verde",
    "CZ": """Czech Republic; Česká republika; Tschechische Republik; République tchèque; República Checa;
        Repubblica Ceca""",
    "DE": "Federal Republic of Germany; Bundesrepublik Deutschland; BRD",
    "FK": "Falkland Islands (Malvinas)",
    "FM": "Micronesia, Federated States of; Federated States of Micronesia",
    "GB": """Great Britain; Britain; United Kingdom of Great Britain and Northern Ireland; England; Scotland;
        Wales; Northern Ireland; Großbritannien; Grande-Bretagne; Royaume Uni; Gran Bretaña; Gran Bretagna;
        Grã-Bretanha; Groot-Brittannië; Storbritannien; Wielka Brytania; Angleterre; Inglaterra; Inghilterra;
        Engeland; Schottland; Écosse; Nordirland""",
    "HK": "Hong Kong; Hongkong; Hong Kong SAR; 香港",
    "IE": "Republic of Ireland; Eire",
    "IR": "Iran, Islamic Republic of; Islamic Republic of Iran",
    "KP": "Korea, Democratic People's Republic of; Democratic People's Republic of Korea; DPRK",
    "KR": "Korea, Republic of; Republic of Korea; Korea (South); Korea South; 한국",
    "LA": "Lao People's Democratic Republic; Lao PDR",
    "MD": "Moldova, Republic of; Republic of Moldova",
    "MF": "Saint Martin (French part)",
    "MK": "Macedonia, the former Yugoslav Republic of; Republic of North Macedonia; FYROM",
    "MM": "Myanmar; Burma",
    "MO": "Macau; Macao; Macao SAR; 澳门; 澳門",
    "NL": "Holland; Hollande; Holanda; Olanda",
    "PS": "Palestine; Palestine, State of; State of Palestine; Palestinian Territory, Occupied",
    "RE": "Réunion Island",
    "RU": "Russian Federation",
    "SA": "KSA; Kingdom of Saudi Arabia",
    "SH": "Saint Helena, Ascension and Tristan da Cunha",
    "SK": "Slovak Republic",
    "SX": "Sint Maarten (Dutch part); Saint Martin (Dutch part)",
    "SY": "Syrian Arab Republic",
    "SZ": "Swaziland",
    "TL": "East Timor",
    "TR": "Turkey; Türkiye; Republic of Türkiye",
    "TW": "Taiwan, Province of China; Taiwan, Republic of China",
    "TZ": "Tanzania, United Republic of; United Republic of Tanzania",
    "US": """United States of America; U.S. of A.; Vereinigte Staaten von Amerika; États-Unis d'Amérique;
        Estados Unidos de América; Estados Unidos da América; Stati Uniti d'America; EUA; EEUU;
        EE. UU.; 美國""",
    "VA": "Holy See; Holy See (Vatican City State); Vatican; Vatican City State",
    "VE": "Venezuela, Bolivarian Republic of; Bolivarian Republic of Venezuela",
    "VG": "Virgin Islands, British; Virgin Islands (British)",
    "VI": "Virgin Islands, U.S.; Virgin Islands (US); US Virgin Islands",
    "VN": "Viet Nam; Socialist Republic of Vietnam",
}

#: Names that two countries share, or that are a country's only in part.
_SHARED = {
    "america": ("US",),
    "congo": ("CD", "CG"),
    "guiana": ("GF", "GY"),
    "corea": ("KP", "KR"),
    "coree": ("KP", "KR"),
    "korea": ("KP", "KR"),
    "saint martin": ("MF", "SX"),
}


def country_code(text: str) -> str | None:
    """Return the alpha-2 code that `text` stands for without any doubt, or None.

    Takes alpha-2 and alpha-3 codes, names in about eighty languages and common aliases such as `UK`, in upper
    or lower case and with or without accents.
    """
    code = text.strip().upper()
    if code in ALPHA_2:
        return code
    codes = _exact_matches(text)
    return codes[0] if len(codes) == 1 and codes[0] in ALPHA_2 else None


def lost_zero_of_zip(zip_code: str, country: str) -> str:
    """Return a warning about a zip of too few digits for its country, as without its leading zero."""
    expected, first = _ZIP_DIGITS.get(country, 0), zip_code.partition("-")[0].replace(" ", "")
    if not (first.isdecimal() and 2 < len(first) < expected):
        return ""
    return (
        f"has {len(first)} digits, but a zip in {country} has {expected}: a spreadsheet or a numeric column "
        "may have dropped a leading zero. Select the column as text"
    )


@functools.lru_cache(maxsize=4096)
def country_candidates(text: str) -> tuple[str, ...]:
    """Propose a few alpha-2 codes that `text` may stand for, each with its English name, or none."""
    from babel import Locale
    from babel.core import get_global

    key = _key(text)
    codes: set[str] = set(_SHARED.get(key, ()))
    if not codes and len(key) > 2:
        codes = set(_exact_matches(text)) or _similar(key)
    elif not codes:
        codes = set(get_global("territory_aliases").get(key.upper(), ()))
    names = Locale("en").territories
    found = [f"{code} ({names[code]})" for code in sorted(codes & ALPHA_2)]
    return tuple(found) if len(found) <= _MOST_CANDIDATES else ()


@functools.lru_cache(maxsize=4096)
def _exact_matches(text: str) -> tuple[str, ...]:
    key = _key(text)
    code = key.replace(" ", "").upper()
    if len(key) < 2 or key in _SHARED:
        return ()
    if len(code) == 2 and code.isascii():
        return tuple(filter(None, [code if code in ALPHA_2 else _OTHER_CODES.get(code)]))
    return tuple(sorted(_names().get(key, ())))


def _similar(key: str) -> set[str]:
    """Return the countries whose names hold these words, or are spelled almost so."""
    names = _names()
    words = set(key.split())
    codes = {code for name, owners in names.items() if words <= set(name.split()) for code in owners}
    if codes or len(key) < 4:
        return codes
    alike = [name for name in names if name[0] == key[0] and abs(len(name) - len(key)) < 4]
    close = difflib.get_close_matches(key[:64], alike, n=3, cutoff=0.85)
    return {code for name in close for code in names[name]}


@functools.cache
def _names() -> dict[str, set[str]]:
    """Return every name and alpha-3 code, as `_key` makes it, with the codes of all its territories.

    The codes of regions are in, too: a name that may also mean a region means no country for certain.
    """
    from babel.core import get_global

    names: dict[str, set[str]] = {}
    for code, name in _names_of_cldr():
        key = _key(name)
        # Vietnamese and Turkish have names that are other countries' codes without their accents.
        if len(key) > 3 or not key.isascii():
            names.setdefault(key, set()).add(code)
    for code, aliases in _ALIASES.items():
        for alias in aliases.split(";"):
            names.setdefault(_key(alias), set()).add(code)
    for alpha_3, codes in get_global("territory_aliases").items():
        if len(alpha_3) == 3 and alpha_3.isalpha() and alpha_3 not in _WITHDRAWN and codes[0] in ALPHA_2:
            names.setdefault(alpha_3.lower(), set()).update(codes)
    return names


def _names_of_cldr() -> Iterator[tuple[str, str]]:
    from babel import localedata

    for language in _LANGUAGES.split():
        # Babel's own way of loading a language keeps a megabyte of it in memory for good.
        with open(localedata.resolve_locale_filename(language), "rb") as file:
            territories = pickle.load(file)["territories"]  # noqa: S301 - part of an installed package
        for code, name in territories.items():
            yield code, name
            # Both halves of the island, and both countries on the river, may go by the short name.
            if code == "MF" and "(" not in name:
                yield "SX", name
            if code == "CG" and name.isalpha():
                yield "CD", name
            if name[-1] in ")\uff09":
                yield code, re.sub(" ?[(\uff08].*", "", name)
            if language in _UMLAUTS_APART and not name.isascii():
                yield code, name.casefold().translate(_UMLAUTS)


def _key(name: str) -> str:
    """Return a name without case, accents, punctuation, `and` and the abbreviation of `Saint`."""
    if not name.isascii():
        name = unicodedata.normalize("NFKD", name.translate(_LETTERS))
        name = unicodedata.normalize("NFC", _ACCENTS.sub("", name))
    words = _PUNCTUATION.sub(" ", name.casefold().replace(".", "").replace("&", " and ")).split()
    words = [word for word in words if word != "the"]
    # Initials that were written apart (`U. S. A.`) are one word.
    if all(len(word) == 1 and word.isascii() for word in words):
        words = ["".join(words)]
    return " ".join("saint" if word in ("st", "sankt") else word for word in words)


_ACCENTS = re.compile("[\u0300-\u036f]")
_PUNCTUATION = re.compile(r"[\s'\"`\u00b4\u02bb\u02bc\u2018\u2019(),;:/\u00b7_\-\u2010-\u2015]+")
_LETTERS = str.maketrans(
    {"\u0131": "i", "ł": "l", "Ł": "l", "đ": "d", "Đ": "d", "ø": "o", "Ø": "o", "æ": "ae", "œ": "oe"}
)
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})
_UMLAUTS_APART = ("de", "da", "no", "sv")
