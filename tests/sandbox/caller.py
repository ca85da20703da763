"""What a caller of KK needs: requests with a token, and raw sockets to see what really came."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import requests

V1 = "/openapi/v1/order/order"
V1_LATER = "/openapi/v1/order/orders"
V2 = "/openapi/v2/order/orders"
NUMBER_FIELD = {V1: "CustomOrderNumber", V1_LATER: "customOrderId", V2: "customOrderId"}

DRESS = "FWXW00290_WHT_M"
JACKET = "USJK00033_BLK_M"
ADDRESS = {"country": "FR", "phone": "07 82", "recipient": "Odile", "province": "Loire", "zip": "75001"}


def order(number: Any = None, path: str = V1, **changes: Any) -> dict[str, Any]:
    body = {
        "orderAddresses": ADDRESS,
        "orderItemsList": [{"sku": DRESS, "quantity": 1}],
        NUMBER_FIELD[path]: number,
    }
    if path == V2:
        body["channelType"] = "Standard"
    return body | changes


def split_order(number: Any = None, path: str = V1) -> dict[str, Any]:
    lines = [{"sku": DRESS, "quantity": 2}, {"sku": JACKET, "quantity": 1}]
    return order(number, path, orderItemsList=lines)


class Caller:
    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"}

    def post(self, body: Any, path: str = V1, **options: Any) -> requests.Response:
        settings = {"allow_redirects": False} | options
        timeout = settings.pop("timeout", 300)
        return requests.post(self.url + path, json=body, headers=self.headers, timeout=timeout, **settings)

    def create(self, body: Any, path: str = V1) -> Any:
        envelope = self.post(body, path).json()
        assert envelope["code"] == 10000, envelope
        return envelope["data"]

    def refusal(self, body: Any, path: str = V1) -> str:
        envelope = self.post(body, path).json()
        assert envelope["code"] != 10000
        assert envelope["data"] is None
        return str(envelope["message"])

    def get(self, path: str, **query: Any) -> Any:
        answer = requests.get(self.url + path, params=query, headers=self.headers, timeout=300)
        envelope = answer.json()
        assert envelope["code"] == 10000, envelope
        return envelope["data"]

    def listed(self, path: str = V1, **query: Any) -> list[dict[str, Any]]:
        return list(self.get(path, pageSize=250, **query)["list"])

    def connect(self) -> socket.socket:
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname, parts.port), timeout=300)

    def raw(self, body: Any, path: str = V1, *, host: str = "localhost") -> bytes:
        """One whole POST as bytes."""
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {self.headers['Authorization']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def exchange(self, body: Any, path: str = V1) -> bytes:
        """Send an order on a connection of its own and read until the other side ends it."""
        with self.connect() as connection:
            connection.sendall(self.raw(body, path))
            received = b""
            while part := connection.recv(65536):
                received += part
            return received

    def connect_and_forget(self, body: Any, path: str = V1) -> None:
        """Send an order and wait until KK is done with it, whatever comes: an answer, its parts, or none."""
        with self.connect() as connection:
            connection.sendall(self.raw(body, path).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            while connection.recv(65536):
                pass
