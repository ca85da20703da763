"""Thin: template fields in, one call of delivery, XCom out."""
