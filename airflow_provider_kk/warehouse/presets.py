"""Named mappings for the orders of shops and marketplaces; data only.

A field has one source, or several: the first one whose columns are there, and the next where it is blank.
Sources of which no column is there are left out. Each preset follows the public documentation of its format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_CITY = {"province": "{city}"}
"""KK requires a province, and takes the city where a country has none."""


_WOO_CANCELLED = ("cancelled", "refunded", "failed", "trash")


@dataclass(frozen=True)
class Preset:
    """A named mapping: what it is for, and where each field comes from."""

    about: str
    columns: Mapping[str, str | tuple[str, ...]]
    defaults: Mapping[str, str] = field(default_factory=lambda: _CITY)
    fills_down: bool = False
    """A row without an order number belongs to the order above it."""
    has_decimal_point: bool = False
    """A quantity such as `2.000` is 2: the format always writes a decimal point and no thousands."""
    line_column: str | None = None
    """A row that is blank here and has no SKU is no line of its order."""
    cancelled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Sources and the values, any without one, with which an order must not be sent."""
    refunded_in_part: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Sources and values of an order whose lines may still have refunded pieces."""
    shipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Sources and the values, any without one, with which the goods may be on their way already."""
    unshipped_lines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Sources and values of a line that may be no goods, such as a tip."""


PRESETS: Mapping[str, Preset] = {
    "shopify": Preset(
        about="Shopify's REST Admin API: an order as JSON, or Airbyte's table orders",
        columns={
            "custom_order_number": "name",
            "recipient": "shipping_address.name",
            "phone": ("shipping_address.phone", "billing_address.phone", "phone"),
            "street1": "shipping_address.address1",
            "street2": "shipping_address.address2",
            "city": "shipping_address.city",
            "province": "shipping_address.province",
            "zip": "shipping_address.zip",
            "country": "shipping_address.country_code",
            "items": "line_items",
            "items.sku": "sku",
            "items.quantity": ("current_quantity", "quantity"),
            "items.line_id": "id",
        },
        cancelled={"cancelled_at": (), "financial_status": ("refunded", "voided"), "test": ("true", "1")},
        shipped={"fulfillment_status": ("fulfilled", "partial")},
    ),
    "shopify-csv": Preset(
        about="the order export of Shopify's admin (CSV)",
        columns={
            "custom_order_number": "Name",
            "recipient": "Shipping Name",
            "phone": ("Shipping Phone", "Billing Phone", "Phone"),
            "street1": "Shipping Address1",
            "street2": "Shipping Address2",
            "city": "Shipping City",
            "province": ("Shipping Province Name", "Shipping Province"),
            "zip": "Shipping Zip",
            "country": "Shipping Country",
            "sku": "Lineitem sku",
            "quantity": "Lineitem quantity",
        },
        cancelled={
            "Cancelled at": (),
            "Financial Status": ("refunded", "voided"),
            "Payment Method": ("bogus", "(for testing) bogus gateway"),
        },
        refunded_in_part={"Financial Status": ("partially_refunded",)},
        shipped={"Fulfillment Status": ("fulfilled", "partial")},
        unshipped_lines={"Lineitem requires shipping": ("false",)},
    ),
    "woocommerce": Preset(
        about="WooCommerce's REST API v3: an order as JSON",
        columns={
            "custom_order_number": ("number", "id"),
            "recipient": ("{shipping.first_name} {shipping.last_name}", "shipping.company"),
            "phone": ("shipping.phone", "billing.phone"),
            "street1": "shipping.address_1",
            "street2": "shipping.address_2",
            "city": "shipping.city",
            "province": "shipping.state",
            "zip": "shipping.postcode",
            "country": "shipping.country",
            "items": "line_items",
            "items.sku": "sku",
            "items.quantity": "quantity",
            "items.line_id": "id",
        },
        cancelled={"status": _WOO_CANCELLED},
        shipped={"status": ("completed",)},
    ),
    "woocommerce-csv": Preset(
        about="the plugin Advanced Order Export for WooCommerce (CSV, one row for each product)",
        columns={
            "custom_order_number": "Order Number",
            "recipient": "{First Name (Shipping)} {Last Name (Shipping)}",
            "phone": ("Phone (Shipping)", "Phone (Billing)"),
            "street1": ("Address 1&2 (Shipping)", "Address 1 (Shipping)"),
            "street2": "Address 2 (Shipping)",
            "city": "City (Shipping)",
            "province": ("State Name (Shipping)", "State Code (Shipping)"),
            "zip": "Postcode (Shipping)",
            "country": ("Country Code (Shipping)", "Country Name (Shipping)"),
            "sku": "SKU",
            "quantity": ("Quantity (- Refund)", "Quantity"),
            "line_id": "Item #",
        },
        cancelled={"Order Status": _WOO_CANCELLED},
        shipped={"Order Status": ("completed",)},
    ),
    "amazon-tsv": Preset(
        about="Amazon's order report (tab-separated, one row for each item)",
        columns={
            "custom_order_number": "order-id",
            "recipient": "recipient-name",
            "phone": ("ship-phone-number", "buyer-phone-number"),
            "street1": "ship-address-1",
            "street2": "{ship-address-2} {ship-address-3}",
            "city": "ship-city",
            "province": "ship-state",
            "zip": "ship-postal-code",
            "country": "ship-country",
            "sku": "sku",
            "quantity": ("quantity-to-ship", "quantity-purchased"),
            "line_id": "order-item-id",
        },
        cancelled={"order-status": ("cancelled", "canceled")},
        shipped={"order-status": ("shipped",)},
    ),
    "etsy-csv": Preset(
        about="Etsy's sold order items (CSV); it has no phone, so give --default phone=",
        columns={
            "custom_order_number": "Order ID",
            "recipient": "Ship Name",
            "street1": "Ship Address1",
            "street2": "Ship Address2",
            "city": "Ship City",
            "province": "Ship State",
            "zip": "Ship Zipcode",
            "country": "Ship Country",
            "sku": "SKU",
            "quantity": "Quantity",
            "line_id": "Transaction ID",
        },
        shipped={"Date Shipped": ()},
    ),
    "ebay-csv": Preset(
        about="the orders report of eBay's Seller Hub (CSV)",
        columns={
            "custom_order_number": ("Order Number", "Sales Record Number"),
            "recipient": "Ship To Name",
            "phone": ("Ship To Phone", "Buyer Phone"),
            "street1": "Ship To Address 1",
            "street2": "Ship To Address 2",
            "city": "Ship To City",
            "province": "Ship To State",
            "zip": "Ship To Zip",
            "country": "Ship To Country",
            "sku": "Custom Label",
            "quantity": "Quantity",
            "line_id": "Transaction ID",
        },
        line_column="Item Number",
        shipped={"Shipped On Date": ()},
    ),
    "odoo-csv": Preset(
        about="Odoo's export of sales orders (CSV), whose lines leave the order's fields blank",
        columns={
            "custom_order_number": "Order Reference",
            "recipient": ("Delivery Address/Name", "Delivery Address"),
            "phone": ("Delivery Address/Phone", "Delivery Address/Mobile"),
            "street1": "Delivery Address/Street",
            "street2": "Delivery Address/Street2",
            "city": "Delivery Address/City",
            "province": "Delivery Address/State/State Name",
            "zip": "Delivery Address/Zip",
            "country": "Delivery Address/Country/Country Code",
            "sku": "Order Lines/Product/Internal Reference",
            "quantity": "Order Lines/Quantity",
        },
        fills_down=True,
        has_decimal_point=True,
        cancelled={"Status": ("cancel", "cancelled")},
        shipped={"Delivery Status": ("full", "fully delivered", "partial", "partially delivered")},
    ),
}
